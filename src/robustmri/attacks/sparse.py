"""PGD in l0: the fewest pixels that fool, each taken to one end of the grey scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robustmri.attacks.bisection import check_halvings, find_nearest
from robustmri.attacks.fmn import cosine
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor
from robustmri.attacks.step_rules import Rule, Seen, State
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import L0, L1, per_image
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class SparsePGD(CheckedAttack):
    """Fewest changed pixels that fool: each step chooses all of them anew, by their first-order
    gain.

    A pixel's gain is its gradient times its distance to the bound that the gradient points to. This
    is PGD projected onto the l0 ball with steps so long that every chosen pixel meets a bound: how
    far a pixel goes costs nothing in l0. The number of pixels grows until a choice fools, and falls
    as long as one does; it never comes back to a number that fooled. The radius of the threat is
    not used: the numbers are the result. An image for which no fooling point is found comes back
    unchanged.

    Args:
        steps: number of steps.
        growth: first relative change of the number of pixels, at least one pixel; falls to 0 along
            half a cosine.
        decay: share of the earlier gradients in their running mean, which steadies the choice.
        halvings: forwards at the end, which undo the smallest changes as far as it still fools; see
            `shorten`.

    Reference: Croce & Hein 2019, Sec. 3.1, for the projection; Pintor et al. 2021, Sec. 2, for the
    adaptive number.
    """

    facts = Facts(
        "pgd-l0",
        "PGD-l0",
        "Croce & Hein 2019, Sec. 3.1",
        doi="10.48550/arXiv.1909.05040",
        norms=("l0",),
        minimal=True,
    )

    steps: int = 100
    growth: float = 0.3
    decay: float = 0.5
    halvings: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.growth < 0 or not 0 <= self.decay < 1:
            raise ThreatModelError(
                "steps must be at least 1, growth not negative and decay in [0, 1), got "
                f"{self.steps}, {self.growth} and {self.decay}."
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
            one = torch.ones(len(images), dtype=images.dtype, device=images.device)
            return {"number": 0 * one, "fewest": torch.inf * one, "mean": torch.zeros_like(images)}

        def update(seen: Seen, state: State) -> tuple[Images, State]:
            number = L0.size(seen.points - seen.images)
            fewest = torch.where(
                seen.fooled, torch.minimum(number, state["fewest"]), state["fewest"]
            )
            change = (
                (cosine(self.growth, 0.0, seen.step, self.steps) * state["number"])
                .floor()
                .clamp_min(1)
            )
            wanted = torch.where(seen.fooled, number - change, state["number"] + change)
            wanted = torch.minimum(wanted, fewest - 1).clamp_min(1)
            tiny = torch.finfo(number.dtype).tiny
            unit = seen.gradient / per_image(L1.size(seen.gradient), seen.gradient).clamp_min(tiny)
            mean = self.decay * state["mean"] + (1 - self.decay) * unit
            low, high = seen.threat.bounds
            room = torch.where(mean > 0, high - seen.images, low - seen.images)
            chosen = L0.project(mean * room, wanted) > 0
            return seen.images + room * chosen, {"number": wanted, "fewest": fewest, "mean": mean}

        return Rule(init, update)
