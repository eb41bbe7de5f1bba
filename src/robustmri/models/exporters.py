"""A classifier for other programs: ONNX, torch.export, a folder in Hugging Face's layout, or a
MONAI bundle.
"""

from __future__ import annotations

import inspect
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustmri.core.errors import CheckpointError, SettingsError, in_short
from robustmri.core.files import atomic_file, atomic_folder
from robustmri.core.sizes import sides
from robustmri.models.backbones import MONAI_BACKBONES, monai_settings
from robustmri.models.classifier import Classifier, ClassifierSpec

# From our names, which are torchvision's, to transformers' of a ResNet, in this order.
TO_HUGGING_FACE: tuple[tuple[str, Any], ...] = (
    (r"^conv1\.", "resnet.embedder.embedder.convolution."),
    (r"^bn1\.", "resnet.embedder.embedder.normalization."),
    (r"^layer(\d)\.", lambda found: f"resnet.encoder.stages.{int(found[1]) - 1}.layers."),
    (r"\.conv(\d)\.", lambda found: f".layer.{int(found[1]) - 1}.convolution."),
    (r"\.bn(\d)\.", lambda found: f".layer.{int(found[1]) - 1}.normalization."),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
    (r"^fc\.", "classifier.1."),
)
BUNDLE_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
PREPARED = {
    channels: f"Pictures are prepared as robustmri prepares them unless told otherwise: {rule}, "
    "padded with black to the network's aspect ratio and resized (smoothly, where prepare averages "
    "over exact areas). For a network that knows slices of another --intensity, or of "
    "--stretch, change the preprocessing."
    for channels, rule in {
        1: "grey, the darkest pixel 0 and the brightest 1",
        3: "in colour, 0 to 255 of 8 bit as 0 to 1",
    }.items()
}
"""What a bundle says of its pictures, by the planes of its network."""
BUNDLE_VERSIONS = {"monai": "monai", "pytorch": "torch", "numpy": "numpy"}
RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {
        "layer_type": "basic",
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [64, 128, 256, 512],
    },
    "resnet50": {
        "layer_type": "bottleneck",
        "depths": [3, 4, 6, 3],
        "hidden_sizes": [256, 512, 1024, 2048],
    },
}


def write_onnx(classifier: Classifier, out: Path, card: str = "") -> None:
    """Images in [0, 1] of shape (n, channels, h, w) to logits; the normalisation is inside.

    Its metadata hold the class names, and a mean of 0 and a standard deviation of 1, so that
    `import` reads it back as it is.

    Raises:
        CheckpointError: a black box, or a network that torch cannot export.
        SettingsError: a package is missing.
    """
    classifier = _climbable(classifier)
    try:
        from onnx import helper
    except ImportError as error:
        raise SettingsError(
            "Writing ONNX needs the package onnx. Install it: pip install 'robustmri[import]'."
        ) from error
    with torch.no_grad(), quiet():
        model = to_onnx(classifier, _images(classifier), classifier.spec.backbone)
    names = json.dumps(list(classifier.classes))
    helper.set_model_props(model, {"classes": names, "mean": "0", "std": "1"})
    with atomic_file(out) as partial:
        partial.write_bytes(model.SerializeToString())
    _write_beside(out, card)


def write_program(classifier: Classifier, out: Path, card: str = "") -> None:
    """The same as a program of torch.export, for any number of images.

    Raises:
        CheckpointError: a black box, or a network that torch cannot export.
    """
    classifier = _climbable(classifier)
    with torch.no_grad(), quiet():
        try:
            program = torch.export.export(
                classifier,
                (_images(classifier),),
                dynamic_shapes=({0: torch.export.Dim("n")},),
            )
        except Exception as error:  # Its errors are of several kinds.
            raise CheckpointError(
                f"torch cannot export {classifier.spec.backbone} ({in_short(error)})."
            ) from error
        for step in program.graph.nodes:
            step.meta.pop("stack_trace", None)  # It names folders.
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    with atomic_file(out) as partial:
        partial.write_bytes(buffer.getvalue())
    _write_beside(out, card)


def _write_beside(out: Path, card: str) -> None:
    if card:
        with atomic_file(out.with_suffix(".md")) as partial:
            partial.write_text(card, encoding="utf-8")


def _beyond(spec: ClassifierSpec, backbones: Iterable[str]) -> str:
    """What a layout for those networks alone cannot say of this one; "" where it can."""
    if spec.mirrored:
        return f"{spec.backbone} that is asked about mirror images too"
    if spec.order or spec.one_logit:
        return f"{spec.backbone} with outputs in another order"
    plain = spec.format == "backbone" and spec.backbone in backbones
    return "" if plain else spec.backbone


def write_hugging_face(classifier: Classifier, out: Path, card: str = "") -> None:
    """A folder that transformers opens by `from_pretrained`: config.json, model.safetensors and
    preprocessor_config.json.

    Raises:
        CheckpointError: it is none of the networks that transformers has too.
        DataError: the folder holds something else.
    """
    from safetensors.torch import save

    spec = classifier.spec
    if odd := _beyond(spec, RESNETS):
        raise CheckpointError(
            f"Hugging Face's layout is written of {', '.join(RESNETS)}; this is {odd}. Take "
            "--to onnx."
        )
    state = {}
    for name, value in classifier.network.state_dict().items():
        for pattern, replacement in TO_HUGGING_FACE:
            name = re.sub(pattern, replacement, name, count=1)
        state[name] = value.detach().cpu().contiguous().clone()
    config = {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "num_channels": spec.channels,
        "embedding_size": 64,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
        "id2label": {str(number): name for number, name in enumerate(spec.classes)},
        "label2id": {name: number for number, name in enumerate(spec.classes)},
        **RESNETS[spec.backbone],
    }
    mean, std = (
        list(value) if isinstance(value, tuple) else [value] * spec.channels
        for value in (spec.mean, spec.std)
    )
    processor = {
        # ResNet's own is ConvNext's, which knows squares alone and cuts their margins off.
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": spec.channels == 3,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
        "size": dict(zip(("height", "width"), sides(spec.size), strict=True)),
    }
    with atomic_folder(out, replaces="config.json") as partial:
        for file, facts in (("config.json", config), ("preprocessor_config.json", processor)):
            (partial / file).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        (partial / "model.safetensors").write_bytes(save(state, metadata={"format": "pt"}))
        if card:
            (partial / "README.md").write_text(card, encoding="utf-8")


def write_monai_bundle(classifier: Classifier, out: Path, card: str = "") -> None:
    """A MONAI bundle: configs/metadata.json, configs/inference.json and models/model.pt, which hold
    the network as MONAI builds it, its normalisation and its classes.

    Raises:
        CheckpointError: it is none of the networks that MONAI builds.
        DataError: the folder holds something else.
    """
    spec = classifier.spec
    if odd := _beyond(spec, MONAI_BACKBONES):
        raise CheckpointError(
            f"A MONAI bundle is written of {', '.join(MONAI_BACKBONES)}; this is {odd}. Take "
            "--to onnx."
        )
    state = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in classifier.network.state_dict().items()
    }
    configs = {"metadata.json": _bundle_metadata(spec), "inference.json": _bundle_inference(spec)}
    with atomic_folder(out) as partial:
        for folder in ("configs", "models"):
            (partial / folder).mkdir()
        for file, facts in configs.items():
            text = json.dumps(facts, indent=2) + "\n"
            (partial / "configs" / file).write_text(text, encoding="utf-8")
        # MONAI asks for a file of this name; it holds tensors alone, and is read as such.
        torch.save(state, partial / "models" / "model.pt")
        if card:
            (partial / "docs").mkdir()
            (partial / "docs" / "README.md").write_text(card, encoding="utf-8")


def _bundle_metadata(spec: ClassifierSpec) -> dict[str, Any]:
    """In the fields of MONAI's schema."""
    image = {
        "type": "image",
        "format": "magnitude",
        "num_channels": spec.channels,
        "spatial_shape": list(sides(spec.size)),
        "dtype": "float32",
        "is_patch_data": False,
        "channel_def": {str(plane): "image" for plane in range(spec.channels)},
    }
    return {
        "schema": BUNDLE_SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported by robustmri"},
        **{f"{name}_version": version(package) for name, package in BUNDLE_VERSIONS.items()},
        "optional_packages_version": {"pytorch-ignite": "0.4.11"},
        "task": f"Tell apart {', '.join(spec.classes)}",
        "description": f"{spec.backbone}, exported by robustmri. It started from: {spec.weights}. "
        f"{PREPARED[spec.channels]}",
        "authors": "see the checkpoint that it was exported from",
        "copyright": "see the checkpoint that it was exported from",
        "intended_use": "Research on robustness. No medical device.",
        "network_data_format": {
            "inputs": {"image": image | {"value_range": None}},
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "classes",
                    "num_channels": len(spec.classes),
                    "spatial_shape": [],
                    "dtype": "float32",
                    "value_range": None,
                    "is_patch_data": False,
                    "channel_def": {str(one): name for one, name in enumerate(spec.classes)},
                }
            },
        },
    }


def _bundle_inference(spec: ClassifierSpec) -> dict[str, Any]:
    """From images to predictions.csv, by the keys that MONAI's bundles share."""
    kind, settings = monai_settings(spec.backbone, len(spec.classes), spec.channels)
    several = isinstance(spec.mean, tuple) or isinstance(spec.std, tuple)
    constants: dict[str, Any] = {
        "subtrahend": spec.mean,
        "divisor": spec.std,
        "channel_wise": several,
    }
    if several:
        mean, std = (
            list(value) if isinstance(value, tuple) else [value] * 3
            for value in (spec.mean, spec.std)
        )
        constants |= {"subtrahend": mean, "divisor": std}
    rows, columns = sides(spec.size)
    # Pillow would cut more than 8 bit off.
    planes = "image if image.mode[0] in 'IF' else image.convert('L')"
    scaling: dict[str, Any] = {"_target_": "ScaleIntensityd", "minv": 0.0, "maxv": 1.0}
    if spec.channels == 3:
        planes = "image.convert('RGB')"
        whole = {"a_min": 0.0, "a_max": 255.0, "b_min": 0.0, "b_max": 1.0}
        scaling = {"_target_": "ScaleIntensityRanged", **whole}
    padded = f"max(h, round(w * {rows} / {columns})), max(w, round(h * {columns} / {rows}))"
    steps: list[dict[str, Any]] = [
        {
            "_target_": "LoadImaged",
            # Rows stay rows.
            "reader": f"$monai.data.PILReader(lambda image: {planes}, reverse_indexing=False)",
            "ensure_channel_first": True,
        },
        scaling,
        {
            "_target_": "Lambdad",
            "func": f"$lambda image: (lambda h, w: monai.transforms.SpatialPad(({padded})))"
            "(*image.shape[1:])(image)",
        },
        {
            "_target_": "Resized",
            "spatial_size": [rows, columns],
            "mode": "bilinear",
            "anti_aliasing": True,
        },
        {"_target_": "NormalizeIntensityd", **constants},
    ]
    read = "$monai.handlers.from_engine(['pred'])"
    return {
        "imports": ["$from pathlib import Path"],
        "bundle_root": ".",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "datalist": "$sorted(str(path) for path in Path(@dataset_dir).glob('*.png'))",
        "network_def": {"_target_": f"monai.networks.nets.{kind}", **settings},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [{**step, "keys": "image"} for step in steps],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "@ckpt_path",
                "load_dict": {"model": "@network"},
            },
            {
                "_target_": "ClassificationSaver",
                "output_dir": "@output_dir",
                "batch_transform": "$lambda batch: [one['image'].meta for one in batch]",
                "output_transform": read,
            },
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


EXPORTERS: dict[str, Callable[[Classifier, Path, str], None]] = {
    "onnx": write_onnx,
    "pt2": write_program,
    "huggingface": write_hugging_face,
    "monai": write_monai_bundle,
}
"""Name of a layout to what writes it: the classifier, where, and the text of its model card."""


def _climbable(classifier: Classifier) -> Classifier:
    if classifier.spec.format == "black-box":
        raise CheckpointError(
            "A black box is an ONNX file already, and can be nothing else: model.onnx in its "
            "checkpoint."
        )
    return classifier.eval()


def _images(classifier: Classifier) -> Tensor:
    return torch.rand(2, *classifier.spec.shape, generator=torch.Generator().manual_seed(0))


def to_onnx(module: nn.Module, images: Tensor, name: str, *, program: Any = None) -> Any:
    """The module as an ONNX model, by torch's newer exporter or, where that fails, its older."""
    faults = []
    export: Any = torch.onnx.export
    known = inspect.signature(export).parameters
    if not isinstance(module, torch.jit.ScriptModule) and "dynamo" in known:
        try:
            any_number = {0: torch.export.Dim("n")}
            given: dict[str, Any] = {} if program else {"dynamic_shapes": (any_number,)}
            arguments = (program,) if program else (module, (images,))
            model = export(*arguments, dynamo=True, verbose=False, **given).model_proto
            for graph in (model.graph, *model.functions):
                for node in graph.node:  # Where it came from, with names of folders.
                    del node.metadata_props[:]
            return model
        except Exception as error:  # Its errors are of several kinds, a missing package among them.
            faults.append(error)
    import onnx

    buffer = io.BytesIO()
    try:
        export(
            module,
            (images,),
            buffer,
            input_names=["images"],
            output_names=["outputs"],
            dynamic_axes={"images": {0: "n"}, "outputs": {0: "n"}},
            **({"dynamo": False} if "dynamo" in known else {}),
        )
    except Exception as error:
        faults.append(error)
        missing = [one for one in faults if isinstance(one, ImportError)]
        if missing:
            raise SettingsError(
                f"To turn {name} into a graph, a package is missing ({in_short(missing[0])}). "
                "Install it: pip install 'robustmri[import]'."
            ) from error
        raise CheckpointError(
            f"torch cannot export {name} ({in_short(faults[0])}). Export it to ONNX where it was "
            "made, and import that."
        ) from error
    return onnx.load_from_string(buffer.getvalue())


@contextmanager
def quiet() -> Iterator[None]:
    """What the exporters warn of is for those who write them; what counts is compared."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
