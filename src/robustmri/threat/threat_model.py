"""The threat model: the set S(x) that an attack may search, and what counts as success."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustmri.arrays import Images, Labels, Logits
from robustmri.errors import ThreatModelError
from robustmri.threat.norms import Norm, Radius, find_norm


@dataclass(frozen=True)
class ThreatModel:
    """All images within `eps` of the original that stay in `bounds` and differ from it only where `mask` allows.

    Args:
        norm: "linf" or "l2".
        eps: radius in image units (a fraction of the [0, 1] range), or one radius per image, shape (n,); infinite for
            attacks that look for the nearest fooling image.
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
        if not isinstance(self.eps, Tensor) and not self.eps >= 0:
            raise ThreatModelError(f"eps must be a number of at least 0, got {self.eps}.")

    @property
    def measure(self) -> Norm:
        """The norm, with its operations."""
        return find_norm(self.norm)

    def check(self, images: Images, labels: Labels) -> None:
        """Refuse images and labels that no attack could be honest about.

        Raises:
            ThreatModelError: shapes that do not belong together, values that are not finite or lie outside the bounds.
        """
        if images.dim() < 3 or labels.shape != images.shape[:1]:
            raise ThreatModelError(
                "expected images (n, channels, ...) and labels (n,), got "
                f"{tuple(images.shape)} and {tuple(labels.shape)}."
            )
        if not len(images):
            return
        low, high = self.bounds
        lowest, highest = images.min().item(), images.max().item()
        if not torch.isfinite(images).all():
            raise ThreatModelError("images hold NaN or infinite values. Leave such slices out of the cohort.")
        if lowest < low or highest > high:
            raise ThreatModelError(
                f"images must lie in [{low}, {high}], got [{lowest:.3g}, {highest:.3g}]. If these are z-scored, give "
                "the mean and std to Classifier(...) instead, so that eps keeps its meaning in image units."
            )

    def allow(self, delta: Images) -> Images:
        """`delta` with the pixels outside the mask set to zero."""
        return delta if self.mask is None else delta * self.mask.to(delta.dtype)

    def project(self, points: Images, images: Images) -> Images:
        """Points of S(images) near `points`: inside the mask, the ball and the bounds, in that order.

        The last clip keeps the ball: it moves every pixel towards the original, which lies within the bounds.
        """
        delta = self.measure.project(self.allow(points - images), self.eps)
        return (images + delta).clamp(*self.bounds)

    def fooled(self, logits: Logits, labels: Labels) -> Tensor:
        """Which images the attacker has won, shape (n,): a wrong class, or the target where it is not the true one.

        Logits that are not finite count as not fooled: they are a broken classifier, not a success.
        """
        predicted = logits.argmax(1)
        won = predicted != labels if self.target is None else (predicted == self.target) & (labels != self.target)
        return won & torch.isfinite(logits).all(1)

    def at(self, rows: Tensor) -> ThreatModel:
        """The same threat for a part of the batch; `rows` indexes images."""
        eps = self.eps[rows] if isinstance(self.eps, Tensor) and self.eps.dim() else self.eps
        mask = self.mask
        if mask is not None and mask.dim() > 3 and len(mask) > 1:
            mask = mask[rows]
        return replace(self, eps=eps, mask=mask)
