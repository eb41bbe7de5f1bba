"""What an epoch is worth: clean and robust accuracy on validation patients, by an attack that
training does not use.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robustmri.attacks import PGD, fgsm
from robustmri.attacks.engine import by_backpropagation, loss_against
from robustmri.attacks.protocol import Attack
from robustmri.core.arrays import Images, Labels
from robustmri.models.classifier import Classifier
from robustmri.models.dual_norm import collapsed
from robustmri.models.optimised import OptimisedView, Precision
from robustmri.threat.threat_model import ThreatModel
from robustmri.training.batches import Examples
from robustmri.training.objectives import threat_of
from robustmri.training.settings import TrainSettings

AT_ONCE = 64
"""Images of one forward."""


class Measured(NamedTuple):
    """Accuracies and the share of images without a gradient, as in
    `robustmri.training.selection.Epoch`.
    """

    clean: float
    robust: float | None = None
    one_step: float | None = None
    zero_gradients: float | None = None
    worst_class: float | None = None
    worst_class_robust: float | None = None


def validate(classifier: Classifier, validation: Examples, settings: TrainSettings) -> Measured:
    """Clean accuracy; where training meets attacked images also the robust one, under the full eps.

    The guard is PGD on the margin, which no training attack climbs, on `guard_slices` of the
    slices.
    """
    view, right = _untouched(classifier, validation, settings)
    clean = right.float().mean().item()
    if not settings.attacked:
        return Measured(clean)
    threat = threat_of(settings, classifier)
    if not threat.eps:
        # The whole validation set has the answer: the epoch of standard training is chosen.
        return Measured(clean, clean)
    worst = _worst_class(right, validation.labels)
    n = len(right)
    # Evenly spaced: the cohort lists slices patient by patient.
    looked_at = (
        torch.linspace(0, n - 1, min(settings.guard_slices or n, n))
        .round()
        .long()
        .unique()
        .to(right.device)
    )
    rows = looked_at[right[looked_at]]
    if not len(rows):
        return Measured(clean, 0.0, 0.0, None, worst, 0.0)
    guard = PGD(
        steps=settings.guard_steps,
        step_size=2.5 / settings.guard_steps,
        loss="margin",
        stop_when_fooled=True,
    )
    images, labels = validation.images[rows], validation.labels[rows]
    held = [
        _survivors(attack, view, images, labels, threat, settings.seed)
        for attack in (guard, fgsm())
    ]
    flat = _without_gradient(view, images, labels)
    robust, one_step = (float(mask.sum()) / len(looked_at) for mask in held)
    withstood = torch.zeros_like(right)
    withstood[rows] = held[0]
    worst_robust = _worst_class(withstood[looked_at], validation.labels[looked_at])
    return Measured(clean, robust, one_step, float(flat.float().mean()), worst, worst_robust)


def clean_accuracy(classifier: Classifier, validation: Examples, settings: TrainSettings) -> float:
    """The first of them alone, which takes no attack."""
    return _untouched(classifier, validation, settings)[1].float().mean().item()


def _untouched(
    classifier: Classifier, validation: Examples, settings: TrainSettings
) -> tuple[OptimisedView, Tensor]:
    """The classifier as it is asked, and which of the untouched images it names rightly."""
    network = collapsed(classifier).answering(mirrored=settings.mirrored)
    precision: Precision | None = None if settings.precision == "auto" else settings.precision
    view = OptimisedView(network, validation.images, precision=precision)
    with torch.no_grad():
        logits = torch.cat([view(part) for part in validation.images.split(AT_ONCE)])
    return view, logits.argmax(1) == validation.labels


def _worst_class(right: Tensor, labels: Labels) -> float:
    """Accuracy of the class that has the lowest."""
    return min(float(right[labels == label].float().mean()) for label in labels.unique())


def _survivors(
    attack: Attack,
    view: OptimisedView,
    images: Images,
    labels: Labels,
    threat: ThreatModel,
    seed: int,
) -> Tensor:
    """Which images are right under an attack; all of them are without."""
    generator, fooled = torch.Generator().manual_seed(seed), []
    for part, truth in zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True):
        attacked = attack(view, part, truth, threat, generator=generator)
        with torch.no_grad():
            fooled.append(threat.fooled(view(attacked), truth))
    return ~torch.cat(fooled)


def _without_gradient(view: OptimisedView, images: Images, labels: Labels) -> Tensor:
    """Images at which the loss that attacks climb has a gradient of exactly zero."""
    objective, flat = loss_against("cross_entropy", labels, ThreatModel()), []
    for rows in torch.arange(len(images), device=images.device).split(AT_ONCE):
        *_, gradient = by_backpropagation(view, images[rows], rows, objective, {})
        flat.append((gradient == 0).flatten(1).all(1))
    return torch.cat(flat)
