"""Auto-PGD: steps that find their own length, away from the label or towards one class after
another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustmri.attacks.engine import (
    Found,
    LossName,
    checked,
    climb,
    draw_seeds,
    exhausted,
    frozen,
    keep_worse,
    loss_against,
    loss_towards,
    random_points,
)
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor, described
from robustmri.attacks.step_rules import Rule, Seen, State, feasible, steepest_step
from robustmri.core.arrays import Images, Labels, PerImage
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import broadcast_eps, count_changed, per_image
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class APGD(CheckedAttack):
    """PGD without a step size to choose: it halves its step, and returns to the best point, where
    it makes no progress.

    In l1 its steps are sparse, and the number of pixels adapts instead.

    Args:
        steps: number of steps.
        restarts: random starts; the worst point of each image counts.
        loss: "margin", "cross_entropy", or "dlr", the margin over the spread of the logits, for 3
            classes or more.
        targets: 0: away from the label. Otherwise towards so many of the other classes, one after
            another, the likeliest first; an image that becomes any wrong class counts. A target of
            the threat is tried alone.
        probe: steps towards each of the other classes, where there are more than `targets`, that
            find out which of them are worth all steps: those that come nearest. 0: take the
            likeliest.
        stop_when_fooled: leave each image at its first success; the accuracy is the same, the cost
            is not.

    Reference: Croce & Hein 2020, Sec. 3; for l1 Croce & Hein 2021, Sec. 3.
    """

    facts = Facts(
        "apgd",
        "APGD",
        "Croce & Hein 2020, Sec. 3; l1: 2021",
        doi="10.48550/arXiv.2003.01690",
        iterative=True,
    )

    steps: int = 100
    restarts: int = 1
    loss: LossName = "margin"
    targets: int = 0
    probe: int = 0
    stop_when_fooled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.restarts < 1 or self.targets < 0 or self.probe < 0:
            raise ThreatModelError(
                "steps and restarts must be at least 1, targets and probe at least 0, got "
                f"{self.steps}, {self.restarts}, {self.targets} and {self.probe}."
            )

    def search(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """See `Attack`."""
        ranked = self._ranked(classifier, images, labels, threat)
        probed = len(ranked) if self.probe and len(ranked) > self.targets else 0
        attempts = self.restarts * (min(self.targets, len(ranked)) or 1)
        seeds = iter(zip(*draw_seeds(generator, len(images), each=attempts + probed), strict=True))
        low = torch.full((len(images),), -torch.inf, dtype=images.dtype, device=images.device)
        found = Found(images.clone(), torch.zeros_like(low, dtype=torch.bool), low)
        begun = False

        def attempt(aim: Tensor | None, steps: int) -> tuple[Tensor, Found] | None:
            """Rows that were tried, and what came of them; none where nothing is left to do."""
            nonlocal begun
            own = next(seeds)
            rows = torch.nonzero(~found.fooled | (not self.stop_when_fooled))[:, 0]
            if not len(rows) or (begun and exhausted(classifier)):
                return None
            begun = True
            here, x, y = threat.at(rows), images[rows], labels[rows]
            again = climb(
                classifier,
                x,
                y,
                here,
                start=random_points(x, here, [own[row] for row in rows.tolist()]),
                steps=steps,
                rule=(adaptive_sparse if threat.measure.sparse else adaptive)(steps),
                objective=loss_against(self.loss, y, here)
                if aim is None
                else loss_towards(self.loss, aim[rows]),
                stop_when_fooled=self.stop_when_fooled,
            )
            keep_worse(found, rows, again)
            return rows, again

        if probed:
            near = torch.full_like(low[:, None].expand(-1, probed), -torch.inf)
            for place, other in enumerate(ranked):
                tried = attempt(other, self.probe)
                if tried:
                    near[tried[0], place] = tried[1].merit
            best = near.sort(dim=1, descending=True, stable=True).indices
            ranked = list(torch.stack(ranked, 1).gather(1, best).unbind(1))
        aims: list[Tensor | None] = [*ranked[: self.targets]] or [None]
        for aim in aims * self.restarts:
            attempt(aim, self.steps)
        return found.images

    def _ranked(
        self, classifier: Predictor, images: Images, labels: Labels, threat: ThreatModel
    ) -> list[Tensor]:
        """The other classes of each image, the likeliest first; none where only the label, or the
        threat, says.
        """
        if not self.targets or threat.target is not None:
            return []
        with frozen(classifier), torch.no_grad():
            logits = checked(classifier, labels, threat)(images)
        ranked = (
            logits.scatter(1, labels[:, None], -torch.inf)
            .sort(dim=1, descending=True, stable=True)
            .indices
        )
        return list(ranked[:, :-1].unbind(1))


@described(
    Facts(
        "apgd-ce",
        "APGD-CE",
        "Croce & Hein 2020, Sec. 3",
        doi="10.48550/arXiv.2003.01690",
        iterative=True,
    )
)
def apgd_ce(**settings: object) -> APGD:
    """APGD on the cross-entropy (its log-odds). Reference: Croce & Hein 2020, Sec. 3."""
    return APGD(**{"loss": "cross_entropy", **settings})  # type: ignore[arg-type]


@described(
    Facts(
        "apgd-dlr",
        "APGD-DLR",
        "Croce & Hein 2020, Sec. 4",
        doi="10.48550/arXiv.2003.01690",
        iterative=True,
    )
)
def apgd_dlr(**settings: object) -> APGD:
    """APGD on the logit ratio; needs three classes. Reference: Croce & Hein 2020, Sec. 4."""
    return APGD(**{"loss": "dlr", **settings})  # type: ignore[arg-type]


@described(
    Facts(
        "apgd-t",
        "APGD-T",
        "Croce & Hein 2020, Sec. 5",
        doi="10.48550/arXiv.2003.01690",
        iterative=True,
    )
)
def apgd_t(**settings: object) -> APGD:
    """APGD towards each of the nine likeliest other classes. Reference: Croce & Hein 2020, Sec.
    5.
    """
    return APGD(**{"targets": 9, **settings})  # type: ignore[arg-type]


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
