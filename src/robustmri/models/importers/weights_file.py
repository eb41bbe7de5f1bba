"""Weights by name (.safetensors, .pth, .pt, .ckpt) for a network that a library builds; its last
layer stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from robustmri.core.errors import CheckpointError, did_you_mean
from robustmri.core.sizes import Size
from robustmri.models.backbones import BACKBONES, PATCH_SIZE, build_network
from robustmri.models.hub import PACKAGES, is_hub
from robustmri.models.importers.found import Found
from robustmri.models.layouts import Published, read_published
from robustmri.models.stem import GREY_MEAN, GREY_STD, ThreePlanes, grey_constants
from robustmri.models.weights import POSITIONS, STEMS, fit_state, head_of, translate

SAFE_PICKLES = (2, 10)
"""First torch whose reader of tensors alone has no published hole (CVE-2025-32434,
CVE-2026-24747)."""
USUAL_SIZE = 224


def read_weights(path: Path, *, arch: str = "", size: Size = 0, trust: bool = False) -> Found:
    """The network of a file of weights.

    Args:
        path: the file; `state_dict`, `model` and prefixes such as `module.` are seen through.
        arch: one of `BACKBONES`, timm:NAME, torchvision:NAME or hf:NAME; "" to tell one of ours
            from the names of the tensors.
        size: height and width of the images; 0 where the network takes any, or its file says.
        trust: see `check_pickles`.

    Raises:
        CheckpointError: damaged, of a network that is not known, or without a last layer.
        SettingsError: there is no network of that name, or its library is missing.
    """
    check_pickles(path, trust)
    return fit_published(read_published(path, trust=trust), path.name, arch=arch, size=size)


def fit_published(published: Published, file: str, *, arch: str = "", size: Size = 0) -> Found:
    """The network of a file's tensors; for the arguments see `read_weights`."""
    guessed = []
    backbone = arch
    if not backbone:
        backbone = recognise(published, file)
        guessed.append(f"The network is {backbone}, by the names and shapes in {file}.")
    own, head = _facts(backbone)
    seen = translate(backbone, published, own)
    size = size or _size_of(seen) or (USUAL_SIZE if is_hub(backbone) else 0)
    channels = 3 if is_hub(backbone) else _planes_of(backbone, seen, file)
    outputs = _outputs_of(head, seen, file)
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            backbone,
            max(outputs, 2),
            size or USUAL_SIZE,
            channels=channels,
            one_logit=outputs == 1,
        )
    notes = fit_state(network, backbone, published, file)
    if "last layer drawn anew" in notes:
        raise CheckpointError(
            f"{file}: its last layer does not fit {backbone}'s. An import keeps it as it is; "
            "export the network to ONNX and import that."
        )
    mean: Any = None
    std: Any = None
    if isinstance(network, ThreePlanes):
        mean, std = GREY_MEAN, GREY_STD
    elif published.layout:
        mean, std = published.mean, published.std
        if channels == 1:
            mean, std = grey_constants(mean, std)
    how = "; ".join([f"weights of {backbone}", *notes])
    return Found(
        network=network.eval(),
        backbone=backbone,
        how=how,
        channels=channels,
        size=size or None,
        mean=mean,
        std=std,
        ends_in="logits",
        guessed=tuple(guessed),
    )


def recognise(published: Published, file: str) -> str:
    """Which of our networks the names and shapes are those of.

    Raises:
        CheckpointError: of none.
    """
    missed = {}
    for backbone in BACKBONES:
        own, head = _facts(backbone)
        state = translate(backbone, published, own)
        free = {STEMS.get(backbone, ("conv1.weight",))[0], POSITIONS, *head}
        wanted = {name for name in own if not name.endswith("num_batches_tracked")}
        wrong = wanted - {
            name
            for name in wanted & state.keys()
            if name in free or state[name].shape == own[name].shape
        }
        unexpected = state.keys() - own.keys()
        if not wrong and not unexpected:
            return backbone
        missed[backbone] = len(wrong) + len(unexpected)
    nearest = min(missed, key=lambda name: missed[name])
    hubs = ", ".join(f"{hub}:NAME" for hub in PACKAGES)
    raise CheckpointError(
        f"{file} is of none of our networks by its names: nearest is {nearest}, with "
        f"{missed[nearest]} tensors that are missing, unexpected or of another shape. "
        f"{did_you_mean('', BACKBONES)} Name another library's with --arch ({hubs}), or export the "
        "network to ONNX and import that."
    )


def check_pickles(path: Path, trust: bool) -> None:
    """Refuse to open a pickle with a torch whose reader is known to be unsafe.

    Raises:
        CheckpointError: so it is, and the file is not trusted.
    """
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if path.suffix != ".safetensors" and version < SAFE_PICKLES and not trust:
        raise CheckpointError(
            f"{path.name} is a pickle, and torch {torch.__version__} opens none safely: a file "
            "made for it could run code. Install torch 2.10 or later, save the weights as "
            ".safetensors, or add --trust if you know who made it."
        )


@lru_cache
def _facts(backbone: str) -> tuple[Mapping[str, Tensor], list[str]]:
    """The network's state, and the names of its last layer; without memory for it, which another
    library's may not allow.
    """
    with torch.random.fork_rng(devices=[]):
        with torch.device("cpu" if is_hub(backbone) else "meta"):
            network = build_network(backbone, 2, USUAL_SIZE)
    return network.state_dict(), head_of(network)


def _outputs_of(head: list[str], state: Mapping[str, Tensor], file: str) -> int:
    name = next((name for name in head if name.endswith("weight")), "")
    if name not in state:
        raise CheckpointError(
            f"{file} has no last layer ({name.removeprefix('model.')}), which an import keeps as "
            "it is. To train one on it: robustmri train COHORT --weights FILE --out RUN."
        )
    return state[name].shape[0]


def _planes_of(backbone: str, state: Mapping[str, Tensor], file: str) -> Literal[1, 3]:
    stem = STEMS.get(backbone, ("conv1.weight",))[0]
    planes = state[stem].shape[1] if stem in state and state[stem].dim() == 4 else 0
    if planes in (1, 3):
        return 1 if planes == 1 else 3
    raise CheckpointError(
        f"{file}: its first convolution ({stem}) takes {planes} planes. Expected 1 or 3."
    )


def _size_of(state: Mapping[str, Tensor]) -> int:
    """Of a ViT, by its position embeddings, one of which may be the class token's."""
    if POSITIONS not in state:
        return 0
    patches = state[POSITIONS].shape[1]
    side: int = max(n for n in range(patches + 1) if n * n <= patches)
    return side * PATCH_SIZE
