"""A classifier with a weakness that is there by construction: an attack on it must find that."""

from __future__ import annotations

import torch

from robustmri.attacks.protocol import Predictor
from robustmri.core.arrays import Images, Labels, Logits
from robustmri.evaluation.exact import logits_of
from robustmri.threat.norms import broadcast_eps, per_image
from robustmri.threat.threat_model import ThreatModel


class Planted:
    """The classifier, and for each of a few images a slope besides: on the way to a point within
    eps the true class's logit falls evenly, and there by so much that another class has won. With a
    target, the target's rises.

    At the images themselves the answers are the classifier's own.

    Args:
        predictor: left as it is.
        images: that are going to be attacked, shape (n, channels, ...).
        labels: true classes, shape (n,).
        threat: with a radius larger than 0.
    """

    def __init__(
        self, predictor: Predictor, images: Images, labels: Labels, threat: ThreatModel
    ) -> None:
        self.predictor, self.images = predictor, images
        # Away from the nearer bound: no pixel gets stuck.
        away = threat.allow(torch.where(images > 0.5, -1.0, 1.0).to(images))
        step = broadcast_eps(threat.eps, images) * threat.measure.steepest(away)
        step = threat.project(images + step, images) - images
        logits = logits_of(predictor, images + step)
        self._class, self._sign = labels, -1.0
        if threat.target is not None:
            self._class, self._sign = torch.full_like(labels, threat.target), 1.0
        spread = logits.amax(1) - logits.amin(1)
        self._strength = 2 * spread + logits.abs().amax() + 1.0
        length = step.flatten(1).square().sum(1).clamp_min(1e-30)
        self._way = step / per_image(length, step)

    def __call__(self, images: Images) -> Logits:
        """Logits of points near the images."""
        whose = torch.cdist(images.detach().flatten(1), self.images.flatten(1)).argmin(1)
        gone = ((images - self.images[whose]) * self._way[whose]).flatten(1).sum(1)
        logits = self.predictor(images)
        change = self._sign * self._strength[whose] * gone
        column = torch.zeros_like(logits).scatter(1, self._class[whose, None], change[:, None])
        return logits + column
