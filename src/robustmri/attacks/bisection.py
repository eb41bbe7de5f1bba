"""Nearest fooling points: a climb that meets some, and the way back from one to where it only just
fools.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from robustmri.attacks.engine import (
    Found,
    LossName,
    checked,
    climb,
    exhausted,
    frozen,
    loss_against,
)
from robustmri.attacks.protocol import Predictor
from robustmri.attacks.step_rules import Rule
from robustmri.core.arrays import Images, Labels
from robustmri.core.errors import ThreatModelError
from robustmri.threat.threat_model import ThreatModel


def shorten(
    classifier: Predictor,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    found: Found,
    *,
    halvings: int,
    confidence: float = 0.0,
) -> Images:
    """Each fooling point, projected onto the smallest ball around its image that still leaves it
    fooling.

    The radius is found by halving its bracket, from nothing to the size of the change as it came.
    In l2 the points lie on the line to the image; in linf large changes are clipped first, in l0
    small ones are undone first. Every point that is returned was seen to fool, or is the one that
    came: no image ends further off than before.

    Args:
        classifier: images to logits.
        images: originals, shape (n, channels, ...).
        labels: true classes, shape (n,).
        threat: its norm, bounds and mask; its radius is not used.
        found: what an attack found; images that it did not fool are left as they are and cost
            nothing.
        halvings: number of forwards for each image; ten leave a thousandth of the distance.
        confidence: margin in logits by which a point must fool.
    """
    predict, images, points = (
        checked(classifier, labels, threat),
        images.detach(),
        found.images.clone(),
    )
    rows = torch.nonzero(found.fooled & (points != images).flatten(1).any(1))[:, 0]
    originals, y, ends, here = images[rows], labels[rows], found.images[rows], threat.at(rows)
    size = here.measure.size(ends - originals)
    low, high = torch.zeros_like(size), torch.ones_like(size)
    with frozen(classifier), torch.no_grad():
        for _ in range(halvings if len(rows) else 0):
            if exhausted(classifier):
                break
            middle = (low + high) / 2
            tried = replace(here, eps=middle * size).project(ends, originals)
            won = here.fooled(predict(tried), y, confidence)
            points[rows[won]] = tried[won]
            low, high = torch.where(won, low, middle), torch.where(won, middle, high)
    return points


def find_nearest(
    classifier: Predictor,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    *,
    steps: int,
    rule: Rule,
    loss: LossName,
    halvings: int,
) -> Images:
    """For each image the nearest fooling point that `rule` meets on its way uphill from it, after
    `shorten`.

    An image for which it meets none comes back unchanged. The radius of the threat is not used; for
    the other arguments see `climb` and `shorten`.
    """
    threat = replace(threat, eps=torch.inf)
    found = climb(
        classifier,
        images,
        labels,
        threat,
        start=images,
        steps=steps,
        rule=rule,
        objective=loss_against(loss, labels, threat),
        minimal=True,
    )
    return shorten(classifier, images, labels, threat, found, halvings=halvings)


def check_halvings(halvings: int) -> None:
    """Refuse a number of halvings below 0.

    Raises:
        ThreatModelError: it is.
    """
    if halvings < 0:
        raise ThreatModelError(
            f"halvings must be at least 0, got {halvings}. 0 leaves the points as they were found."
        )
