"""What an attack is: a callable that finds, in S(x), images that the classifier gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from robustmri.core.arrays import Images, Labels, Logits
from robustmri.threat.threat_model import ThreatModel

Predictor = Callable[[Images], Logits]


class Attack(Protocol):
    """Implementations are frozen dataclasses; eps belongs to the call, and step sizes are fractions
    of it.
    """

    def __call__(
        self,
        classifier: Predictor,
        images: Images,
        labels: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator,
    ) -> Images:
        """Images in S(images), the worst found for each.

        Args:
            classifier: images in [0, 1] to logits; a module is run in evaluation mode and left as
                it was.
            images: shape (n, channels, ...), values within the threat's bounds.
            labels: true classes, shape (n,).
            threat: what may be changed, and what counts as success.
            generator: source of the random draws, on the CPU; each image takes one number from it,
                in order, so that a batch gives what its images give one by one.

        Raises:
            ThreatModelError: images or labels that do not fit the threat.
        """
