"""The learning rate and eps at every moment of a run."""

from __future__ import annotations

import math

from robustmri.models.classifier import Classifier
from robustmri.training.minimax import ramped
from robustmri.training.objectives import threat_of
from robustmri.training.settings import TrainSettings


def learning_rate(now: float, settings: TrainSettings) -> float:
    """Linear warm-up, then half a cosine down to zero; `now` in epochs.

    Reference: Loshchilov & Hutter 2017, arXiv:1608.03983, Eq. 5, without restarts.

    >>> settings = TrainSettings(epochs=10, warmup_epochs=2.0, learning_rate=0.1)
    >>> [round(learning_rate(now, settings), 3) for now in (0.0, 2.0, 6.0, 10.0)]
    [0.005, 0.1, 0.05, 0.0]
    """
    if now < settings.warmup_epochs:
        return settings.learning_rate * (now + 0.1) / (settings.warmup_epochs + 0.1)
    share = (now - settings.warmup_epochs) / max(settings.epochs - settings.warmup_epochs, 1e-9)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def eps_at(now: float, settings: TrainSettings, classifier: Classifier) -> float:
    """Radius of the training attack in image units, grown linearly over the ramp; 0 where nothing
    is attacked.
    """
    if not settings.attacked:
        return 0.0
    return float(ramped(threat_of(settings, classifier), now, settings.ramp_epochs).eps)
