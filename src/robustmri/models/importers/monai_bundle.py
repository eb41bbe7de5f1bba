"""A MONAI bundle: a folder with configs/ and models/model.pt. Expressions in its configs are Python
code and are not evaluated.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from robustmri.core.errors import CheckpointError
from robustmri.core.sizes import Size, size_of
from robustmri.models.backbones import MONAI_BACKBONES, monai_settings
from robustmri.models.classifier import Constant
from robustmri.models.importers.found import Found
from robustmri.models.importers.hugging_face import read_config
from robustmri.models.importers.programs import found_by_export, load_exactly
from robustmri.models.weights import STEMS

CONFIGS = ("inference.json", "train.json", "evaluate.json")
NETWORK = "network_def"
NETWORKS = "monai.networks.nets."
OWN = (
    "It normalises each image by what that image holds (NormalizeIntensity), which cannot be kept: "
    "here all images are normalised alike."
)


def is_monai_bundle(folder: Path) -> bool:
    """Whether the folder has that layout."""
    return any((folder / "configs" / name).is_file() for name in CONFIGS)


def read_monai_bundle(folder: Path, *, size: Size = 0, trust: bool = False) -> Found:
    """The network of a bundle whose `network_def` is one of MONAI's with plain settings.

    Args:
        folder: of the bundle.
        size: height and width of the images; 0: as its metadata say.
        trust: see `weights_file.check_pickles`.

    Raises:
        CheckpointError: something is missing or damaged, the network is not MONAI's, or the config
            holds expressions.
    """
    config = _find_config(folder)
    network, backbone = _build(folder.name, config)
    weights = next(
        (
            folder / "models" / name
            for name in ("model.safetensors", "model.pt")
            if (folder / "models" / name).is_file()
        ),
        None,
    )
    if weights is None:
        raise CheckpointError(f"{folder.name} has no models/model.pt. Download the whole bundle.")
    load_exactly(network, weights, trust)
    metadata = folder / "configs" / "metadata.json"
    formats = (read_config(metadata) if metadata.is_file() else {}).get("network_data_format", {})
    image: dict[str, Any] = next(iter(formats.get("inputs", {}).values()), {})
    shape = [side for side in image.get("spatial_shape", ()) if isinstance(side, int)]
    size = size or (size_of(*shape) if len(shape) == 2 else 0)
    found = _found(network.eval(), backbone, folder.name, size)
    mean, std, lost = _normalisation(config)
    answer: dict[str, Any] = next(iter(formats.get("outputs", {}).values()), {})
    names = {int(number): str(name) for number, name in answer.get("channel_def", {}).items()}
    classes = tuple(names[number] for number in sorted(names))
    guessed = (*found.guessed, *lost)
    return replace(found, classes=classes, mean=mean, std=std, guessed=guessed)


def _found(network: nn.Module, backbone: str, name: str, size: Size) -> Found:
    """One of our networks as that, any other as a graph."""
    if not backbone:
        return found_by_export(network, name, "bundle", size=size)
    stem = network.get_parameter(STEMS.get(backbone, ("conv1.weight",))[0])
    return Found(
        network=network,
        backbone=backbone,
        how=f"MONAI bundle of {backbone}",
        channels=3 if stem.shape[1] == 3 else 1,
        size=size or None,
        ends_in="logits",
    )


def _normalisation(
    config: dict[str, Any],
) -> tuple[Constant | None, Constant | None, tuple[str, ...]]:
    """Mean and standard deviation of what follows a scaling of the images to [0, 1], 0 and 1 where
    nothing does, None where it does not say; and what cannot be kept, in sentences.
    """
    steps = config.get("preprocessing")
    steps = steps.get("transforms") if isinstance(steps, dict) else None
    scaled = False
    for step in steps if isinstance(steps, list) else ():
        kind = str(step.get("_target_", "")) if isinstance(step, dict) else ""
        kind = kind.rpartition(".")[2].removesuffix("d")
        if kind == "ScaleIntensity":
            scaled = (step.get("minv", 0.0), step.get("maxv", 1.0)) == (0.0, 1.0)
        elif kind == "ScaleIntensityRange":
            scaled = (step.get("b_min"), step.get("b_max")) == (0.0, 1.0)
        elif kind == "NormalizeIntensity":
            told = [step.get(name) for name in ("subtrahend", "divisor")]
            if None in told or step.get("nonzero"):
                return None, None, (OWN,)
            mean, std = map(_constant, told)
            known = scaled and mean is not None and std is not None
            return (mean, std, ()) if known else (None, None, ())
        elif "Intensity" in kind:
            scaled = False
    return (0.0, 1.0, ()) if scaled else (None, None, ())


def _constant(value: object) -> Constant | None:
    given = value if isinstance(value, list) else [value]
    numbers = [float(one) for one in given if isinstance(one, int | float)]
    if len(numbers) != len(given) or len(numbers) not in (1, 3):
        return None
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1], numbers[2])


def _find_config(folder: Path) -> dict[str, Any]:
    for name in CONFIGS:
        file = folder / "configs" / name
        if file.is_file():
            config = read_config(file)
            if NETWORK in config:
                return config
    raise CheckpointError(
        f"{folder.name}: none of its configs ({', '.join(CONFIGS)}) has a {NETWORK!r}."
    )


def _build(name: str, config: dict[str, Any]) -> tuple[nn.Module, str]:
    """The network, and which of ours it is, if it is one."""
    import monai.networks.nets

    settings = dict(config[NETWORK]) if isinstance(config[NETWORK], dict) else {}
    target = str(settings.pop("_target_", ""))
    settings = {key: _plain(value, config, name) for key, value in settings.items()}
    kind = getattr(monai.networks.nets, target.removeprefix(NETWORKS), None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise CheckpointError(
            f"{name}: its network {target or config[NETWORK]!r} is not one of MONAI's. Export it "
            "to ONNX where it was made, and import that."
        )
    if "pretrained" in inspect.signature(kind).parameters:
        settings["pretrained"] = False  # Nothing is fetched; the bundle's own weights come next.
    settings = {key: value for key, value in settings.items() if not key.startswith("_")}
    try:
        return kind(**settings), _ours(target.removeprefix(NETWORKS), settings)
    except (TypeError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name}: {target} cannot be built ({said}).") from error


def _ours(kind: str, settings: dict[str, Any]) -> str:
    outputs = settings.get("num_classes", settings.get("out_channels", 0))
    planes = settings.get("n_input_channels", settings.get("in_channels", 0))
    for backbone in MONAI_BACKBONES if outputs > 1 and planes in (1, 3) else ():
        if monai_settings(backbone, outputs, planes) == (kind, settings):
            return backbone
    return ""


def _plain(value: Any, config: dict[str, Any], name: str) -> Any:
    """The value; of "@key" that of the config's key."""
    if isinstance(value, str) and value.startswith("@") and value[1:] in config:
        value = config[value[1:]]
    if isinstance(value, str) and value.startswith(("$", "@")):
        raise CheckpointError(
            f"{name}: the setting {value!r} of its network is an expression, which is not "
            "evaluated here. Write its value there, or export the network to ONNX and import that."
        )
    if isinstance(value, list):
        return [_plain(one, config, name) for one in value]
    if isinstance(value, dict) and "_target_" in value:
        raise CheckpointError(f"{name}: its network is made of parts ({value['_target_']}).")
    return value
