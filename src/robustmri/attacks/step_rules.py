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
from robustmri.threat.norms import broadcast_eps, count_changed, per_image
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
        return seen.points + steepest_step(
            step_size, _useful(seen.gradient, seen), seen.threat
        ), state

    return Rule(lambda images: {}, update)


def _useful(gradient: Images, seen: Seen) -> Images:
    """`gradient`, in l1 `feasible`: where all of a step goes to one pixel, that pixel must not be
    stuck.
    """
    sparse = seen.threat.measure.sparse
    return feasible(gradient, seen.points, seen.threat) if sparse else gradient


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
        return seen.points + steepest_step(step_size, _useful(total, seen), seen.threat), {
            "total": total
        }

    return Rule(lambda images: {"total": torch.zeros_like(images)}, update)


def adam(learning_rate: float, beta1: float = 0.9, beta2: float = 0.999) -> Rule:
    """Adam's steps, uphill. `learning_rate` is in image units. Reference: Kingma & Ba 2015,
    Algorithm 1.
    """

    def init(images: Images) -> State:
        return {"mean": torch.zeros_like(images), "square": torch.zeros_like(images)}

    def update(seen: Seen, state: State) -> tuple[Images, State]:
        mean = beta1 * state["mean"] + (1 - beta1) * seen.gradient
        square = beta2 * state["square"] + (1 - beta2) * seen.gradient**2
        unbiased = mean / (1 - beta1 ** (seen.step + 1))
        deviation = (square / (1 - beta2 ** (seen.step + 1))).sqrt() + 1e-8
        return seen.points + learning_rate * unbiased / deviation, {"mean": mean, "square": square}

    return Rule(init, update)


def adaptive(steps: int, least: float = 0.75, inertia: float = 0.25) -> Rule:
    """APGD's steps in linf and l2, with momentum: long ones; where they do not pay, half as long
    from the best point.

    That is decided for each image at `checkpoints`: where fewer than `least` of the steps since the
    last one raised the objective, or where the best value has not changed since then and the step
    was not halved then either. `inertia` is the share of the step before in the next one.
    Reference: Croce & Hein 2020, Algorithm 1.
    """
    windows = checkpoints(steps)

    def update(seen: Seen, state: State) -> tuple[Images, State]:
        if not state:
            state = _begin(seen, step_size=2.0)
            state |= {
                "rises": 0 * state["value"],
                "checked": state["value"],
                "halved": torch.ones_like(seen.fooled),
            }
        rises = state["rises"] + (seen.values.to(state["value"]) > state["value"])
        state = _tracked(seen, state)
        points, gradient, value = seen.points, seen.gradient, state["value"]
        if seen.step in windows:
            idle = (state["best_value"] == state["checked"]) & ~state["halved"]
            halved = (rises < least * windows[seen.step]) | idle
            points, gradient, value = _back(halved, seen, state)
            size = torch.where(halved, state["step_size"] / 2, state["step_size"])
            state |= {"step_size": size, "checked": state["best_value"], "halved": halved}
            rises = torch.zeros_like(rises)
        stepped = seen.threat.project(
            points + steepest_step(state["step_size"], gradient, seen.threat), seen.images
        )
        if seen.step:
            stepped = (
                points + (1 - inertia) * (stepped - points) + inertia * (points - state["previous"])
            )
        return stepped, state | {"rises": rises, "value": value, "previous": points}

    return Rule(lambda images: {}, update)


def adaptive_sparse(steps: int) -> Rule:
    """APGD's steps in l1, along the signs of the largest entries of the gradient.

    There are as many of them as two thirds of the pixels that the best point changed. Where that
    number falls, the step is as long as eps again, from the best point; elsewhere it shrinks, down
    to a tenth. Pixels that stand at a bound and would only go through it are passed over.
    Reference: Croce & Hein 2021, Algorithm 1.
    """
    every = max(int(0.04 * steps), 1)

    def update(seen: Seen, state: State) -> tuple[Images, State]:
        if not state:
            state = _begin(seen, step_size=1.0)
            free = count_changed(seen.threat.allow(torch.ones_like(seen.points)))
            state |= {"changed": free, "pixels": 0.2 * free}
        state = _tracked(seen, state)
        points, gradient = seen.points, seen.gradient
        if seen.step and seen.step % every == 0:
            changed = count_changed(state["best"] - seen.images)
            fewer = changed < 0.95 * state["changed"]
            size = torch.where(fewer, 1.0, (state["step_size"] / 1.5).clamp_min(0.1))
            points, gradient, _ = _back(fewer, seen, state)
            state |= {"step_size": size, "changed": changed, "pixels": changed / 1.5}
        direction = _signs_of_largest(feasible(gradient, points, seen.threat), state["pixels"])
        return points + broadcast_eps(
            state["step_size"] * seen.threat.eps, points
        ) * direction, state

    return Rule(lambda images: {}, update)


def checkpoints(steps: int) -> dict[int, int]:
    """Numbers of steps after which APGD looks back, and over how many. Reference: Croce & Hein
    2020, Sec. 3.

    >>> checkpoints(100)
    {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    """
    windows: dict[int, int] = {}
    last, percent, growth = 0, 22, 22
    while percent <= 100:
        place = -(-percent * steps // 100)  # Rounded up.
        if place > last:
            windows[place] = place - last
        last, growth = place, max(growth - 3, 6)
        percent += growth
    return windows


def _begin(seen: Seen, step_size: float) -> State:
    values = seen.values.to(seen.points)
    return {
        "step_size": torch.full_like(values, step_size),
        "value": values,
        "best": seen.points,
        "best_gradient": seen.gradient,
        "best_value": torch.full_like(values, -torch.inf),
    }


def _tracked(seen: Seen, state: State) -> State:
    """The state with the best point so far, its gradient and its value, and the value here."""
    values = seen.values.to(seen.points)
    better = torch.isfinite(values) & (values > state["best_value"])
    here = per_image(better, seen.points)
    return state | {
        "value": values,
        "best": torch.where(here, seen.points, state["best"]),
        "best_gradient": torch.where(here, seen.gradient, state["best_gradient"]),
        "best_value": torch.where(better, values, state["best_value"]),
    }


def _back(which: Tensor, seen: Seen, state: State) -> tuple[Images, Images, PerImage]:
    """Points, gradients and values, those of `which` at the best point: it was seen, so going back
    costs nothing.
    """
    there = per_image(which, seen.points)
    return (
        torch.where(there, state["best"], seen.points),
        torch.where(there, state["best_gradient"], seen.gradient),
        torch.where(which, state["best_value"], state["value"]),
    )


def _signs_of_largest(gradient: Images, pixels: PerImage) -> Images:
    """Signs of so many of the largest entries of each gradient (and of their ties), scaled to l1
    size 1.
    """
    ranked = gradient.flatten(1).abs().sort(1, descending=True).values
    place = pixels.ceil().long().clamp(1, ranked.shape[1]) - 1
    signs = gradient.sign() * (
        gradient.abs() >= per_image(ranked.gather(1, place[:, None]), gradient)
    )
    return signs / per_image(count_changed(signs).clamp_min(1), gradient)
