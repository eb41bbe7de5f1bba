"""Carlini & Wagner's attack, in both readings: the nearest fooling image, and the worst one within
eps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustmri.attacks.bisection import check_halvings, shorten
from robustmri.attacks.deepfool import DeepFool
from robustmri.attacks.engine import (
    AttackLoss,
    Found,
    by_backpropagation,
    checked,
    climb,
    exhausted,
    frozen,
    keep_worse,
    loss_against,
    worse_of,
)
from robustmri.attacks.pgd import PGD
from robustmri.attacks.protocol import CheckedAttack, Facts, Predictor, described
from robustmri.attacks.step_rules import Rule, Seen, State, adam
from robustmri.core.arrays import Images, Labels, Logits, PerImage
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import per_image
from robustmri.threat.threat_model import ThreatModel

HEAVIER = 2.0
"""From the boundary: c, as a multiple of the one at which both terms pull alike there."""
FIRST_PART, LAST_PART = 0.4, 0.02
"""From the boundary: first and last step, as parts of the distance."""


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
        start: "image", as the paper: `searches` climbs from the image itself. "boundary": one climb
            from where DeepFool crosses the boundary, see `search_from_boundary`; an image that
            DeepFool does not turn is searched as in the paper.

    Reference: Carlini & Wagner 2017, Sec. V and VI.
    """

    facts = Facts(
        "cw-l2",
        "CW-L2",
        "Carlini & Wagner 2017, Sec. V and VI",
        doi="10.1109/SP.2017.49",
        norms=("l2",),
        minimal=True,
    )

    steps: int = 60
    searches: int = 5
    initial_c: float = 0.1
    learning_rate: float = 0.005
    confidence: float = 0.0
    halvings: int = 10
    start: Literal["image", "boundary"] = "image"

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
        given = classifier, images, labels, threat
        if self.start == "image":
            found = self._from_image(*given)
        else:
            found = search_from_boundary(*given, steps=self.steps, confidence=self.confidence)
            rows = torch.nonzero(~found.fooled)[:, 0]
            if len(rows) and not exhausted(classifier):
                left = images[rows], labels[rows], threat.at(rows)
                keep_worse(found, rows, self._from_image(classifier, *left))
        return shorten(
            classifier,
            images,
            labels,
            threat,
            found,
            halvings=self.halvings,
            confidence=self.confidence,
        )

    def _from_image(
        self, classifier: Predictor, images: Images, labels: Labels, threat: ThreatModel
    ) -> Found:
        return search_weight(
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


def search_from_boundary(
    classifier: Predictor,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    *,
    steps: int,
    confidence: float,
) -> Found:
    """The same objective climbed once, from the boundary, where both its terms are known.

    There the distance pulls with 2 |delta| and the margin with c times its slope: c is twice what
    makes them equal, so that no bracket has to be found. Adam's steps shrink with the distance.

    Args: as of `search_weight`.
    """
    images = images.detach()
    close = DeepFool(steps=10, candidates=2, halvings=8)
    # It draws nothing.
    start = close.search(classifier, images, labels, threat, generator=torch.Generator())
    size, every = threat.measure.size(start - images), torch.arange(len(images)).to(labels)
    margin = loss_against("margin", labels, threat)
    with frozen(classifier):
        predict = checked(classifier, labels, threat)
        _, logits, gradient = by_backpropagation(predict, start, every, margin, {})
    fooled = threat.fooled(logits, labels, confidence)
    found = Found(start, fooled, torch.where(fooled, -size, -torch.inf))
    slope = threat.allow(gradient).flatten(1).norm(dim=1).clamp_min(1e-12)
    free = threat.allow(torch.ones_like(images)).flatten(1).sum(1).clamp_min(1.0)
    rows = torch.nonzero(size > 0)[:, 0]
    if not len(rows) or exhausted(classifier):
        return found
    x, y, here, far = images[rows], labels[rows], threat.at(rows), size[rows]
    again = climb(
        classifier,
        x,
        y,
        here,
        start=start[rows],
        steps=steps,
        rule=_cooling(far / free[rows].sqrt(), steps),
        objective=_penalised(x, y, here, HEAVIER * 2 * far / slope[rows], confidence),
        minimal=True,
        confidence=confidence,
    )
    keep_worse(found, rows, again)
    return found


def _cooling(size: PerImage, steps: int) -> Rule:
    """Adam's steps, from `FIRST_PART` to `LAST_PART` of `size` for each pixel."""
    unit = adam(1.0)

    def update(seen: Seen, state: State) -> tuple[Images, State]:
        ahead, state = unit.update(seen, state)
        part = max(FIRST_PART * (1 - seen.step / steps), LAST_PART)
        return seen.points + per_image(part * size, ahead) * (ahead - seen.points), state

    return Rule(unit.init, update)


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
