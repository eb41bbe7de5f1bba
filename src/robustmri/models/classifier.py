"""f_theta: images in [0, 1] to logits. The only place that knows a mean and a standard
deviation.
"""

from __future__ import annotations

import msgspec
from torch import nn

from robustmri.core.arrays import Images, Logits


class ClassifierSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything needed to build the network again, apart from its weights."""

    backbone: str
    classes: tuple[str, ...]
    size: int
    # ImageNet's channel means and standard deviations, averaged: the slices are grey. Some weights
    # ask for others.
    mean: float = 0.449
    std: float = 0.226
    weights: str = "none"


class Classifier(nn.Module):
    """A network with its normalisation inside, so that eps keeps its meaning in image units.

    Args:
        network: maps normalised images of shape (n, 1, size, size) to logits of shape (n, classes).
        spec: class names, image size, mean and standard deviation (in units of the [0, 1] range).
    """

    def __init__(self, network: nn.Module, spec: ClassifierSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.spec.classes

    def forward(self, images: Images) -> Logits:
        """Logits of images in [0, 1]."""
        logits: Logits = self.network((images - self.spec.mean) / self.spec.std)
        return logits
