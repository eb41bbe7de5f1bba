"""Step rules: from a gradient to the next step, as pure pairs of `init` and `update`.

A state is a dict of tensors with one row per image, so that the engine can drop the rows of images that are done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from robustmri.arrays import Images
from robustmri.threat.norms import per_image, spread
from robustmri.threat.threat_model import ThreatModel

State = dict[str, Tensor]


class Rule(NamedTuple):
    """`init(images)` gives a state; `update(gradient, state, step, threat)` the step to add and the next state."""

    init: Callable[[Images], State]
    update: Callable[[Images, State, int, ThreatModel], tuple[Images, State]]


def steepest(step_size: float) -> Rule:
    """Steps of `step_size` times eps in the norm's steepest direction. Reference: Madry et al. 2018, Sec. 2.1."""

    def update(gradient: Images, state: State, step: int, threat: ThreatModel) -> tuple[Images, State]:
        return spread(step_size * threat.eps, gradient) * threat.measure.steepest(gradient), state

    return Rule(lambda images: {}, update)


def momentum(step_size: float, decay: float = 1.0) -> Rule:
    """Steepest steps along a running sum of l1-normalised gradients. Reference: Dong et al. 2018, Eq. 6."""

    def update(gradient: Images, state: State, step: int, threat: ThreatModel) -> tuple[Images, State]:
        size = per_image(gradient.flatten(1).abs().sum(1), gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
        total = decay * state["total"] + gradient / size
        return spread(step_size * threat.eps, gradient) * threat.measure.steepest(total), {"total": total}

    return Rule(lambda images: {"total": torch.zeros_like(images)}, update)


def adam(learning_rate: float, beta1: float = 0.9, beta2: float = 0.999) -> Rule:
    """Adam's steps, uphill. `learning_rate` is in image units. Reference: Kingma & Ba 2015, Algorithm 1."""

    def init(images: Images) -> State:
        return {"mean": torch.zeros_like(images), "square": torch.zeros_like(images)}

    def update(gradient: Images, state: State, step: int, threat: ThreatModel) -> tuple[Images, State]:
        mean = beta1 * state["mean"] + (1 - beta1) * gradient
        square = beta2 * state["square"] + (1 - beta2) * gradient**2
        unbiased = mean / (1 - beta1 ** (step + 1))
        spread = (square / (1 - beta2 ** (step + 1))).sqrt() + 1e-8
        return learning_rate * unbiased / spread, {"mean": mean, "square": square}

    return Rule(init, update)
