"""Small files in the layouts in which weights are published, generated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def value_of(name: str) -> float:
    """A constant of its own for each name, so that a tensor that lands in the wrong place is
    seen.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big") / 65536 - 0.5


def fill(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of the shapes that take no room: each one is a single number, expanded."""
    return {
        name: torch.full((1,) * len(shape), value_of(name)).expand(shape)
        for name, shape in shapes.items()
    }


def batch_norm(name: str, channels: int, counts: bool = True) -> Shapes:
    shapes: Shapes = {
        f"{name}.{kind}": (channels,) for kind in ("weight", "bias", "running_mean", "running_var")
    }
    return shapes | ({f"{name}.num_batches_tracked": ()} if counts else {})


def torchvision_resnet(name: str, classes: int = 1000, planes: int = 3) -> Shapes:
    """Names and shapes of torchvision's resnet18 and resnet50."""
    shapes: Shapes = {"conv1.weight": (64, planes, 7, 7)} | batch_norm("bn1", 64)
    bottleneck, depths = {"resnet18": (False, (2, 2, 2, 2)), "resnet50": (True, (3, 4, 6, 3))}[name]
    expansion, before = (4 if bottleneck else 1), 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for index in range(depth):
            block, after = f"layer{stage + 1}.{index}", width * expansion
            kernels = [(width, before, 1), (width, width, 3), (after, width, 1)]
            for number, (out, into, side) in enumerate(
                kernels if bottleneck else [(width, before, 3), (width, width, 3)], 1
            ):
                shapes |= {f"{block}.conv{number}.weight": (out, into, side, side)}
                shapes |= batch_norm(f"{block}.bn{number}", out)
            if index == 0 and (stage > 0 or before != after):
                shapes |= {f"{block}.downsample.0.weight": (after, before, 1, 1)}
                shapes |= batch_norm(f"{block}.downsample.1", after)
            before = after
    return shapes | {"fc.weight": (classes, before), "fc.bias": (classes,)}


def torchvision_densenet(classes: int = 1000, dot: str = "") -> Shapes:
    """Names and shapes of torchvision's densenet121; its published file says norm.1 for norm1 and
    has no counts.
    """
    norm = partial(batch_norm, counts=not dot)
    shapes: Shapes = {"features.conv0.weight": (64, 3, 7, 7)} | norm("features.norm0", 64)
    channels = 64
    for block, layers in enumerate((6, 12, 24, 16), 1):
        for number in range(1, layers + 1):
            layer = f"features.denseblock{block}.denselayer{number}"
            shapes |= norm(f"{layer}.norm{dot}1", channels) | norm(f"{layer}.norm{dot}2", 128)
            shapes |= {f"{layer}.conv{dot}1.weight": (128, channels, 1, 1)}
            shapes |= {f"{layer}.conv{dot}2.weight": (32, 128, 3, 3)}
            channels += 32
        if block < 4:
            shapes |= norm(f"features.transition{block}.norm", channels)
            shapes |= {f"features.transition{block}.conv.weight": (channels // 2, channels, 1, 1)}
            channels //= 2
    shapes |= norm("features.norm5", channels)
    return shapes | {"classifier.weight": (classes, channels), "classifier.bias": (classes,)}


RESNET_CHILDREN = {
    "conv1": "0",
    "bn1": "1",
    "layer1": "4",
    "layer2": "5",
    "layer3": "6",
    "layer4": "7",
}


def as_radimagenet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's children in a row, without the head: what RadImageNet's authors publish for
    PyTorch.
    """
    renamed = {}
    for name, value in state.items():
        child, _, rest = name.partition(".")
        if child in RESNET_CHILDREN:
            renamed[f"backbone.{RESNET_CHILDREN[child]}.{rest}"] = value
        elif child == "features":
            renamed[f"backbone.0.{rest}"] = value
    return renamed


def as_robustness(
    state: Mapping[str, Tensor],
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    prefix: str = "module.",
) -> dict[str, Any]:
    """A checkpoint of MadryLab's robustness library after training: the classifier twice, and an
    optimiser's state.
    """
    constants = {
        "new_mean": torch.tensor(mean).view(3, 1, 1),
        "new_std": torch.tensor(std).view(3, 1, 1),
    }
    model = {f"{prefix}normalizer.{name}": value for name, value in constants.items()}
    model |= {f"{prefix}model.{name}": value for name, value in state.items()}
    model |= {f"{prefix}attacker.normalize.{name}": value for name, value in constants.items()}
    model |= {f"{prefix}attacker.model.{name}": value for name, value in state.items()}
    optimizer = {
        "state": {0: {"momentum_buffer": torch.zeros(3)}},
        "param_groups": [{"lr": 0.1, "params": [0]}],
    }
    return {
        "model": model,
        "optimizer": optimizer,
        "schedule": {"last_epoch": 90, "lr_lambdas": [None]},
        "epoch": 90,
        "amp": None,
        "nat_prec1": torch.tensor(63.86),
    }
