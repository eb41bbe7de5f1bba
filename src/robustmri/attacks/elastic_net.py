"""EAD: Carlini and Wagner's search with shrinkage, for fooling images that change few pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustmri.attacks.bisection import check_halvings, shorten
from robustmri.attacks.carlini_wagner import search_weight
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor
from robustmri.attacks.step_rules import Rule, Seen, State
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class ElasticNet(CheckedAttack):
    """Nearest image, in l1, that fools: |delta|_2^2 + c * max(-margin, -confidence) descended by
    shrunk steps.

    After each step every change loses `shrinkage` of its size, which keeps most pixels exactly as
    they were; the next gradient is taken a little ahead, along the way of the last step (FISTA). c
    is searched for as in `CarliniWagnerL2`. The radius of the threat is not used: the distances are
    the result. An image for which no fooling point is found comes back unchanged.

    Args:
        steps: steps for each value of c.
        searches: values of c tried for each image.
        initial_c: first value; logits per squared image unit.
        learning_rate: first factor of the gradient; it falls with the square root of the steps that
            are left.
        shrinkage: what every change loses at each step, in image units (the paper's beta).
        confidence: margin in logits by which to fool.
        halvings: forwards at the end, which take each point back to the boundary; see `shorten`. 0:
            none, as the paper.

    Reference: Chen et al. 2018, Algorithm 1 and Eq. 4 to 8; the l1 decision rule.
    """

    facts = Facts(
        "ead",
        "EAD",
        "Chen et al. 2018, Algorithm 1",
        doi="10.48550/arXiv.1709.04114",
        norms=("l1",),
        minimal=True,
    )

    steps: int = 100
    searches: int = 5
    initial_c: float = 0.1
    learning_rate: float = 0.01
    shrinkage: float = 0.01
    confidence: float = 0.0
    halvings: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            self.steps < 1
            or self.searches < 1
            or min(self.initial_c, self.learning_rate, self.shrinkage) <= 0
        ):
            raise ThreatModelError(
                "steps and searches must be at least 1, initial_c, learning_rate and shrinkage "
                f"positive, got {self.steps}, {self.searches}, {self.initial_c}, "
                f"{self.learning_rate} and {self.shrinkage}."
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
        found = search_weight(
            classifier,
            images,
            labels,
            threat,
            rule=self._rule(),
            steps=self.steps,
            searches=self.searches,
            initial_c=self.initial_c,
            confidence=self.confidence,
        )
        return shorten(
            classifier,
            images,
            labels,
            threat,
            found,
            halvings=self.halvings,
            confidence=self.confidence,
        )

    def _rule(self) -> Rule:
        def update(seen: Seen, state: State) -> tuple[Images, State]:
            rate = self.learning_rate * math.sqrt(1 - seen.step / self.steps)
            delta = seen.points - seen.images + rate * seen.gradient
            shrunk = seen.images + delta.sign() * (delta.abs() - self.shrinkage).clamp_min(0.0)
            shrunk = shrunk.clamp(*seen.threat.bounds)
            ahead = seen.step / (seen.step + 3)
            return shrunk + ahead * (shrunk - state["shrunk"]), {"shrunk": shrunk}

        return Rule(lambda images: {"shrunk": images}, update)
