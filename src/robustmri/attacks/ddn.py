"""DDN: the nearest fooling image in l2, by steps whose direction and length are found apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robustmri.attacks.bisection import check_halvings, find_nearest
from robustmri.attacks.engine import LossName
from robustmri.attacks.fmn import cosine
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor
from robustmri.attacks.step_rules import Rule, Seen, State, feasible
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import L2, per_image
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class DDN(CheckedAttack):
    """Nearest image, in l2, that fools: the change is turned by gradient steps and kept at its
    image's own length.

    The length shrinks by gamma wherever a point fools, and grows by gamma wherever one does not.
    The radius of the threat is not used: the distances are the result. An image for which no
    fooling point is found comes back unchanged. Beyond the paper, gradients that push a pixel
    through its bounds are left out.

    Args:
        steps: number of steps.
        initial_length: first length of the change, in image units.
        gamma: relative change of the length from step to step.
        step_size: l2 length of the first step, in image units; the last one is a hundredth of it.
        loss: "cross_entropy" as in the paper (its log-odds, which have the same direction), or
            "margin", which does not look at several classes at once where a network is not sure.
        halvings: forwards at the end, which take each point back to the boundary; see `shorten`. 0:
            none, as the paper.

    Reference: Rony et al. 2019, Algorithm 1; without its rounding to grey levels.
    """

    facts = Facts(
        "ddn",
        "DDN",
        "Rony et al. 2019, Algorithm 1",
        doi="10.48550/arXiv.1811.09600",
        norms=("l2",),
        minimal=True,
    )

    steps: int = 100
    initial_length: float = 1.0
    gamma: float = 0.05
    step_size: float = 1.0
    loss: LossName = "cross_entropy"
    halvings: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            self.steps < 1
            or self.initial_length <= 0
            or self.step_size <= 0
            or not 0 < self.gamma < 1
        ):
            raise ThreatModelError(
                "steps must be at least 1, initial_length and step_size positive and gamma "
                f"between 0 and 1, got {self.steps}, {self.initial_length}, {self.step_size} and "
                f"{self.gamma}."
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
            loss=self.loss,
            halvings=self.halvings,
        )

    def _rule(self) -> Rule:
        def init(images: Images) -> State:
            return {
                "length": torch.full(
                    (len(images),), self.initial_length, dtype=images.dtype, device=images.device
                )
            }

        def update(seen: Seen, state: State) -> tuple[Images, State]:
            length = state["length"] * torch.where(seen.fooled, 1 - self.gamma, 1 + self.gamma)
            step = cosine(self.step_size, self.step_size / 100, seen.step, self.steps)
            direction = L2.steepest(feasible(seen.gradient, seen.points, seen.threat))
            turned = L2.steepest(seen.points - seen.images + step * direction)
            return seen.images + per_image(length, turned) * turned, {"length": length}

        return Rule(init, update)
