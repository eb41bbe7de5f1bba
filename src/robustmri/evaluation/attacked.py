"""One attack on one batch, re-verified: nothing counts that a fresh float32 forward has not
confirmed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from robustmri.attacks import Attack, Cascade
from robustmri.attacks.engine import SeededGenerator, gradient_of, loss_against
from robustmri.attacks.minimal_eps import SmallestEps
from robustmri.attacks.protocol import Predictor
from robustmri.core.arrays import Images, Labels, Logits, PerImage
from robustmri.evaluation.cost import AttackCost, Metered
from robustmri.evaluation.exact import Exact, logits_of
from robustmri.models.classifier import Classifier
from robustmri.threat.norms import NORMS, per_image
from robustmri.threat.physical import PhysicalThreat
from robustmri.threat.threat_model import ThreatModel

TOLERANCE = 1e-6
"""Distances are sums of rounded float32 pixels; a radius may be passed by this much."""


class Attacked(NamedTuple):
    """What is left of a batch; every field has one row per image.

    `distances` has a column for each norm, in the order of `NORMS`. `broken_by` is the place of the
    suite's member that fooled an image; -1 where none did, or the attack is no suite.
    """

    images: Images
    logits: Logits
    fooled: Tensor
    verified: Tensor
    distances: Tensor
    broken_by: Tensor

    def distance(self, norm: str) -> PerImage:
        """Size of each change in that norm, shape (n,)."""
        return self.distances[:, list(NORMS).index(norm)]


def probabilities(logits: Logits) -> Tensor:
    """Softmax of each image; NaN throughout where one of its logits is not finite, so that it
    passes for no answer.

    >>> probabilities(torch.tensor([[0.0, 0.0], [0.0, -torch.inf]]))
    tensor([[0.5000, 0.5000],
            [   nan,    nan]])
    """
    finite = torch.isfinite(logits).all(1, keepdim=True)
    return logits.softmax(1).where(finite, torch.nan)


def attack_batch(
    attack: Attack,
    classifier: Predictor,
    search: Predictor,
    images: Images,
    labels: Labels,
    threat: ThreatModel | PhysicalThreat,
    *,
    generator: torch.Generator,
    cost: AttackCost | None = None,
    clean: Logits | None = None,
) -> Attacked:
    """Attack the images that are not won already; those stay unchanged.

    Args:
        attack: what to run; budget attacks leave each image at its first success.
        classifier: the original, in evaluation mode; it alone decides what counts.
        search: the view of it that the attack climbs on.
        images: originals.
        labels: true classes.
        threat: the set that must not be left; of a physical one the parameters are searched.
        generator: randomness of the attack; each image takes one number, whether it is attacked or
            not.
        cost: account of both searches, with what they may spend together.
        clean: the original classifier's logits of the images, if they are known already.
    """
    if isinstance(threat, PhysicalThreat):
        return _attack_parameters(
            attack, classifier, search, images, labels, threat, generator, cost, clean
        )
    cost, exact = cost or AttackCost(len(images)), Exact(classifier)
    logits = logits_of(classifier, images) if clean is None else clean.clone()
    result, broken_by = images.clone(), torch.full_like(labels, -1)
    rows = torch.nonzero(~threat.fooled(logits, labels))[:, 0]
    attack = quick(attack)
    numbers = torch.randint(2**62, (len(images),), generator=generator).tolist()
    for predictor in (search, classifier):
        if not len(rows):
            break
        seeded = SeededGenerator([numbers[row] for row in rows.tolist()])
        # For attacks, not of ours, that draw from it in their own way.
        seeded.manual_seed(numbers[0])
        x, y, here = images[rows], labels[rows], threat.at(rows)
        metered = Metered(predictor, cost, exact)
        denied = None
        if isinstance(attack, Cascade):
            found, broken_by[rows] = attack.run(metered, x, y, here, generator=seeded)
        elif isinstance(attack, SmallestEps):
            _, _, found, denied = attack.run(metered, x, y, here, generator=seeded)
        else:
            found = attack(metered, x, y, here, generator=seeded)
        unknown, known = ~torch.tensor(exact.knows(found), device=rows.device), exact(found)
        # What the first search confirmed stays where the second one finds nothing nearer.
        nearer = threat.measure.size(found - x) <= threat.measure.size(result[rows] - x)
        keep = here.fooled(logits[rows], y) & ~(here.fooled(known, y) & nearer)
        result[rows] = torch.where(per_image(keep, x), result[rows], found)
        logits[rows] = torch.where(keep[:, None], logits[rows], known)
        if search is classifier:
            break
        # Where low precision claims a success that float32 does not see, search again in float32.
        # What the attack asked the original about itself is no such claim; a suite asks it about
        # the claims of others, and a search over radii says by itself what was denied.
        if denied is not None:
            rows = rows[denied]
            continue
        for_others = isinstance(attack, Cascade)
        held = torch.nonzero((unknown | for_others) & ~here.fooled(logits[rows], y))[:, 0]
        if not len(held):
            break
        with torch.no_grad():
            claimed = here.at(held).fooled(predictor(found[held]), y[held])
        rows = rows[held[claimed]]
    return verify(classifier, result, images, labels, threat, logits, broken_by)


def _attack_parameters(
    attack: Attack,
    classifier: Predictor,
    search: Predictor,
    images: Images,
    labels: Labels,
    threat: PhysicalThreat,
    generator: torch.Generator,
    cost: AttackCost | None,
    clean: Logits | None,
) -> Attacked:
    """The same over parameters: verified is that they lie in their box, and what the original says
    of the images that they make.
    """
    clean = logits_of(classifier, images) if clean is None else clean
    changed = threat.change(images)
    found = attack_batch(
        attack,
        changed.seen_by(classifier),
        changed.seen_by(search),
        changed.start,
        labels,
        changed.box,
        generator=generator,
        cost=cost,
        clean=clean,
    )
    with torch.no_grad():
        made = changed.at(found.images)
    # Nobody touched what was wrong already.
    made = torch.where(per_image(changed.box.fooled(clean, labels), made), images, made)
    return found._replace(images=made, distances=_distances(made - images))


def corrupted(classifier: Predictor, points: Images, images: Images, labels: Labels) -> Attacked:
    """What the classifier says of slices that a scanner has changed, and nobody has attacked."""
    logits = logits_of(classifier, points)
    fine = torch.isfinite(points) & (points >= 0) & (points <= 1)
    return Attacked(
        points,
        logits,
        ThreatModel().fooled(logits, labels),
        fine.flatten(1).all(1),
        _distances(points - images),
        torch.full_like(labels, -1),
    )


def quick(attack: Attack) -> Attack:
    """The attack, leaving each image at its first success: within eps a success cannot be
    bettered.
    """
    return replace(attack, stop_when_fooled=True) if hasattr(attack, "stop_when_fooled") else attack  # type: ignore[type-var]


def within(eps: float, attacked: Attacked, untouched: Attacked, norm: str) -> Attacked:
    """Images whose attack is no larger than eps as they were attacked, the others as they were
    before.
    """
    inside = attacked.distance(norm) <= eps + TOLERANCE
    parts = zip(attacked, untouched, strict=True)
    return Attacked(*(torch.where(per_image(inside, one), one, other) for one, other in parts))


def verify(
    classifier: Predictor,
    points: Images,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    logits: Logits | None = None,
    broken_by: Tensor | None = None,
) -> Attacked:
    """Measure again whether each point is in S(x) and what the original classifier says of it.

    `logits` are the original's own of these very points, where a forward in float32 has just given
    them. `broken_by` says which member of a suite claims each image; a claim that does not hold is
    struck out.
    """
    delta = points - images
    size = NORMS[threat.norm].size(delta)
    low, high = threat.bounds
    inside = (
        (size <= threat.eps + TOLERANCE)
        & torch.isfinite(points).flatten(1).all(1)
        & ((points >= low) & (points <= high)).flatten(1).all(1)
        & (delta == threat.allow(delta)).flatten(1).all(1)
    )
    # A point outside the threat's set is no attack: the image stands as it was.
    points = torch.where(per_image(inside, points), points, images)
    if logits is None or not inside.all():
        logits = logits_of(classifier, points)
    delta = points - images
    distances = _distances(delta)
    fooled = threat.fooled(logits, labels)
    nobody = torch.full_like(labels, -1)
    member = nobody if broken_by is None else broken_by.where(fooled, nobody)
    return Attacked(points, logits, fooled, inside, distances, member)


def _distances(delta: Images) -> Tensor:
    """Size of each change, a column for each norm."""
    return torch.stack([norm.size(delta) for norm in NORMS.values()], 1)


def zero_gradients(classifier: Classifier, images: Images, labels: Labels) -> Tensor:
    """Which images have no gradient of the loss that attacks climb: gradient masking.

    One that is missing, or holds a number that is not finite, which the search takes for zero,
    counts as none.
    """
    gradient = loss_gradient(classifier, images, labels, ThreatModel()).flatten(1)
    return (gradient == 0).all(1) | ~torch.isfinite(gradient).all(1)


def loss_gradient(
    classifier: Predictor, images: Images, labels: Labels, threat: ThreatModel
) -> Images:
    """Gradient at the images themselves of the loss that attacks climb: away from the label or
    towards the target.
    """
    points = images.detach().requires_grad_(True)
    rows = torch.arange(len(images), device=images.device)
    with torch.enable_grad():
        loss = loss_against("cross_entropy", labels, threat)(points, classifier(points), rows).sum()
    return gradient_of(loss, points)
