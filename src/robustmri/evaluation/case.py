"""How little it takes to change the answer about one slice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from robustmri.attacks import PGD, Attack, HopSkipJump, Nearest
from robustmri.attacks.minimal_eps import SmallestEps
from robustmri.core.arrays import Images
from robustmri.data.loaders import planes_first, planes_last
from robustmri.evaluation.attacked import probabilities, verify
from robustmri.evaluation.exact import logits_of
from robustmri.models.classifier import Classifier
from robustmri.results.cases import CaseTable
from robustmri.results.one_case import CaseFacts
from robustmri.threat.norms import find_norm
from robustmri.threat.threat_model import ThreatModel

NEAREST = Nearest(steps=200)
NEARER = PGD(steps=50, restarts=2, stop_when_fooled=True)
FINER = tuple(k / 20 for k in range(10, 20))
"""Shares of the first distance at which a second attack looks for a nearer image."""


def examine_case(
    classifier: Classifier,
    image: npt.NDArray[np.float32],
    *,
    norm: str = "linf",
    mask: npt.NDArray[np.bool_] | None = None,
    outcomes: CaseTable | None = None,
    seed: int = 0,
) -> tuple[CaseFacts, npt.NDArray[np.float32]]:
    """Look for the nearest image about which the classifier says something else.

    The true label is not asked for: what is measured is how firmly the classifier holds its own
    answer. With gradients `Nearest` looks for the nearest image, and PGD at shares of that distance
    for a nearer one; without, HopSkipJump.

    Args:
        classifier: in evaluation mode.
        image: in [0, 1], shape (h, w) of the classifier's size, or (h, w, 3) in colour.
        norm: "linf", "l2" or "l1".
        mask: the lesion, shape (h, w).
        outcomes: of a result, to say how many of its slices are more fragile.
        seed: of the attacks.

    Returns:
        The facts, and the attacked image, which is the image itself where nothing was found.
    """
    images = planes_first(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None])
    before = logits_of(classifier, images)
    labels = before.argmax(1)
    threat = ThreatModel(norm=norm, eps=float("inf"))
    points, tried = images, []
    for name, attack in _searches(classifier):
        found = _run(attack, classifier, images, labels, threat, points, seed)
        tried.append(name)
        points = _nearer(classifier, found, points, images, labels, threat)
    after = logits_of(classifier, points)
    changed = bool(after.argmax(1) != labels)
    size = float(find_norm(norm).size(points - images)) if changed else None
    delta = planes_last(points - images)[0].numpy()
    energy = float((delta**2).sum())
    facts = CaseFacts(
        answer=classifier.classes[int(labels)],
        probabilities=_named(classifier, before),
        norm=norm,
        smallest_eps=size,
        grey_levels=size * 255 if size is not None and find_norm(norm).per_pixel else None,
        nearest=classifier.classes[int(after.argmax(1))] if changed else "",
        nearest_probabilities=_named(classifier, after) if changed else {},
        share_in_lesion=float((delta[mask] ** 2).sum()) / energy
        if mask is not None and energy
        else None,
        lesion_share=None if mask is None else float(mask.mean()),
        attacks=tuple(tried),
    )
    if outcomes is not None and size is not None:
        needed = outcomes.smallest_eps(norm)[outcomes.right & outcomes.attacked_in(norm)]
        if len(needed):
            facts = msgspec.structs.replace(
                facts, more_fragile=float(np.mean(needed < size)), compared_with=len(needed)
            )
    return facts, planes_last(points)[0].numpy()


def _searches(classifier: Classifier) -> list[tuple[str, Any]]:
    if not classifier.spec.gradients:
        return [("hop-skip-jump", HopSkipJump())]
    return [("nearest", NEAREST), ("pgd", NEARER)]


def _run(
    attack: Attack,
    classifier: Classifier,
    images: Images,
    labels: torch.Tensor,
    threat: ThreatModel,
    best: Images,
    seed: int,
) -> Images:
    generator = torch.Generator().manual_seed(seed)
    if isinstance(attack, PGD):
        size = float(find_norm(threat.norm).size(best - images))
        if not size:  # Nothing was found yet: from a grey level up to half the range.
            size = float(find_norm(threat.norm).size(torch.full_like(images, 0.5)))
        radii = tuple(size * share for share in FINER)
        return SmallestEps(attack, radii)(classifier, images, labels, threat, generator=generator)
    return attack(classifier, images, labels, threat, generator=generator)


def _nearer(
    classifier: Classifier,
    found: Images,
    best: Images,
    images: Images,
    labels: torch.Tensor,
    threat: ThreatModel,
) -> Images:
    """The nearer of two images that fool; what was found counts only if a fresh forward says so."""
    checked = verify(classifier, found, images, labels, threat)
    if not bool(checked.fooled):
        return best
    size = find_norm(threat.norm).size
    held = not bool((best != images).any())
    nearer = bool(size(checked.images - images) < size(best - images))
    return checked.images if held or nearer else best


def _named(classifier: Classifier, logits: torch.Tensor) -> dict[str, float]:
    shares: Mapping[str, float] = dict(
        zip(classifier.classes, probabilities(logits)[0].tolist(), strict=True)
    )
    return {name: round(share, 6) for name, share in shares.items()}
