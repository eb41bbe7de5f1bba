"""What training descends: functions from a classifier and a batch to one number."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustmri.arrays import Images, Labels
from robustmri.attacks.protocol import Attack
from robustmri.models.optimised import OptimisedView, Precision
from robustmri.threat.threat_model import ThreatModel


class Batch(NamedTuple):
    """Images and labels of one step; `epoch` is the time in epochs, with its fraction."""

    images: Images
    labels: Labels
    epoch: float
    generator: torch.Generator


class Objective(Protocol):
    """Something to descend."""

    def __call__(self, classifier: nn.Module, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar with a gradient in the classifier's parameters."""


def standard(label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy on the images as they are."""

    def loss(classifier: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(classifier(batch.images), batch.labels, label_smoothing=label_smoothing)

    return loss


def adversarial(
    attack: Attack,
    threat: ThreatModel,
    *,
    ramp_epochs: float = 0.0,
    label_smoothing: float = 0.0,
    precision: Precision | None = None,
) -> Objective:
    """Cross-entropy on the worst images that `attack` finds in the threat's set.

    The attack sees the network as it is used later: batch-norm with its running statistics, folded into the
    convolutions. The step itself trains batch-norm on the attacked images.

    Args:
        attack: the inner maximisation.
        threat: its set; eps grows linearly from zero over the first `ramp_epochs` epochs.
        ramp_epochs: length of the ramp.
        label_smoothing: share of the label spread over all classes.
        precision: arithmetic of the inner loop; None: the faster one on this hardware.

    Reference: Madry et al. 2018, Eq. 2.1.
    """
    outer = standard(label_smoothing)

    def loss(classifier: nn.Module, batch: Batch) -> Tensor:
        here = replace(threat, eps=threat.eps * min(1.0, batch.epoch / ramp_epochs) if ramp_epochs else threat.eps)
        attacked = batch.images
        if here.eps > 0:
            view = OptimisedView(getattr(classifier, "module", classifier), batch.images, precision=precision)
            attacked = attack(view, batch.images, batch.labels, here, generator=batch.generator)
        return outer(classifier, batch._replace(images=attacked))

    return loss
