"""Gradients taken where the weights are a little worse: flat minima hold on other patients, and under other attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from robustmri.training.minimax import Batch, Objective

Kind = Literal["none", "awp", "sam"]


@contextmanager
def perturbed(
    kind: Kind,
    model: nn.Module,
    objective: Objective,
    batch: Batch,
    *,
    size: float,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> Iterator[Batch]:
    """Inside, the weights are moved uphill on the batch's loss; on leaving they are what they were, bit for bit.

        with perturbed("awp", model, objective, batch, size=0.005) as found:
            objective(model, found).backward()
        optimiser.step()

    The attacked images are found once, before the weights move, and given back with the batch, so that the loss inside
    looks at the same ones. One forward and backward is added for each step; batch-norm's running statistics do not see
    it, and gradients that were there stay.

    Args:
        kind: "awp": each weight with two axes or more by `size` times its own norm, along its gradient (Wu, Xia & Wang
            2020). "sam": all weights together by `size`, along the whole gradient (Foret et al. 2021, Eq. 2). "none":
            nothing moves.
        model: network, wrapped or not.
        objective: whose loss is climbed.
        batch: what it is climbed on.
        size: how far; 0: nothing moves.
        backward: how a loss sends its gradients back, where that is not its own method.
    """
    if kind == "none" or not size:
        yield batch
        return
    found = objective.attack(model, batch)
    # Deaf: `free` must take its perturbation a step further once for each step of the weights, not twice.
    deaf = replace(objective, listen=None)
    with moved(kind, model, lambda: backward(deaf(model, found)), size=size):
        yield found


@contextmanager
def moved(kind: Kind, model: nn.Module, climb: Callable[[], object], *, size: float) -> Iterator[None]:
    """The same for a loss in several parts: `climb` leaves the gradients of all of them in the weights."""
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


def _uphill(kind: Kind, model: nn.Module, climb: Callable[[], object], size: float) -> dict[nn.Parameter, Tensor]:
    """How far each weight moves along the gradient that `climb` leaves; gradients and buffers stay as they were."""
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
        return {weight: size * weight.detach().norm() * _unit(slope, slope.norm()) for weight, slope in layers.items()}
    length = torch.stack([slope.norm() for slope in slopes.values()]).norm()
    return {weight: size * _unit(slope, length) for weight, slope in slopes.items()}


def _unit(slope: Tensor, length: Tensor) -> Tensor:
    return slope / length.clamp_min(torch.finfo(slope.dtype).tiny)
