"""The smallest radius that fools each image: one search for the whole curve of accuracy against
eps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from robustmri.attacks.bisection import shorten
from robustmri.attacks.engine import (
    Found,
    SeededGenerator,
    checked,
    draw_seeds,
    exact_classifier,
    exhausted,
    frozen,
)
from robustmri.attacks.protocol import Attack, Predictor
from robustmri.core.arrays import Images, Labels, PerImage
from robustmri.core.errors import ThreatModelError
from robustmri.threat.norms import per_image
from robustmri.threat.threat_model import ThreatModel


class Bracket(NamedTuple):
    """For each image the radii between which the smallest one lies that fools it.

    Attributes:
        low: largest radius at which the attack failed; 0 where it did not, -inf where the image
            itself fools.
        high: smallest radius at which it won; infinite where it never did.
        images: a fooling image of size at most `high`; the original where there is none.
        denied: whether a faster view claims a success, of the image itself or at `low`, that the
            original denies; at a radius that counts as a failure.
    """

    low: PerImage
    high: PerImage
    images: Images
    denied: Tensor


def bracket_eps(
    attack: Attack,
    classifier: Predictor,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    radii: Sequence[float],
    *,
    generator: torch.Generator,
    halvings: int = 4,
) -> Bracket:
    """Between which two of `radii` the smallest eps lies that fools, for each image on its own.

    A success is cheap (an attack that stops when it fools takes a few steps), a failure costs all
    of them, and a ball holds every smaller one. So the search goes down from the largest radius
    until the first failure, which is the only one that an image ever costs; halving the bracket
    would cost several. A found point is brought back towards its image by a bisection, which often
    leads past several radii for a few forwards. On the tests' small network, with 8 radii in l2: 27
    gradients an image, 61 by halving the bracket, 113 by running the attack at each.

    Args:
        attack: run within one radius per image; let it stop when it fools.
        classifier: images to logits.
        images: originals, shape (n, channels, ...).
        labels: true classes, shape (n,).
        threat: its eps is replaced.
        radii: ascending, in image units; the answer is exact to their spacing.
        generator: as in `Attack`.
        halvings: forwards after each success, see `shorten`.
    """
    threat.check(images, labels)
    steps = torch.tensor(list(radii), dtype=images.dtype, device=images.device)
    if (
        not len(steps)
        or not bool((steps.diff() > 0).all())
        or not 0 < float(steps[0]) <= float(steps[-1]) < torch.inf
    ):
        raise ThreatModelError(f"radii must be positive, finite and ascending, got {list(radii)}.")
    predict, exact = (
        checked(each, labels, threat) for each in (classifier, exact_classifier(classifier))
    )
    images = images.detach()
    # Place in `steps`: the smallest that fooled.
    high = torch.full((len(images),), len(steps), device=images.device)
    best = images.clone()
    with frozen(classifier), torch.no_grad():
        start = threat.fooled(predict(images), labels)
    denied = start & ~_wins(exact, images, start, threat, labels)
    high[start] = -1
    searching = ~start
    seeds = [seed for (seed,) in draw_seeds(generator, len(images), each=1)]
    while searching.any() and not exhausted(classifier):
        rows = torch.nonzero(searching)[:, 0]
        place = high[rows] - 1
        here = replace(threat.at(rows), eps=steps[place])
        seeded = SeededGenerator([seeds[row] for row in rows.tolist()])
        found = attack(classifier, images[rows], labels[rows], here, generator=seeded)
        with frozen(classifier), torch.no_grad():
            won = here.fooled(predict(found), labels[rows])
        # What the attack has asked the original counts, whatever a faster view says of it.
        won = won | _wins(exact, found, ~won, here, labels[rows])
        points = Found(found, won, torch.zeros_like(steps[place]))
        nearer = shorten(classifier, images[rows], labels[rows], here, points, halvings=halvings)
        # On the boundary a faster view and the original disagree: back to the point that was not
        # brought nearer.
        won = _wins(exact, nearer, won, here, labels[rows])
        back = ~won & (nearer != found).flatten(1).any(1)
        back = _wins(exact, found, back, here, labels[rows])
        nearer, won = torch.where(per_image(back, found), found, nearer), won | back
        best[rows[won]] = nearer[won]
        denied[rows] = points.fooled & ~won
        reached = torch.searchsorted(steps, threat.measure.size(best[rows] - images[rows]))
        high[rows[won]] = torch.minimum(reached, place)[won]
        searching[rows] = won & (high[rows] > 0)
    radius = torch.cat([steps.new_tensor([-torch.inf, 0.0]), steps, steps.new_tensor([torch.inf])])
    # An image that a spent budget left in the middle of its search has not held anywhere yet.
    return Bracket(
        torch.where(searching, radius[1], radius[high + 1]), radius[high + 2], best, denied
    )


def _wins(
    exact: Predictor, points: Images, among: Tensor, threat: ThreatModel, labels: Labels
) -> Tensor:
    """Which of the points that `among` marks do fool; the others are not asked about."""
    wins, rows = among.clone(), torch.nonzero(among)[:, 0]
    if len(rows):
        with torch.no_grad():
            wins[rows] = threat.at(rows).fooled(exact(points[rows]), labels[rows])
    return wins


@dataclass(frozen=True)
class SmallestEps:
    """The fooling image within the smallest of several radii; an image that holds at the largest
    comes back unchanged.

    Args:
        attack: see `bracket_eps`.
        radii: likewise.
    """

    attack: Attack
    radii: tuple[float, ...]

    def __call__(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """See `Attack`; the radius of the threat is not used."""
        return self.run(classifier, images, labels, threat, generator=generator).images

    def run(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Bracket:
        """The same, with all that the search found."""
        return bracket_eps(
            self.attack, classifier, images, labels, threat, self.radii, generator=generator
        )
