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
from robustmri.models.importers.found import Found
from robustmri.models.importers.hugging_face import read_config
from robustmri.models.importers.programs import found_by_export, load_exactly

CONFIGS = ("inference.json", "train.json", "evaluate.json")
NETWORK = "network_def"
NETWORKS = "monai.networks.nets."


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
    network = _build(folder.name, config)
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
    found = found_by_export(network.eval(), folder.name, "bundle", size=size)
    answer: dict[str, Any] = next(iter(formats.get("outputs", {}).values()), {})
    names = {int(number): str(name) for number, name in answer.get("channel_def", {}).items()}
    return replace(found, classes=tuple(names[number] for number in sorted(names)))


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


def _build(name: str, config: dict[str, Any]) -> nn.Module:
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
    try:
        return kind(**{key: value for key, value in settings.items() if not key.startswith("_")})
    except (TypeError, ValueError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{name}: {target} cannot be built ({said}).") from error


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
