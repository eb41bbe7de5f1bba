"""The threat model: the set S(x) that an attack may search, and what counts as success."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robustmri.core.arrays import Images, Labels, Logits
from robustmri.core.errors import ThreatModelError
from robustmri.threat.eps import Eps, check_eps, parse_eps
from robustmri.threat.norms import Norm, Radius, find_norm

HALVES = (torch.float16, torch.bfloat16)
FLOATS = (*HALVES, torch.float32, torch.float64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class ThreatModel:
    """All images within `eps` of the original that stay in `bounds` and differ from it only where
    `mask` allows.

    Args:
        norm: "linf", "l2", "l1", or "l0" for attacks made for it.
        eps: radius in image units (a fraction of the [0, 1] range), a number or a text such as
            "8/255", or one radius per image, shape (n,); infinite for attacks that look for the
            nearest fooling image.
        bounds: grey values that an image may have.
        target: class that the attacker wants to see; None: any wrong class will do.
        mask: where pixels may change, True or 1; broadcasts to the images. None: everywhere.
    """

    norm: str = "linf"
    eps: Radius = 8 / 255
    bounds: tuple[float, float] = (0.0, 1.0)
    target: int | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        find_norm(self.norm)
        object.__setattr__(self, "bounds", _read_bounds(self.bounds))
        object.__setattr__(self, "target", read_target(self.target))
        if not isinstance(self.eps, Tensor):
            object.__setattr__(self, "eps", self._radius(self.eps))

    def _radius(self, said: float | str | Eps) -> float:
        """The radius as a number in image units.

        Raises:
            ThreatModelError: it is none, or in normalised units, or more than the grey values span.
        """
        if isinstance(said, float) and said == math.inf:
            return said
        eps = parse_eps(said)
        if eps.units == "normalised":
            raise ThreatModelError(
                f"eps {eps} needs the standard deviation that the classifier divides by: give "
                "Eps.in_image_units(std)."
            )
        if self.bounds == (0.0, 1.0) and self.norm != "l0":  # Whose attacks have no radius.
            check_eps(eps, self.norm)
        elif self.measure.per_pixel and eps.value > self.bounds[1] - self.bounds[0]:
            raise ThreatModelError(f"eps {eps} is more than the bounds {self.bounds} span.")
        return eps.value

    @property
    def measure(self) -> Norm:
        """The norm, with its operations."""
        return find_norm(self.norm)

    def check(self, images: Images, labels: Labels) -> None:
        """Refuse images and labels that no attack could be honest about.

        Raises:
            ThreatModelError: shapes or types that do not belong together, values that are not
                finite or lie outside the bounds.
        """
        for what, given in (("images", images), ("labels", labels)):
            _check_dense(what, given)
        if images.dim() < 3 or labels.shape != images.shape[:1]:
            raise ThreatModelError(
                "expected images (n, channels, ...) and labels (n,), got "
                f"{tuple(images.shape)} and {tuple(labels.shape)}."
            )
        if images.dtype not in FLOATS or labels.dtype not in INTEGERS:
            raise ThreatModelError(
                f"expected floating-point images and integer labels, got {images.dtype} and "
                f"{labels.dtype}. Divide 8-bit images by 255."
            )
        self._check_shapes(images)
        if not len(images):
            return
        if not images.numel():
            raise ThreatModelError(f"images of shape {tuple(images.shape)} have no pixels.")
        if int(labels.min()) < 0:
            raise ThreatModelError(
                f"labels must be class indexes of at least 0, got {int(labels.min())}."
            )
        low, high = self.bounds
        lowest, highest = images.min().item(), images.max().item()
        if not torch.isfinite(images).all():
            raise ThreatModelError(
                "images hold NaN or infinite values. Leave such slices out of the cohort."
            )
        if lowest < low or highest > high:
            raise ThreatModelError(
                f"images must lie in [{low}, {high}], got [{lowest:.3g}, {highest:.3g}]. If these "
                "are z-scored, give the mean and std to Classifier(...) instead, so that eps "
                "keeps its meaning in image units."
            )

    def _check_shapes(self, images: Images) -> None:
        """Refuse radii and a mask that do not belong to a batch like `images`."""
        eps, mask, shape = self.eps, self.mask, tuple(images.shape)
        if isinstance(eps, Tensor):
            self._check_radii(eps, shape)
        if mask is None:
            return
        _check_dense("the mask", mask)
        axes = zip(reversed(mask.shape), reversed(shape), strict=False)
        fits = mask.dim() <= len(shape) and all(size in (1, own) for size, own in axes)
        several = mask.dim() == len(shape) and len(mask) > 1
        if not fits or several != self._mask_per_image():
            raise ThreatModelError(
                f"a mask of shape {tuple(mask.shape)} does not fit images of shape {shape}. Give "
                "it the shape of the images; the first axis may be of length 1."
            )
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ThreatModelError(
                "a mask holds True or 1 where pixels may change, and False or 0 elsewhere; this "
                "one holds other values. Give mask > 0, or the like."
            )

    def _check_radii(self, eps: Tensor, shape: tuple[int, ...]) -> None:
        """Refuse radii that no batch of this shape can have."""
        _check_dense("eps", eps)
        real = eps.dtype in (*FLOATS, *INTEGERS)
        if not real or (eps.dim() and eps.shape != shape[:1]) or not bool((eps >= 0).all()):
            raise ThreatModelError(
                f"eps must be one radius of at least 0 per image of {shape}, got {eps}."
            )
        span = self.bounds[1] - self.bounds[0]
        if self.measure.per_pixel and bool((torch.isfinite(eps) & (eps > span)).any()):
            raise ThreatModelError(
                f"eps {float(eps.max()):g} is more than the bounds {self.bounds} span. Write a "
                "fraction of the [0, 1] range, such as 0.04 or 8/255."
            )

    def _mask_per_image(self) -> bool:
        """Whether each image has a mask of its own, told from the mask alone: `at` sees no
        images.
        """
        return self.mask is not None and self.mask.dim() > 3 and len(self.mask) > 1

    def check_radius(self) -> None:
        """Refuse an infinite radius, for attacks whose steps are a fraction of it.

        Raises:
            ThreatModelError: eps is infinite.
        """
        if not bool(torch.isfinite(torch.as_tensor(self.eps)).all()):
            raise ThreatModelError(
                f"this attack needs a finite eps, got {self.eps}. Only minimal attacks do without."
            )

    def check_norm(self, *norms: str) -> None:
        """Refuse a norm that an attack does not know.

        Raises:
            ThreatModelError: another norm than `norms`.
        """
        if self.norm not in norms:
            raise ThreatModelError(
                f"this attack knows the norms {', '.join(norms)}, got {self.norm}."
            )

    def allow(self, delta: Images) -> Images:
        """`delta` with the pixels outside the mask set to zero."""
        return delta if self.mask is None else delta * self.mask.to(delta)

    def project(self, points: Images, images: Images) -> Images:
        """Points of S(images) near `points`: inside the mask, the ball and the bounds, in that
        order.

        The last clip keeps the ball: it moves every pixel towards the original, which lies within
        the bounds. In half precision the nearest number may lie outside the ball: the points are
        found in float32, and rounded towards the image.
        """
        if points.dtype in HALVES:
            inside = self.project(points.float(), images.float())
            return round_towards(inside, images)
        low, high = self.bounds
        delta = self.measure.project(
            self.allow(points - images), self.eps, (low - images, high - images)
        )
        return (images + delta).clamp(*self.bounds)

    def fooled(self, logits: Logits, labels: Labels, confidence: float = 0.0) -> Tensor:
        """Which images the attacker has won, shape (n,): a wrong class, or the target where it is
        not the true one.

        With `confidence`, only where the attacker would still win were the true class (for a
        target: the target) so many logits better off (worse off). Logits that are not finite count
        as not fooled: they are a broken classifier, not a success.
        """
        if confidence:
            column = labels if self.target is None else torch.full_like(labels, self.target)
            lead = confidence if self.target is None else -confidence
            logits = logits.scatter_add(1, column[:, None], torch.full_like(logits[:, :1], lead))
        predicted = logits.argmax(1)
        won = (
            predicted != labels
            if self.target is None
            else (predicted == self.target) & (labels != self.target)
        )
        return won & torch.isfinite(logits).all(1)

    def at(self, rows: Tensor) -> ThreatModel:
        """The same threat for a part of the batch; `rows` indexes images."""
        eps = self.eps[rows] if isinstance(self.eps, Tensor) and self.eps.dim() else self.eps
        mask = self.mask[rows] if self.mask is not None and self._mask_per_image() else self.mask
        return replace(self, eps=eps, mask=mask)


def read_target(said: Any) -> int | None:
    """The index of the class that an attacker wants to see; None where any wrong one will do.

    Raises:
        ThreatModelError: it is no index.
    """
    if said is None:
        return None
    try:
        target = -1 if isinstance(said, bool) else operator.index(said)
    except (TypeError, ValueError, RuntimeError):
        target = -1
    if not 0 <= target < 1 << 31:
        raise ThreatModelError(f"the target must be the index of a class, got {said!r}.")
    return target


def _read_bounds(said: Any) -> tuple[float, float]:
    """The lowest and the highest grey value, as numbers."""
    try:
        low, high = map(float, said)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        low, high = math.nan, math.nan
    if isinstance(said, str) or not -math.inf < low < high < math.inf:
        raise ThreatModelError(f"bounds must be the lowest and the highest grey value, got {said}.")
    return low, high


def _check_dense(what: str, given: Any) -> None:
    """Refuse what is no tensor, or one without a value in each place."""
    if not isinstance(given, Tensor):
        raise ThreatModelError(
            f"expected {what} as a torch.Tensor, got {type(given).__name__}. Use "
            "torch.as_tensor(...); images with dtype=torch.float32."
        )
    if given.layout != torch.strided or given.is_meta:
        kind = "a tensor without values" if given.is_meta else f"a tensor of layout {given.layout}"
        raise ThreatModelError(
            f"expected {what} as a plain torch.Tensor, got {kind}. Make it one, for instance by "
            "to_dense()."
        )


def round_towards(points: Tensor, images: Images) -> Images:
    """`points` in the half precision of `images`, no pixel further from its image than it was.

    >>> image, point = torch.zeros(1, dtype=torch.bfloat16), torch.tensor([8 / 255])
    >>> float(point.bfloat16() - image) > 8 / 255, float(round_towards(point, image)) <= 8 / 255
    (True, True)
    """
    rounded, originals = points.to(images.dtype), images.float()
    away = (rounded.float() - originals).abs() > (points - originals).abs()
    # As integers, the halves of one sign stand in the order of their size.
    bits = rounded.view(torch.int16)
    grows = (rounded < images) == (rounded >= 0)
    step = torch.where(grows, 1, -1).to(torch.int16)
    nearer = torch.where(rounded == 0, images, (bits + step).view(images.dtype))
    return torch.where(away, nearer, rounded)
