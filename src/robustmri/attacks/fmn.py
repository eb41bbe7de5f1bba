"""FMN: the nearest fooling image, by steps inside a ball whose radius follows the boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from robustmri.attacks.bisection import check_halvings, find_nearest
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor
from robustmri.attacks.step_rules import Rule, Seen, State, feasible
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import L2, find_norm
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class FMN(CheckedAttack):
    """Nearest image that fools: gradient steps on the margin, each projected into a ball of its
    image's own radius.

    As long as nothing fooled, the radius is where a linear classifier's boundary would be. From
    then on it shrinks by gamma wherever a point fools, and grows by gamma wherever one does not.
    Both gamma and the step fall along a cosine. Beyond the paper, gradients that push a pixel
    through its bounds are left out, steps are clipped before they are projected, and the radius
    never stalls before the first success. The radius of the threat is not used: the distances are
    the result. An image for which no fooling point is found comes back unchanged.

    Args:
        steps: number of steps.
        step_size: l2 length of the first step, in image units; the last one is a hundredth of it.
        gamma: first relative change of the radius; the last one is 0.001.
        halvings: forwards at the end, which take each point back to the boundary; see `shorten`. 0:
            none, as the paper.

    Reference: Pintor et al. 2021, Algorithm 1.
    """

    facts = Facts(
        "fmn",
        "FMN",
        "Pintor et al. 2021, Algorithm 1",
        doi="10.48550/arXiv.2102.12827",
        norms=("linf", "l2", "l1"),
        minimal=True,
    )

    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05
    halvings: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.step_size <= 0 or not 0 < self.gamma < 1:
            raise ThreatModelError(
                "steps must be at least 1, step_size positive and gamma between 0 and 1, got "
                f"{self.steps}, {self.step_size} and {self.gamma}."
            )
        check_halvings(self.halvings)

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
        return find_nearest(
            classifier,
            images,
            labels,
            threat,
            steps=self.steps,
            rule=self._rule(),
            loss="margin",
            halvings=self.halvings,
        )

    def _rule(self) -> Rule:
        def init(images: Images) -> State:
            everywhere = torch.full(
                (len(images),), torch.inf, dtype=images.dtype, device=images.device
            )
            return {"radius": everywhere, "nearest": everywhere}

        def update(seen: Seen, state: State) -> tuple[Images, State]:
            measure = seen.threat.measure
            gamma = cosine(self.gamma, 0.001, seen.step, self.steps)
            length = cosine(self.step_size, self.step_size / 100, seen.step, self.steps)
            size = measure.size(seen.points - seen.images)
            nearest = torch.where(
                seen.fooled, torch.minimum(size, state["nearest"]), state["nearest"]
            )
            gradient = feasible(seen.gradient, seen.points, seen.threat)
            slope = (
                find_norm(seen.threat.measure.dual)
                .size(gradient)
                .clamp_min(torch.finfo(size.dtype).tiny)
            )
            # A broken classifier's margin may be NaN; a radius never is.
            linear = torch.nan_to_num(
                size + seen.values.to(size).abs() / slope, nan=torch.inf, posinf=torch.inf
            )
            grown = (1 + gamma) * state["radius"]
            # At least as much as after a fooling point: what the bounds cut off may keep `linear`
            # where it is.
            first = torch.where(torch.isinf(grown), linear, torch.maximum(linear, grown))
            outside = torch.where(torch.isinf(nearest), first, grown)
            inside = torch.minimum((1 - gamma) * state["radius"], nearest)
            radius = torch.where(seen.fooled, inside, outside)
            # Clipped before the projection, which keeps the bounds: the other way round wastes part
            # of the radius.
            stepped = (seen.points + length * L2.steepest(gradient)).clamp(*seen.threat.bounds)
            return replace(seen.threat, eps=radius).project(stepped, seen.images), {
                "radius": radius,
                "nearest": nearest,
            }

        return Rule(init, update)


def cosine(first: float, last: float, step: int, steps: int) -> float:
    """Half a cosine from `first` at step 0 down to `last` at step `steps`.

    >>> [round(cosine(1.0, 0.0, step, steps=4), 2) for step in range(5)]
    [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2
