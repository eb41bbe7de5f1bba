"""Carlini & Wagner's attack, in both readings: the nearest fooling image, and the worst one within eps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustmri.arrays import Images, Labels, Logits, PerImage
from robustmri.attacks.engine import Objective, climb, loss_against
from robustmri.attacks.pgd import PGD
from robustmri.attacks.protocol import Predictor
from robustmri.attacks.rules import adam
from robustmri.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class CarliniWagnerL2:
    """Nearest image, in l2, that fools: minimise |delta|^2 + c * max(-margin, -confidence), with a search over c.

    The radius of the threat is not used: the distances are the result. An image for which no fooling point is found
    comes back unchanged. The bounds are kept by projection, the paper's first way (Sec. V-B): its change of variables
    by tanh cannot move pixels that are exactly 0 or 1, which is where the background of an MRI lies.

    Args:
        steps: Adam steps for each value of c.
        searches: values of c tried for each image; c grows tenfold until it fools, then the bracket is halved.
        initial_c: first value; logits per squared image unit.
        learning_rate: Adam's, in image units.
        confidence: margin in logits by which to fool.

    Reference: Carlini & Wagner 2017, Sec. V and VI.
    """

    steps: int = 60
    searches: int = 5
    initial_c: float = 0.1
    learning_rate: float = 0.005
    confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.searches < 1 or self.initial_c <= 0 or self.learning_rate <= 0:
            raise ThreatModelError(
                "steps and searches must be at least 1, initial_c and learning_rate positive, got "
                f"{self.steps}, {self.searches}, {self.initial_c} and {self.learning_rate}."
            )

    def __call__(
        self, classifier: Predictor, images: Images, labels: Labels, threat: ThreatModel, *, generator: torch.Generator
    ) -> Images:
        """See `Attack`."""
        threat.check(images, labels)
        threat = replace(threat, norm="l2", eps=torch.inf)
        images = images.detach()
        best = images.clone()
        low = torch.zeros(len(images), dtype=images.dtype, device=images.device)
        nearest, high = torch.full_like(low, torch.inf), torch.full_like(low, torch.inf)
        c = torch.full_like(low, self.initial_c)
        for _ in range(self.searches):
            found = climb(
                classifier, images, labels, threat, start=images, steps=self.steps, rule=adam(self.learning_rate),
                objective=self._objective(images, labels, threat, c), minimal=True, confidence=self.confidence,
            )  # fmt: skip
            nearer = found.fooled & (-found.merit < nearest)
            best[nearer], nearest[nearer] = found.images[nearer], -found.merit[nearer]
            high = torch.where(found.fooled, torch.minimum(high, c), high)
            low = torch.where(found.fooled, low, torch.maximum(low, c))
            c = torch.where(torch.isinf(high), c * 10, torch.where(low == 0, c / 10, (low + high) / 2))
        return best

    def _objective(self, images: Images, labels: Labels, threat: ThreatModel, c: Tensor) -> Objective:
        towards = loss_against("margin", labels, threat)

        def value(points: Images, logits: Logits, rows: Tensor) -> PerImage:
            distance = (points - images[rows]).flatten(1).square().sum(1)
            return c[rows] * towards(points, logits, rows).clamp(max=self.confidence) - distance

        return value


def cw(**settings: object) -> PGD:
    """The same margin, climbed inside the eps ball: what "CW at eps 0.04" can mean.

    Reference: Madry et al. 2018, Sec. 5.
    """
    return PGD(**{"loss": "margin", **settings})  # type: ignore[arg-type]
