"""A folder in Hugging Face's layout: config.json and model.safetensors. Code in it is not run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustmri.core.arrays import Images, Logits
from robustmri.core.errors import CheckpointError, DataError, SettingsError
from robustmri.core.files import read_json
from robustmri.core.sizes import Size, size_of
from robustmri.models.classifier import Constant
from robustmri.models.importers.found import Found
from robustmri.models.importers.programs import found_by_export
from robustmri.models.importers.weights_file import fit_published
from robustmri.models.layouts import Published, read_published

CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
STEPS = (
    *("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_flip_channel_order"),
    *("do_convert_rgb", "do_reduce_labels"),
)
"""Of a processor, that are kept, or change nothing of the images of a classifier."""
FURTHER = ("rescale_offset", "include_top")
"""Steps of EfficientNet's alone."""
RESNETS: dict[Any, str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
}
# Settings under which its ResNet and ViT are torchvision's.
PLAIN: dict[str, dict[str, Any]] = {
    "resnet": {
        "embedding_size": 64,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    },
    "vit": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "patch_size": 16,
        "hidden_act": "gelu",
        "qkv_bias": True,
    },
}
RENAMES = {  # To torchvision's names, in this order.
    "resnet": (
        (r"^resnet\.embedder\.embedder\.convolution", "conv1"),
        (r"^resnet\.embedder\.embedder\.normalization", "bn1"),
        (r"^resnet\.encoder\.stages\.(\d)\.layers\.", lambda found: f"layer{int(found[1]) + 1}."),
        (r"\.layer\.(\d)\.convolution", lambda found: f".conv{int(found[1]) + 1}"),
        (r"\.layer\.(\d)\.normalization", lambda found: f".bn{int(found[1]) + 1}"),
        (r"\.shortcut\.convolution", ".downsample.0"),
        (r"\.shortcut\.normalization", ".downsample.1"),
        (r"^classifier\.1\.", "fc."),
    ),
    "vit": (
        (r"^vit\.embeddings\.cls_token$", "class_token"),
        (r"^vit\.embeddings\.position_embeddings$", "encoder.pos_embedding"),
        (r"^vit\.embeddings\.patch_embeddings\.projection\.", "conv_proj."),
        (r"^vit\.encoder\.layer\.", "encoder.layers.encoder_layer_"),
        (r"\.attention\.attention\.qkv\.", ".self_attention.in_proj_"),
        (r"\.attention\.output\.dense\.", ".self_attention.out_proj."),
        (r"\.intermediate\.dense\.", ".mlp.linear_1."),
        (r"\.output\.dense\.", ".mlp.linear_2."),
        (r"\.layernorm_before\.", ".ln_1."),
        (r"\.layernorm_after\.", ".ln_2."),
        (r"^vit\.layernorm\.", "encoder.ln."),
        (r"^classifier\.", "heads.head."),
    ),
}


def is_hugging_face(folder: Path) -> bool:
    """Whether the folder has that layout."""
    return (folder / CONFIG).is_file()


def read_hugging_face(folder: Path, *, size: Size = 0) -> Found:
    """The network of a folder; its processor's size and normalisation, its config's classes.

    Args:
        folder: with config.json and model.safetensors.
        size: height and width of the images; 0: as the folder says.

    Raises:
        CheckpointError: something is missing or damaged, or the folder brings code of its own.
        SettingsError: a network that only transformers can build, and that is missing.
    """
    config = read_config(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder.name} has no {WEIGHTS}. Save it there with save_pretrained(FOLDER)."
        )
    if "auto_map" in config:
        raise CheckpointError(
            f"{folder.name} brings code of its own (auto_map), which is not run here. Export the "
            "network to ONNX where it is trusted, and import that."
        )
    processor = read_config(folder / PROCESSOR) if (folder / PROCESSOR).is_file() else {}
    size = size or _processed_size(processor) or _size(config.get("image_size"))
    # Of all processors MobileViT's alone normalises nothing, and it turns RGB into BGR.
    mobile = str(processor.get("image_processor_type") or processor.get("feature_extractor_type"))
    usual = not mobile.startswith("MobileViT")
    flipped = bool(processor.get("do_flip_channel_order", not usual))
    backbone = "" if flipped else _ours(config)
    if backbone:
        published = Published(_renamed(read_published(folder / WEIGHTS), config["model_type"]))
        found = fit_published(published, folder.name, arch=backbone, size=size)
    else:
        found = _by_transformers(folder, size, flipped)
    mean, std = _normalisation(processor, usual, found.channels)
    names = {int(number): str(name) for number, name in config.get("id2label", {}).items()}
    return replace(
        found,
        how=f"Hugging Face folder, {found.how}",
        size=size or found.size,
        classes=_class_names(names),
        mean=mean,
        std=std,
        ends_in="logits",
        guessed=(*found.guessed, *_steps_left_out(processor)),
    )


def _ours(config: dict[str, Any]) -> str:
    """The backbone of ours that computes the same; empty where there is none."""
    kind = config.get("model_type", "")
    plain = PLAIN.get(kind, {})
    # What config.json leaves out is as transformers has it, which is what is asked for here.
    if not plain or any(config.get(name, value) != value for name, value in plain.items()):
        return ""
    if kind == "vit":
        return "vit"
    layers = config.get("layer_type", "bottleneck"), tuple(config.get("depths", (3, 4, 6, 3)))
    return RESNETS.get(layers, "")


def _renamed(published: Published, kind: str) -> dict[str, Tensor]:
    state = dict(published.tensors)
    for name in [name for name in state if ".attention.attention.query." in name]:
        parts = [state.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        state[name.replace("query", "qkv")] = torch.cat(parts)
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in RENAMES[kind]:
            name = re.sub(pattern, replacement, name, count=1)
        renamed[name] = value
    return renamed


class _LogitsOnly(nn.Module):
    def __init__(self, model: Any, flipped: bool) -> None:
        super().__init__()
        self.model, self.flipped = model, flipped

    def forward(self, images: Images) -> Logits:
        images = images.flip(1) if self.flipped else images
        logits: Logits = self.model(pixel_values=images).logits
        return logits


def _by_transformers(folder: Path, size: Size, flipped: bool) -> Found:
    try:
        import transformers
    except ImportError as error:
        raise SettingsError(
            f"The network of {folder.name} is none of ours, and the package transformers, which "
            "could build it, is missing. Install it: pip install 'robustmri[hub]'."
        ) from error
    try:
        model = transformers.AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise CheckpointError(f"transformers cannot build {folder.name} ({said}).") from error
    return found_by_export(
        _LogitsOnly(model, flipped).eval(), folder.name, "transformers", size=size
    )


def _class_names(names: dict[int, str]) -> tuple[str, ...]:
    """Unless they are transformers' own stand-ins, which say nothing."""
    if not names or all(re.fullmatch(r"LABEL_\d+", name) for name in names.values()):
        return ()
    return tuple(names[number] for number in sorted(names))


def _normalisation(
    processor: dict[str, Any], usual: bool, channels: int
) -> tuple[Constant | None, Constant | None]:
    """Mean and standard deviation in units of the [0, 1] range; None where they are not said.

    Args:
        processor: settings of an image processor of transformers, which has pixels of 0 to 255.
        usual: whether it normalises if it does not say.
        channels: of the network.
    """
    mean, std = processor.get("image_mean"), processor.get("image_std")
    if not processor.get("do_normalize", usual):
        mean, std = 0.0, 1.0
    if mean is None or std is None:
        return None, None
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1
    scale = 255 * float(factor)
    return _planes(mean, scale, channels), _planes(std, scale, channels)


def _steps_left_out(processor: dict[str, Any]) -> list[str]:
    """What a processor asks for and an import does not do, as a sentence, if there is any."""
    asked = [
        name
        for name, value in processor.items()
        if value and (name in FURTHER or (name.startswith("do_") and name not in STEPS))
    ]
    return [f"Its processor asks for {', '.join(asked)}, which is not done here."] if asked else []


def _planes(said: Any, scale: float, channels: int) -> Constant:
    values = [float(one) / scale for one in (said if isinstance(said, (list, tuple)) else [said])]
    if channels == 3 and len(values) == 3:
        return values[0], values[1], values[2]
    return round(sum(values) / len(values), 9)


def _processed_size(processor: dict[str, Any]) -> Size:
    """Of the images that a processor gives: what it cuts out, else what it resizes to."""
    cut = _size(processor.get("crop_size")) if processor.get("do_center_crop", True) else 0
    return cut or _size(processor.get("size"))


def _size(said: Any) -> Size:
    if isinstance(said, dict):
        short = said.get("shortest_edge") or 0
        said = said.get("height") or short, said.get("width") or said.get("height") or short
    parts = said if isinstance(said, (list, tuple)) and len(said) == 2 else (said, said)
    known = all(isinstance(part, (int, float)) for part in parts)
    return size_of(int(parts[0]), int(parts[1])) if known else 0


def read_config(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        return dict(read_json(file))
    except (DataError, ValueError, OSError, TypeError) as error:
        raise CheckpointError(f"{file.name} is damaged ({error}).") from error
