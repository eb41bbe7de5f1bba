"""Norms: the size of a perturbation, its projection onto a ball, the steepest direction, a random start.

Each works separately on every image of a batch; `eps` is one radius, or one per image.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from robustmri.arrays import Images, PerImage
from robustmri.errors import ThreatModelError, did_you_mean

Radius = float | Tensor


class Norm(Protocol):
    """A way to measure perturbations."""

    @property
    def name(self) -> str:
        """Short name, as on the command line."""

    def size(self, delta: Images) -> PerImage:
        """Size of each perturbation, shape (n,)."""

    def project(self, delta: Images, eps: Radius) -> Images:
        """Nearest perturbation of size at most `eps`."""

    def steepest(self, gradient: Images) -> Images:
        """Direction of size 1 with the largest inner product with `gradient`; zero where the gradient is zero."""

    def random_start(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """One perturbation of size at most 1, shaped like `like`: the pixels of a single image that may change."""


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Values of shape (n,) with as many trailing axes of length 1 as `like` needs to broadcast."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def spread(eps: Radius, like: Tensor) -> Radius:
    """`eps` ready to broadcast against `like`: a number as it is, one radius per image with trailing axes."""
    # In the images' own type: float64 radii would promote float32 images behind the classifier's back.
    return per_image(eps, like).to(like) if isinstance(eps, Tensor) and eps.dim() else eps


class Linf:
    """Largest change of any pixel."""

    name = "linf"

    def size(self, delta: Images) -> PerImage:
        """Largest absolute pixel of each image.

        >>> LINF.size(torch.tensor([[[[0.1, -0.3]]]]))
        tensor([0.3000])
        """
        return delta.flatten(1).abs().amax(1)

    def project(self, delta: Images, eps: Radius) -> Images:
        """Clip every pixel to [-eps, eps]. Reference: Madry et al. 2018, Sec. 2.1."""
        radius = spread(eps, delta)
        if isinstance(radius, Tensor):
            return torch.maximum(-radius, torch.minimum(delta, radius))
        return torch.clamp(delta, -radius, radius)

    def steepest(self, gradient: Images) -> Images:
        """Sign of the gradient. Reference: Goodfellow et al. 2015, Sec. 4."""
        return gradient.sign()

    def random_start(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the cube [-1, 1]."""
        return 2 * torch.rand(like.shape, generator=generator) - 1


class L2:
    """Euclidean length of the change over all pixels of an image."""

    name = "l2"

    def size(self, delta: Images) -> PerImage:
        """Euclidean length of each image's perturbation.

        >>> L2_.size(torch.tensor([[[[3.0, 4.0]]]]))
        tensor([5.])
        """
        length: PerImage = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        return length

    def project(self, delta: Images, eps: Radius) -> Images:
        """Shrink each perturbation that is longer than `eps` to that length.

        >>> L2_.project(torch.tensor([[[[3.0, 4.0]]]]), eps=1.0)
        tensor([[[[0.6000, 0.8000]]]])
        """
        length = per_image(self.size(delta), delta).clamp_min(torch.finfo(delta.dtype).tiny)
        shrink: Tensor = spread(eps, delta) / length
        return delta * shrink.clamp(max=1.0)

    def steepest(self, gradient: Images) -> Images:
        """The gradient, scaled to length 1."""
        # Divide by the largest entry first: squares of gradients below 1e-19 underflow in float32.
        tiny = torch.finfo(gradient.dtype).tiny
        scaled = gradient / per_image(LINF.size(gradient), gradient).clamp_min(tiny)
        return scaled / per_image(self.size(scaled), scaled).clamp_min(tiny)

    def random_start(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the unit ball: a uniform direction, and a radius of density r^(d-1)."""
        direction = torch.randn(like.shape, generator=generator)
        radius = torch.rand((), generator=generator).pow(1.0 / direction.numel())
        start: Tensor = direction * (radius / torch.linalg.vector_norm(direction))
        return start


LINF = Linf()
L2_ = L2()
NORMS: dict[str, Norm] = {"linf": LINF, "l2": L2_}


def find_norm(name: str) -> Norm:
    """The norm of that name.

    Raises:
        ThreatModelError: no such norm.
    """
    if name not in NORMS:
        raise ThreatModelError(f"There is no norm {name!r}. {did_you_mean(name, NORMS)}")
    return NORMS[name]
