"""Networks of other libraries: `timm:NAME`, `torchvision:NAME` and `hf:NAME` (optional, nothing
here is required).
"""

from __future__ import annotations

import importlib
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robustmri.core.errors import CheckpointError, SettingsError
from robustmri.core.sizes import Size, size_words
from robustmri.models.stem import IMAGENET_MEAN, IMAGENET_STD, ThreePlanes

PACKAGES = {"timm": "timm", "torchvision": "torchvision", "hf": "transformers"}


HUB_NAME = re.compile(r"(timm|torchvision):[\w.]+|hf:\w[\w.-]*(/\w[\w.-]*)?")
"""Names as the libraries publish them. A folder or a server would have to be there again whenever
the network is loaded, and a file must not lead to either."""


_DECLARED: list[torch.library.Library] = []
"""Operators that were declared for torchvision, which live as long as this."""


def is_hub(backbone: str) -> bool:
    """Whether the name belongs to another library.

    >>> is_hub("timm:convnext_tiny"), is_hub("resnet50")
    (True, False)
    """
    return backbone.partition(":")[0] in PACKAGES and ":" in backbone


def build_hub_network(backbone: str, *, classes: int, size: Size) -> nn.Module:
    """Build the named network with fresh weights, one grey plane or three in and bare logits out.

    Raises:
        SettingsError: the library is not installed, does not know the name, or builds it for
            squares only.
    """
    hub, name = _open(backbone)
    try:
        if backbone.startswith("timm:"):
            facts = hub.get_pretrained_cfg(name)
            if facts is None:
                raise ValueError("no such model")
            model = hub.create_model(name, num_classes=classes, **_timm_size(hub, name, size))
            return ThreePlanes(model, facts.mean, facts.std)
        if backbone.startswith("torchvision:"):
            fixed = name.startswith("vit_")
            if fixed and not isinstance(size, int):
                raise ValueError(f"it takes squares, not {size_words(size)}")
            room = {"image_size": size} if fixed else {}
            return ThreePlanes(
                hub.models.get_model(name, weights=None, num_classes=classes, **room)
            )
        config = hub.AutoConfig.from_pretrained(name, num_labels=classes, image_size=size)
        return ThreePlanes(
            hub.AutoModelForImageClassification.from_config(config), *_processor(hub, name)
        )
    except (ValueError, RuntimeError, OSError, TypeError) as error:
        raise SettingsError(
            f"{backbone!r} cannot be built ({_first_line(error)}). Look up the name there."
        ) from error


def pretrained_state(backbone: str, size: Size) -> dict[str, Tensor]:
    """Weights that the library itself publishes under the name; its own cache holds the file, and
    its own rules say whether it is the right one (torchvision: by eight digits of its sha256).

    timm fits position embeddings to `size`; the others are as published.

    Raises:
        CheckpointError: the library has none, they could not be fetched, or they hold code.
    """
    hub, name = _open(backbone)
    try:
        with _tensors_only():
            if backbone.startswith("timm:"):
                model = hub.create_model(name, pretrained=True, **_timm_size(hub, name, size))
            elif backbone.startswith("torchvision:"):
                model = hub.models.get_model(name, weights="DEFAULT")
            else:
                model = hub.AutoModelForImageClassification.from_pretrained(name)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"The pretrained weights of {backbone!r} hold more than tensors, so they were not "
            "opened. Give a local file of tensors instead, or start from --weights none."
        ) from error
    except (ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(
            f"The pretrained weights of {backbone!r} cannot be fetched ({_first_line(error)}). Is "
            "this machine offline? Give a local file instead, or start from --weights none."
        ) from error
    state: dict[str, Tensor] = model.state_dict()
    return state


@contextmanager
def _tensors_only() -> Iterator[None]:
    """No code of a file is run by torch.load, whatever a library asks for."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _open(backbone: str) -> tuple[Any, str]:
    prefix, _, name = backbone.partition(":")
    package = PACKAGES[prefix]
    if not HUB_NAME.fullmatch(backbone):
        raise SettingsError(
            f"{backbone!r} is no name that {package} publishes a network under; a folder or a "
            "server cannot be given. Without a network, fetch it on another machine into that "
            "library's own cache and copy this."
        )
    try:
        return _import(package), name
    # torchvision built for another torch raises a RuntimeError.
    except (ImportError, RuntimeError) as error:
        raise SettingsError(
            f"{backbone!r} needs the package {package}, which cannot be imported "
            f"({_first_line(error)}). Install it with: pip install 'robustmri[hub]'; "
            "docs/importing.md has the command that leaves this torch in place."
        ) from error


def _import(package: str) -> Any:
    """The package, also beside a torch for which torchvision's compiled operators were not built.

    PyPI's torchvision for Linux is built for CUDA. Beside a CPU torch its operators do not load,
    and its import ends where it adds to two of them; the networks that classify use none.
    """
    try:
        return importlib.import_module(package)
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    _DECLARED.append(torch.library.Library("torchvision", "FRAGMENT"))
    for operator in ("nms", "qnms"):
        _DECLARED[0].define(
            f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
    return importlib.import_module(package)


def _timm_size(hub: Any, name: str, size: Size) -> dict[str, Size]:
    """Settings that only the networks with position embeddings take."""
    facts = hub.get_pretrained_cfg(name)
    return {"img_size": size} if facts is not None and facts.fixed_input_size else {}


def _processor(hub: Any, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that a Hugging Face model was trained with; ImageNet's where it
    does not say.
    """
    try:
        facts, _ = hub.ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        facts = {}
    return tuple(facts.get("image_mean", IMAGENET_MEAN)), tuple(
        facts.get("image_std", IMAGENET_STD)
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
