"""Carlini & Wagner's attack, in both readings: the nearest fooling image, and the worst one within
eps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustmri.attacks.bisection import check_halvings, shorten
from robustmri.attacks.engine import AttackLoss, Found, climb, exhausted, loss_against, worse_of
from robustmri.attacks.pgd import PGD
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor, described
from robustmri.attacks.step_rules import Rule, adam
from robustmri.core.arrays import Images, Labels, Logits, PerImage
from robustmri.core.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel


@dataclass(frozen=True)
class CarliniWagnerL2(CheckedAttack):
    """Nearest image, in l2, that fools: minimise |delta|^2 + c * max(-margin, -confidence), with a
    search over c.

    The radius of the threat is not used: the distances are the result. An image for which no
    fooling point is found comes back unchanged. The bounds are kept by projection, the paper's
    first way (Sec. V-B): its change of variables by tanh cannot move pixels that are exactly 0 or
    1, which is where the background of an MRI lies.

    Args:
        steps: Adam steps for each value of c.
        searches: values of c tried for each image; c grows tenfold until it fools, then the bracket
            is halved.
        initial_c: first value; logits per squared image unit.
        learning_rate: Adam's, in image units.
        confidence: margin in logits by which to fool.
        halvings: forwards at the end, which take each point back to the boundary; see `shorten`. 0:
            none, as the paper.

    Reference: Carlini & Wagner 2017, Sec. V and VI.
    """

    facts = Facts(
        "cw-l2", "CW-L2", "Carlini & Wagner 2017, Sec. V and VI", norms=("l2",), minimal=True
    )

    steps: int = 60
    searches: int = 5
    initial_c: float = 0.1
    learning_rate: float = 0.005
    confidence: float = 0.0
    halvings: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.searches < 1 or self.initial_c <= 0 or self.learning_rate <= 0:
            raise ThreatModelError(
                "steps and searches must be at least 1, initial_c and learning_rate positive, got "
                f"{self.steps}, {self.searches}, {self.initial_c} and {self.learning_rate}."
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
            rule=adam(self.learning_rate),
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


def search_weight(
    classifier: Predictor,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    *,
    rule: Rule,
    steps: int,
    searches: int,
    initial_c: float,
    confidence: float,
) -> Found:
    """Climb c * min(margin, confidence) - |delta|_2^2 for several c per image; the nearest fooling
    points of all.

    Args:
        classifier: images to logits.
        images: originals, shape (n, channels, ...).
        labels: true classes, shape (n,).
        threat: with an infinite radius; its norm says which point is nearest.
        rule: how a gradient becomes a step.
        steps: steps for each c.
        searches: number of c; it grows tenfold until it fools, falls tenfold until it does not,
            then the bracket is halved.
        initial_c: first of them.
        confidence: margin in logits by which to fool.

    Reference: Carlini & Wagner 2017, Sec. V.
    """
    images = images.detach()
    low = torch.zeros(len(images), dtype=images.dtype, device=images.device)
    best = Found(images.clone(), low.bool(), torch.full_like(low, -torch.inf))
    high, c = torch.full_like(low, torch.inf), torch.full_like(low, initial_c)
    for _ in range(searches):
        found = climb(
            classifier,
            images,
            labels,
            threat,
            start=images,
            steps=steps,
            rule=rule,
            objective=_penalised(images, labels, threat, c, confidence),
            minimal=True,
            confidence=confidence,
        )
        best = worse_of(best, found)
        if exhausted(classifier):
            break
        high = torch.where(found.fooled, torch.minimum(high, c), high)
        low = torch.where(found.fooled, low, torch.maximum(low, c))
        c = torch.where(torch.isinf(high), c * 10, torch.where(low == 0, c / 10, (low + high) / 2))
    return best


def _penalised(
    images: Images, labels: Labels, threat: ThreatModel, c: Tensor, confidence: float
) -> AttackLoss:
    towards = loss_against("margin", labels, threat)

    def value(points: Images, logits: Logits, rows: Tensor) -> PerImage:
        distance = (points - images[rows]).flatten(1).square().sum(1)
        return c[rows] * towards(points, logits, rows).clamp(max=confidence) - distance

    return value


@described(
    Facts(
        "cw",
        "CW",
        "Carlini & Wagner 2017; Madry et al. 2018, Sec. 5",
        doi="10.1109/SP.2017.49",
        iterative=True,
    )
)
def cw(**settings: object) -> PGD:
    """The same margin, climbed inside the eps ball: what "CW at eps 0.04" can mean.

    Reference: Madry et al. 2018, Sec. 5.
    """
    return PGD(**{"loss": "margin", **settings})  # type: ignore[arg-type]
