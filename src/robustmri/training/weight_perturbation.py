"""Gradients taken where the weights are a little worse: flat minima hold on other patients, and
under other attacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["none", "awp", "sam"]


@contextmanager
def moved(
    kind: Kind, model: nn.Module, climb: Callable[[], object], *, size: float
) -> Iterator[None]:
    """Inside, the weights are moved uphill on a step's loss; on leaving they are what they were,
    bit for bit.

        found = objective.attack(model, batch)
        with moved("awp", model, lambda: objective(model, found).backward(), size=0.005):
            objective(model, found).backward()
        optimiser.step()

    Find the attacked images first, as above: the loss inside is then on the same ones. `climb`
    costs one forward and backward more for each step; batch-norm's running statistics do not see
    it, and gradients that were there stay.

    Args:
        kind: "awp": each weight with two axes or more by `size` times its own norm, along its
            gradient (Wu, Xia & Wang 2020). "sam": all weights together by `size`, along the whole
            gradient (Foret et al. 2021, Eq. 2). "none": nothing moves.
        model: network, wrapped or not.
        climb: leaves the gradients of the step's whole loss in the weights, in one part or several.
        size: how far; 0: nothing moves.
    """
    if kind == "none" or not size:
        yield
        return
    moves = _uphill(kind, model, climb, size)
    before = {weight: weight.detach().clone() for weight in moves}
    try:
        with torch.no_grad():
            for weight, move in moves.items():
                weight.add_(move)
        yield
    finally:
        with torch.no_grad():
            for weight, value in before.items():
                weight.copy_(value)


def _uphill(
    kind: Kind, model: nn.Module, climb: Callable[[], object], size: float
) -> dict[nn.Parameter, Tensor]:
    """How far each weight moves along the gradient that `climb` leaves; gradients and buffers stay
    as they were.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = [weight.grad for weight in weights]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    for weight in weights:
        weight.grad = None
    try:
        climb()
        slopes = {weight: weight.grad for weight in weights if weight.grad is not None}
    finally:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
    if kind == "awp":
        layers = {weight: slope for weight, slope in slopes.items() if weight.dim() > 1}
        return {
            weight: size * weight.detach().norm() * _unit(slope, slope.norm())
            for weight, slope in layers.items()
        }
    length = torch.stack([slope.norm() for slope in slopes.values()]).norm()
    return {weight: size * _unit(slope, length) for weight, slope in slopes.items()}


def _unit(slope: Tensor, length: Tensor) -> Tensor:
    return slope / length.clamp_min(torch.finfo(slope.dtype).tiny)
