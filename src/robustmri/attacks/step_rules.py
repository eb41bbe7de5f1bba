"""Step rules: from what was seen at a point to the next point, as pure pairs of `init` and
`update`.

A state is a dict of tensors with one row per image, so that the engine can drop the rows of images
that are done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from robustmri.core.arrays import Images, PerImage
from robustmri.threat.norms import broadcast_eps, per_image
from robustmri.threat.threat_model import ThreatModel

State = dict[str, Tensor]


class Seen(NamedTuple):
    """What the engine saw at the points of one step; one row per image that is still in the batch.

    Attributes:
        step: number of steps taken before.
        points: where it looked.
        images: the originals.
        values: the objective there.
        fooled: whether the attacker has won there.
        gradient: of the objective, zero where the mask forbids a change; zero everywhere for
            attacks by queries.
        threat: the set, for these images.
    """

    step: int
    points: Images
    images: Images
    values: PerImage
    fooled: Tensor
    gradient: Images
    threat: ThreatModel


class Rule(NamedTuple):
    """`init(start)` gives a state; `update(seen, state)` the next point, which the engine projects,
    and next state.
    """

    init: Callable[[Images], State]
    update: Callable[[Seen, State], tuple[Images, State]]


def steepest_step(step_size: float | Tensor, gradient: Images, threat: ThreatModel) -> Images:
    """A step of `step_size` times eps in the norm's steepest direction; one step size, or one per
    image.
    """
    return broadcast_eps(step_size * threat.eps, gradient) * threat.measure.steepest(gradient)


def feasible(gradient: Images, points: Images, threat: ThreatModel) -> Images:
    """`gradient`, zero at pixels that it would only push through the bounds: an MRI's background is
    exactly 0.

    >>> feasible(torch.tensor([[[[-1.0, 1.0]]]]), torch.zeros(1, 1, 1, 2), ThreatModel())
    tensor([[[[0., 1.]]]])
    """
    low, high = threat.bounds
    stuck = ((points <= low) & (gradient < 0)) | ((points >= high) & (gradient > 0))
    return gradient.masked_fill(stuck, 0.0)


def uniform_change(step_size: float, threat: ThreatModel, like: Images) -> Tensor:
    """What each pixel gets of a change of `step_size` times eps that is the same in all pixels that
    may change.
    """
    whole = threat.measure.size(threat.allow(torch.ones_like(like)))
    return per_image(
        torch.as_tensor(step_size * threat.eps).to(whole) / whole.clamp_min(1e-12), like
    )


def steepest(step_size: float) -> Rule:
    """Steps of `step_size` times eps in the norm's steepest direction. Reference: Madry et al.
    2018, Sec. 2.1.
    """

    def update(seen: Seen, state: State) -> tuple[Images, State]:
        return seen.points + _step_within(step_size, seen.gradient, seen), state

    return Rule(lambda images: {}, update)


def _step_within(step_size: float, gradient: Images, seen: Seen) -> Images:
    """`steepest_step`; in l1, where all of it goes to the steepest pixel, or is shared by equals,
    these must not be stuck, and where they have too little room, the steepest go to their bounds
    and the last as far as is left.
    """
    threat = seen.threat
    if not threat.measure.sparse:
        return steepest_step(step_size, gradient, threat)
    low, high = threat.bounds
    room = torch.where(gradient > 0, high - seen.points, seen.points - low) * (gradient != 0)
    short = steepest_step(step_size, feasible(gradient, seen.points, threat), threat)
    fits = (short.abs() <= room).flatten(1).all(1)
    order = gradient.abs().flatten(1).argsort(dim=1, descending=True, stable=True)
    rooms = room.clamp_min(0.0).flatten(1).gather(1, order)
    whole = torch.as_tensor(step_size * threat.eps).to(rooms).expand(len(rooms))
    gone = torch.minimum(rooms, (whole[:, None] - rooms.cumsum(1) + rooms).clamp_min(0.0))
    filled = torch.zeros_like(gone).scatter(1, order, gone).reshape(gradient.shape)
    return torch.where(per_image(fits, gradient), short, filled * gradient.sign())


def momentum(step_size: float, decay: float = 1.0) -> Rule:
    """Steepest steps along a running sum of l1-normalised gradients. Reference: Dong et al. 2018,
    Eq. 6.
    """

    def update(seen: Seen, state: State) -> tuple[Images, State]:
        gradient = seen.gradient
        size = per_image(gradient.flatten(1).abs().sum(1), gradient).clamp_min(
            torch.finfo(gradient.dtype).tiny
        )
        total = decay * state["total"] + gradient / size
        return seen.points + _step_within(step_size, total, seen), {"total": total}

    return Rule(lambda images: {"total": torch.zeros_like(images)}, update)


def adam(learning_rate: float) -> Rule:
    """Adam's steps, uphill. `learning_rate` is in image units. Reference: Kingma & Ba 2015,
    Algorithm 1.
    """
    beta1, beta2 = 0.9, 0.999

    def init(images: Images) -> State:
        return {"mean": torch.zeros_like(images), "square": torch.zeros_like(images)}

    def update(seen: Seen, state: State) -> tuple[Images, State]:
        mean = beta1 * state["mean"] + (1 - beta1) * seen.gradient
        square = beta2 * state["square"] + (1 - beta2) * seen.gradient**2
        unbiased = mean / (1 - beta1 ** (seen.step + 1))
        deviation = (square / (1 - beta2 ** (seen.step + 1))).sqrt() + 1e-8
        return seen.points + learning_rate * unbiased / deviation, {"mean": mean, "square": square}

    return Rule(init, update)
