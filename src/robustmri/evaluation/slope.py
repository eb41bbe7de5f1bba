"""Whether a gradient is that of the answers: the loss is measured at points near an image, and
compared with what the gradient says of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor, nn

from robustmri.attacks.engine import loss_against
from robustmri.attacks.protocol import Predictor
from robustmri.core.arrays import Images, Labels, Logits, PerImage
from robustmri.evaluation.attacked import loss_gradient
from robustmri.evaluation.exact import logits_of
from robustmri.evaluation.masking_checks import ALIKE, APART, off_slope
from robustmri.threat.threat_model import ThreatModel

LENGTHS = (1e-3, 4e-3, 1.6e-2)
"""Steps along the gradient, in image units, over which the slope is measured: a network is smooth
at one of them."""
POINTS, SHORT = 16, 1e-4
"""Gradients along a step, whose mean says its rise however the loss bends between its ends; and
the step in a direction drawn by chance, where the rise is small beside the bends."""
DIRECTIONS = 6
"""In which the loss is measured besides: each pixel up or down, by chance."""
ROUNDING = 32
"""Last places of the loss that a difference must exceed to be one."""


class Losses:
    """The loss that attacks climb, of a classifier in float64 where it can be had so.

    In float32 a loss near 1 changes in steps of 1e-7, and a network that was never trained may
    change by less from one image to the next.

    Args:
        classifier: left as it is.
        images: to try on whether it answers alike in both.
        labels: true classes.
    """

    def __init__(self, classifier: Predictor, images: Images, labels: Labels) -> None:
        precise = in_double(classifier, images)
        self.classifier = precise or classifier
        self.dtype = torch.float64 if precise else torch.float32
        self.labels = labels
        self._loss = loss_against("cross_entropy", labels, ThreatModel())
        self._rows = torch.arange(len(labels), device=labels.device)
        with torch.no_grad():
            size = self.classifier(images.to(self.dtype)).double().abs().amax(1)
        self.least: PerImage = ROUNDING * torch.finfo(self.dtype).eps * size.clamp_min(1e-3)

    def rise(self, above: Images, below: Images) -> PerImage:
        """What the loss rises from one point to the other."""
        with torch.no_grad():
            one, other = (
                self._loss(point, self.classifier(point.to(self.dtype)).double(), self._rows)
                for point in (above, below)
            )
        return one - other

    def followed(self, above: Images, below: Images) -> PerImage:
        """What the gradient says of that rise, asked at points all along."""
        total = torch.zeros_like(above, dtype=torch.float64)
        for point in range(POINTS):
            between = torch.lerp(below, above, (point + 0.5) / POINTS).to(self.dtype)
            total += loss_gradient(self.classifier, between, self.labels, ThreatModel())
        return _said(total / POINTS, above, below)


def in_double(classifier: Predictor, images: Images) -> nn.Module | None:
    """A copy in float64 that gives the same answers; None where there is none."""
    if not isinstance(classifier, nn.Module):
        return None
    try:
        copied = copy.deepcopy(classifier).double()
        with torch.no_grad():
            answers = copied(images.double())
        same = unlike(logits_of(classifier, images), answers.float()) <= ALIKE
    except Exception:  # Whatever the code of a network raises that wants float32, or a device.
        return None
    return copied if same and answers.dtype == torch.float64 else None


def measure_slope(classifier: Predictor, images: Images, labels: Labels) -> list[float]:
    """The rise of the loss that is measured along its gradient, over the one that the gradient
    says.

    Of several lengths the one at which they agree best, or the first at which all do. Images
    without a gradient are left out, and those whose loss does not change by more than rounding,
    measured or said.
    """
    found = _climbable(classifier, images, labels)
    if found is None:
        return []
    images, gradient, losses = found
    best: list[float] = []
    for length in LENGTHS:
        ends = [(images + side * length * gradient.sign()).clamp(0, 1) for side in (1, -1)]
        measured, said = losses.rise(*ends), _said(gradient, *ends)
        ratio = (measured / said).nan_to_num(0.0, 1e30, -1e30)
        seen = (measured.abs() > losses.least) | (said.abs() > losses.least)
        ratios: list[float] = ratio[seen].tolist()
        if ratios and (not best or off_slope(ratios) / len(ratios) < off_slope(best) / len(best)):
            best = ratios
        if best and not off_slope(best):
            break
    return best


def measure_directions(classifier: Predictor, images: Images, labels: Labels) -> list[float]:
    """How far the rise of the loss in a few directions is from what the gradient says of them, as a
    share of the larger of the two: 0 where they agree, 1 where one of them is nothing.

    In each direction every pixel goes up or down by chance, so that no part of a gradient can be
    missing unseen. Images are left out as by `measure_slope`, and lengths chosen likewise.
    """
    found = _climbable(classifier, images, labels)
    if found is None:
        return []
    images, gradient, losses = found
    signs = _signs((DIRECTIONS, *images.shape)).to(images)
    best: list[float] = []
    for length in LENGTHS:
        ends = [[(images + side * length * sign).clamp(0, 1) for side in (1, -1)] for sign in signs]
        measured = torch.stack([losses.rise(*two) for two in ends])
        said = torch.stack([_said(gradient, *two) for two in ends])
        size = torch.maximum(measured.norm(dim=0), said.norm(dim=0))
        share = ((measured - said).norm(dim=0) / size).nan_to_num(1.0)
        apart: list[float] = share[size > losses.least * DIRECTIONS**0.5].tolist()
        if apart and (not best or median(apart) < median(best)):
            best = apart
        if best and median(best) <= APART:
            break
    return best


def measure_followed(classifier: Predictor, images: Images, labels: Labels) -> list[float]:
    """How far the rise of the loss is from what the gradient says that is asked all along the step,
    as a share of the larger of the two: near 0 where it is that of the answers, however they bend.

    The larger share of two steps: along the gradient, and in a direction drawn by chance. Images
    without a gradient are left out; 1 where nothing rises by more than rounding.
    """
    found = _climbable(classifier, images, labels)
    if found is None:
        return []
    images, gradient, losses = found
    shares = []
    for step in (LENGTHS[0] * gradient.sign(), SHORT * _signs(images.shape).to(images)):
        ends = [(images + side * step).clamp(0, 1) for side in (1, -1)]
        measured, said = losses.rise(*ends), losses.followed(*ends)
        size = torch.maximum(measured.abs(), said.abs())
        share = ((measured - said).abs() / size).nan_to_num(1.0)
        shares.append(torch.where(size > losses.least, share, 1.0))
    apart: list[float] = torch.stack(shares).amax(0).tolist()
    return apart


def gradient_in_company(classifier: Predictor, images: Images, labels: Labels) -> float:
    """How far an image's gradient is from the one that it has alone, as a share of the longer one;
    the most of all images.
    """
    together = loss_gradient(classifier, images, labels, ThreatModel())
    pairs = zip(images.split(1), labels.split(1), strict=True)
    alone = torch.cat([loss_gradient(classifier, *one, ThreatModel()) for one in pairs])
    size = torch.maximum(*(one.flatten(1).norm(dim=1) for one in (together, alone)))
    share = (together - alone).flatten(1).norm(dim=1) / size
    # Nothing is like nothing; what is no number another check tells.
    return float(share.nan_to_num(0.0).amax())


def unlike(one: Logits, other: Logits) -> float:
    """Largest difference, as a share of the largest logit; NaN is like NaN."""
    same = (one == other) | (one.isnan() & other.isnan())
    if bool(same.all()):
        return 0.0
    finite = one[torch.isfinite(one)]
    scale = float(finite.abs().max()) if len(finite) else 1.0
    difference = (one - other).abs().where(~same, 0.0).nan_to_num(torch.inf)
    return min(float(difference.max()) / max(scale, 1e-30), 1e6)


def _climbable(
    classifier: Predictor, images: Images, labels: Labels
) -> tuple[Images, Images, Losses] | None:
    """Images that have a gradient, it, and their loss; None if none has."""
    gradient = loss_gradient(classifier, images, labels, ThreatModel())
    has = torch.isfinite(gradient).flatten(1).all(1) & (gradient != 0).flatten(1).any(1)
    rows = torch.nonzero(has)[:, 0]
    if not len(rows):
        return None
    return images[rows], gradient[rows], Losses(classifier, images[rows], labels[rows])


def _signs(shape: Sequence[int]) -> Tensor:
    return 2 * torch.randint(2, shape, generator=torch.Generator().manual_seed(0)) - 1


def _said(gradient: Images, above: Images, below: Images) -> PerImage:
    return (gradient.double() * (above.double() - below.double())).flatten(1).sum(1)
