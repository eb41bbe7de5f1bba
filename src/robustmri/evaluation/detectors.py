"""What is meant to notice an attacked slice: the squeezing of its grey values, and the distance of
its features from those of the training slices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustmri.core.arrays import Images, Labels, Logits, PerImage
from robustmri.core.errors import DataError, SettingsError
from robustmri.evaluation.attacked import probabilities
from robustmri.models.classifier import Classifier, device_of


class Judged(NamedTuple):
    """What is said of images; one row per image, all of it differentiable.

    Attributes:
        logits: of the classifier, shape (n, classes).
        others: its logits of the same images, changed, where these have to agree with them, shape
            (n, k, classes); k may be 0.
        score: how suspicious an image is, shape (n,).
    """

    logits: Logits
    others: Tensor
    score: PerImage


Judge = Callable[[Images], Judged]


class Detector(NamedTuple):
    """A way to notice attacked slices: what it is, and (classifier, batches of the training slices
    with their labels) to a judge.
    """

    title: str
    paper: str
    fit: Callable[[Classifier, Iterable[tuple[Images, Labels]]], Judge]


def reduce_depth(images: Images, bits: int) -> Images:
    """Images rounded to 2^bits grey values; the gradient passes as if they were not.

    Reference: Xu et al. 2018, Sec. II.C.1; Athalye et al. 2018, Sec. 4.1 (BPDA), for the gradient.

    >>> reduce_depth(torch.tensor([[[[0.2, 0.6]]]]), bits=1)
    tensor([[[[0., 1.]]]])
    """
    most = 2**bits - 1
    rounded: Images = torch.round(images * most) / most
    return images + (rounded - images).detach()


def smooth_median(images: Images, window: int) -> Images:
    """The median over a window around each pixel, of an even window the upper one, with mirrored
    borders; the gradient goes to the pixel that was picked.

    Reference: Xu et al. 2018, Sec. II.C.2, by scipy's `median_filter`.
    """
    patches = _mirrored(images, window).unfold(2, window, 1).unfold(3, window, 1).flatten(4)
    return patches.sort(-1).values[..., window * window // 2]


def _mirrored(images: Images, window: int) -> Images:
    """Borders repeated as in a mirror that stands on the edge, as scipy does."""
    before, after = window // 2, window - 1 - window // 2
    for axis in (2, 3):
        n = images.shape[axis]
        first = images.narrow(axis, 0, before).flip(axis)
        last = images.narrow(axis, n - after, after).flip(axis)
        images = torch.cat([first, images, last], axis)
    return images


@dataclass(frozen=True)
class FeatureSqueezing:
    """How far the answer moves when the image is squeezed: the largest l1 distance between the
    probabilities of the image and of each squeezed one, from 0 to 2.

    Args:
        classifier: in evaluation mode.
        bits: grey values are 2^bits.
        window: side of the median, in pixels.

    Reference: Xu et al. 2018, Sec. V, with the two squeezers that they use for ImageNet beside the
    non-local means.
    """

    classifier: nn.Module
    bits: int = 5
    window: int = 2

    def __call__(self, images: Images) -> Judged:
        """See `Judged`."""
        logits = self.classifier(images).float()
        squeezed = (reduce_depth(images, self.bits), smooth_median(images, self.window))
        others = [self.classifier(one).float() for one in squeezed]
        before = probabilities(logits)
        moved = torch.stack([(probabilities(one) - before).abs().sum(1) for one in others], 1)
        return Judged(logits, torch.stack(others, 1), moved.amax(1))


@dataclass(frozen=True)
class FeatureDistance:
    """How far the features before the last layer lie from those of the nearest class: Mahalanobis'
    distance, squared, with one covariance for all classes.

    Args:
        classifier: in evaluation mode.
        layer: the last one, whose input are the features.
        whitening: turns features into ones of unit covariance, shape (d, d).
        centres: mean feature of each class, whitened, shape (classes, d).

    Reference: Lee et al. 2018, Sec. 2.1, without their ensemble of layers and without the noise
    that they add to the image.
    """

    classifier: nn.Module
    layer: nn.Linear
    whitening: Tensor
    centres: Tensor

    def __call__(self, images: Images) -> Judged:
        """See `Judged`."""
        logits, features = features_at(self.classifier, self.layer, images)
        white = features.to(self.whitening) @ self.whitening.T
        score = (white[:, None] - self.centres[None]).square().sum(2).amin(1)
        return Judged(logits.float(), logits.new_empty(len(logits), 0, logits.shape[1]), score)


def fit_distance(
    classifier: Classifier, batches: Iterable[tuple[Images, Labels]]
) -> FeatureDistance:
    """The mean of each class and the covariance around them, shrunk (`shrunk_covariance`).

    Raises:
        SettingsError: the classifier has no last linear layer.
    """
    layer = last_linear(classifier)
    found = []
    with torch.no_grad():
        for images, labels in batches:
            found.append((features_at(classifier, layer, images)[1].double(), labels))
    features, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    known, of = labels.unique(return_inverse=True)
    means = torch.stack([features[labels == one].mean(0) for one in known])
    covariance = shrunk_covariance(features - means[of])
    inverse_root = torch.linalg.inv(torch.linalg.cholesky(covariance))
    centres = means @ inverse_root.T
    return FeatureDistance(classifier, layer, inverse_root.float(), centres.float())


def shrunk_covariance(centred: Tensor) -> Tensor:
    """Covariance of features of mean 0, shape (n, d), drawn towards a multiple of the identity as
    far as it is uncertain: there may be more features than slices.

    Reference: Ledoit & Wolf 2004, Sec. 3.2.
    """
    n, d = centred.shape
    empirical = centred.T @ centred / n
    level = empirical.trace() / d
    spread = (empirical - level * torch.eye(d).to(empirical)).square().sum()
    squares = centred.square()
    noise = ((squares.T @ squares).sum() / n - empirical.square().sum()) / n
    part = float((noise / spread).clamp(0, 1)) if spread > 0 else 1.0
    floor = max(float(level), 1e-12) * 1e-6  # So that it can be inverted whatever came.
    return (1 - part) * empirical + (part * level + floor) * torch.eye(d).to(empirical)


def last_linear(classifier: Classifier) -> nn.Linear:
    """The layer that gives the outputs.

    Raises:
        SettingsError: none of torch's is run last.
    """
    ran: list[nn.Linear] = []
    layers = [one for one in classifier.modules() if isinstance(one, nn.Linear)]
    hooks = [one.register_forward_hook(lambda layer, *_: ran.append(layer)) for one in layers]
    device = device_of(classifier)
    try:
        with torch.no_grad():
            classifier(torch.zeros(1, *classifier.spec.shape, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    if not ran or ran[-1].out_features not in (1, len(classifier.classes)):
        raise SettingsError(
            f"{classifier.spec.backbone} has no last linear layer whose features could be told "
            "apart. Leave mahalanobis out: --detectors feature-squeezing."
        )
    return ran[-1]


def features_at(classifier: nn.Module, layer: nn.Linear, images: Images) -> tuple[Logits, Tensor]:
    """Logits, and what goes into that layer, shape (n, d)."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append(inputs[0])

    hook = layer.register_forward_pre_hook(keep)
    try:
        logits = classifier(images)
    finally:
        hook.remove()
    return logits, seen[-1].reshape(len(images), -1)


def calibrate(scores: Tensor, rate: float) -> float:
    """The score above which there is alarm, so that of slices like these at most a share `rate`
    raises one: the k-th smallest of n scores with k = ceil((n + 1) (1 - rate)).

    Reference: Vovk et al. 2005, Sec. 2.2 (conformal prediction), for the k.

    >>> calibrate(torch.arange(1.0, 20.0), 0.05)
    19.0
    """
    place = math.ceil((len(scores) + 1) * (1 - rate) - 1e-9)
    if place > len(scores):
        raise DataError(
            f"a share of {rate:g} false alarms is set by {fewest(rate)} slices or more, the "
            f"validation set has {len(scores)}. Raise it (--set evaluate.false_alarms=0.1), or "
            "split again with more validation patients."
        )
    return float(scores.sort().values[place - 1])


def fewest(rate: float) -> int:
    """How many slices it takes to set such a share."""
    return math.ceil(1 / rate - 1e-9) - 1


DETECTORS = {
    "feature-squeezing": Detector(
        "Feature squeezing",
        "Xu et al. 2018",
        lambda classifier, _: FeatureSqueezing(classifier),
    ),
    "mahalanobis": Detector(
        "Mahalanobis distance of the features", "Lee et al. 2018", fit_distance
    ),
}
