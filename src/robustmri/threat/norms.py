"""Norms: the size of a perturbation, its projection onto a ball, the steepest direction, a random
start, and how a report speaks of it.

Each works separately on every image of a batch; `eps` is one radius, or one per image.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from robustmri.core.arrays import Images, PerImage
from robustmri.core.errors import ThreatModelError, did_you_mean

Radius = float | Tensor
Shape = tuple[int, int, int]
Box = tuple[Tensor, Tensor]
"""Lowest and highest change that the bounds of the grey values leave to each pixel."""


class Norm(Protocol):
    """A way to measure perturbations."""

    @property
    def name(self) -> str:
        """Short name, as on the command line."""

    @property
    def title(self) -> str:
        """As a sentence has it."""

    @property
    def meaning(self) -> str:
        """What its size is, in a few words, for an axis."""

    @property
    def dual(self) -> str:
        """Name of the norm that measures gradients where this one measures changes; empty where no
        direction is the steepest.
        """

    @property
    def per_pixel(self) -> bool:
        """Whether its ball bounds each pixel by itself, so that grey levels can say a radius."""

    @property
    def sparse(self) -> bool:
        """Whether its steepest direction changes the fewest pixels: none of them may be stuck."""

    def explain(self, said: str, eps: float, std: float, shape: Shape) -> str:
        """What an attacker with radius `eps` may change, in a sentence.

        Args:
            said: the radius as it was given.
            eps: the same in image units.
            std: standard deviation that the classifier normalises with.
            shape: channels, height and width of the images.
        """

    def size(self, delta: Images) -> PerImage:
        """Size of each perturbation, shape (n,)."""

    def project(self, delta: Images, eps: Radius, box: Box | None = None) -> Images:
        """Nearest perturbation of size at most `eps`.

        Norms whose ball loses much by a clip afterwards (l1, l0) give the nearest one that lies in
        `box` too, which holds 0.
        """

    def steepest(self, gradient: Images) -> Images:
        """Direction of size 1 with the largest inner product with `gradient`; zero where the
        gradient is zero.
        """

    def random_start(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """One perturbation of size at most 1, shaped like `like`: the pixels of a single image that
        may change.
        """


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Values of shape (n,) with as many trailing axes of length 1 as `like` needs to broadcast."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def broadcast_eps(eps: Radius, like: Tensor) -> Radius:
    """`eps` ready to broadcast against `like`: a number as it is, one radius per image with
    trailing axes.
    """
    # In the images' own type: float64 radii would promote float32 images behind the classifier's
    # back.
    return per_image(eps, like).to(like) if isinstance(eps, Tensor) and eps.dim() else eps


def _all_pixels(shape: Shape) -> str:
    """In words.

    >>> _all_pixels((3, 32, 48))
    'all 32 x 48 pixels in their 3 channels'
    """
    channels, height, width = shape
    return f"all {height} x {width} pixels" + (
        f" in their {channels} channels" if channels > 1 else ""
    )


def count_changed(delta: Images) -> PerImage:
    """Number of values of each image that are not 0, each channel's by itself."""
    return (delta != 0).flatten(1).sum(1).to(delta.dtype)


class LinfNorm:
    """Largest change of any pixel."""

    name = "linf"
    title = "l-infinity"
    meaning = "largest change of any pixel"
    dual = "l1"
    per_pixel = True
    sparse = False

    def explain(self, said: str, eps: float, std: float, shape: Shape) -> str:
        """See `Norm`."""
        value, levels = (
            ("pixel", "grey levels") if shape[0] == 1 else ("colour of a pixel", "levels")
        )
        return (
            f"No {value} changes by more than {said}: {eps:.4g} of the [0, 1] range, "
            f"{255 * eps:.1f} of 255 {levels}, {eps / std:.3g} after normalisation (std {std:g})."
        )

    def size(self, delta: Images) -> PerImage:
        """Largest absolute pixel of each image.

        >>> LINF.size(torch.tensor([[[[0.1, -0.3]]]]))
        tensor([0.3000])
        """
        return delta.flatten(1).abs().amax(1)

    def project(self, delta: Images, eps: Radius, box: Box | None = None) -> Images:
        """Clip every pixel to [-eps, eps]. Reference: Madry et al. 2018, Sec. 2.1."""
        radius = broadcast_eps(eps, delta)
        if isinstance(radius, Tensor):
            return torch.maximum(-radius, torch.minimum(delta, radius))
        return torch.clamp(delta, -radius, radius)

    def steepest(self, gradient: Images) -> Images:
        """Sign of the gradient. Reference: Goodfellow et al. 2015, Sec. 4."""
        return gradient.sign()

    def random_start(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the cube [-1, 1]."""
        return 2 * torch.rand(like.shape, generator=generator) - 1


class L2Norm:
    """Euclidean length of the change over all pixels of an image."""

    name = "l2"
    title = "l2"
    meaning = "l2 size of the change"
    dual = "l2"
    per_pixel = False
    sparse = False

    def explain(self, said: str, eps: float, std: float, shape: Shape) -> str:
        """See `Norm`."""
        levels = "grey levels" if shape[0] == 1 else "levels of each colour"
        return (
            f"The change of {_all_pixels(shape)} together has a Euclidean length of at "
            f"most {said}: {eps:.4g} in units of the [0, 1] range, as much as "
            f"{255 * eps / math.sqrt(math.prod(shape)):.2f} of 255 {levels} on every pixel."
        )

    def size(self, delta: Images) -> PerImage:
        """Euclidean length of each image's perturbation.

        >>> L2.size(torch.tensor([[[[3.0, 4.0]]]]))
        tensor([5.])
        """
        length: PerImage = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        return length

    def project(self, delta: Images, eps: Radius, box: Box | None = None) -> Images:
        """Shrink each perturbation that is longer than `eps` to that length, in float32 to a
        hundred-thousandth less: lengths of many pixels, and their sums with the image, are rounded.

        >>> L2.project(torch.tensor([[[[3.0, 4.0]]]]), eps=1.0)
        tensor([[[[0.6000, 0.8000]]]])
        """
        kind = torch.finfo(delta.dtype)
        length = per_image(self.size(delta), delta).clamp_min(kind.tiny)
        shrink: Tensor = (1 - 84 * kind.eps) * broadcast_eps(eps, delta) / length
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


class L1Norm:
    """Sum of the absolute changes of all pixels: few pixels, changed much."""

    name = "l1"
    title = "l1"
    meaning = "l1 size of the change"
    dual = "linf"
    per_pixel = False
    sparse = True

    def explain(self, said: str, eps: float, std: float, shape: Shape) -> str:
        """See `Norm`."""
        return (
            f"The changes of {_all_pixels(shape)} together, each without its sign, sum to at "
            f"most {said}: {eps:.4g} in units of the [0, 1] range, as much as "
            f"{eps / shape[0]:.4g} pixels from black to white."
        )

    def size(self, delta: Images) -> PerImage:
        """Sum of the absolute pixels of each image.

        >>> L1.size(torch.tensor([[[[3.0, -4.0]]]]))
        tensor([7.])
        """
        return delta.flatten(1).abs().sum(1)

    def project(self, delta: Images, eps: Radius, box: Box | None = None) -> Images:
        """Shrink every pixel towards 0 by the one amount that makes the sum eps, and clip it to the
        box.

        Clipping afterwards instead would waste the part of eps that lies outside the box. The
        amount is found by halving its bracket. Reference: Duchi et al. 2008, Sec. 4; Croce & Hein
        2021, Prop. 2.1, for the box.

        >>> L1.project(torch.tensor([[[[3.0, 4.0, -0.5]]]]), eps=3.0)
        tensor([[[[1.0000, 2.0000, -0.0000]]]])
        """
        low, high = box or (torch.full_like(delta, -torch.inf), torch.full_like(delta, torch.inf))
        clipped = torch.minimum(torch.maximum(delta, low), high)
        # A hundred-thousandth inside: adding the perturbation to the image rounds each of its
        # pixels, and the amount is found by halving.
        whole = torch.as_tensor(eps, dtype=delta.dtype, device=delta.device)
        radius = (1 - 1e-5) * whole.expand(len(delta))
        out = self.size(clipped) > radius
        if not out.any():
            return clipped
        delta, radius = delta[out], radius[out]
        low, high = low.expand_as(clipped)[out], high.expand_as(clipped)[out]
        # How far each pixel goes, and may: the box holds 0, so no pixel changes its sign.
        far, room = delta.abs().flatten(1), torch.where(delta > 0, high, -low).flatten(1)
        nothing = torch.zeros_like(room)
        less, more = torch.zeros_like(radius), LINF.size(delta)
        for _ in range(40):
            middle = (less + more) / 2
            small = (far - middle[:, None]).clamp(nothing, room).sum(1) <= radius
            less, more = torch.where(small, less, middle), torch.where(small, middle, more)
        left = delta.abs().sub_(per_image(more, delta)).clamp_min_(0.0).mul_(delta.sign())
        clipped[out] = torch.minimum(torch.maximum(left, low), high)
        return clipped

    def steepest(self, gradient: Images) -> Images:
        """All of the step on the pixel with the largest gradient; equal ones share it."""
        largest = gradient.abs() == per_image(LINF.size(gradient), gradient)
        return gradient.sign() * largest / per_image(largest.flatten(1).sum(1), gradient)

    def random_start(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in the unit ball: shares of one by exponential spacings with random signs, one
        share left out.
        """
        spacings = -torch.rand(like.numel() + 1, generator=generator).clamp_min(1e-38).log()
        signs = torch.randint(0, 2, (like.numel(),), generator=generator) * 2 - 1
        return (signs * spacings[:-1] / spacings.sum()).reshape(like.shape)


class L0Norm:
    """Number of pixels that changed, however much; only attacks made for it can use it as a
    radius.
    """

    name = "l0"
    title = "l0"
    meaning = "number of pixels that change"
    dual = ""
    per_pixel = False
    sparse = False

    def explain(self, said: str, eps: float, std: float, shape: Shape) -> str:
        """See `Norm`."""
        return f"At most {said} pixels change."

    def size(self, delta: Images) -> PerImage:
        """Number of changed pixels of each image; one of three channels counts once.

        >>> L0.size(torch.tensor([[[[0.3, 0.0, -0.1]]]]))
        tensor([2.])
        """
        return (delta != 0).any(1).flatten(1).sum(1).to(delta.dtype)

    def project(self, delta: Images, eps: Radius, box: Box | None = None) -> Images:
        """Keep the eps pixels that change most, after the clip to the box."""
        if box is not None:
            delta = torch.minimum(torch.maximum(delta, box[0]), box[1])
        much = delta.abs().sum(1, keepdim=True)
        order = much.flatten(1).sort(dim=1, descending=True, stable=True).indices
        # Sorting the order gives each pixel's rank.
        kept = order.argsort(1).reshape(much.shape) + 1 <= broadcast_eps(eps, delta)
        return delta * kept

    def steepest(self, gradient: Images) -> Images:
        """Not there: how far a pixel goes costs nothing, so no direction is the steepest."""
        raise ThreatModelError(
            "the l0 norm has no steepest direction. Use an attack made for it: pgd-l0."
        )

    def random_start(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Not there, for the same reason."""
        raise ThreatModelError(
            "the l0 norm has no random start. Use an attack made for it: pgd-l0."
        )


LINF, L2, L1, L0 = LinfNorm(), L2Norm(), L1Norm(), L0Norm()
NORMS: dict[str, Norm] = {norm.name: norm for norm in (LINF, L2, L1, L0)}
"""Name on the command line to norm, in the order in which a report has them."""
GRADIENT_NORMS = tuple(name for name, norm in NORMS.items() if norm.dual)
"""Those with a steepest direction: an attack by gradients knows them without code of its own."""


def find_norm(name: str) -> Norm:
    """The norm of that name.

    Raises:
        ThreatModelError: no such norm.
    """
    if not isinstance(name, str) or name not in NORMS:
        raise ThreatModelError(f"There is no norm {name!r}. {did_you_mean(name, NORMS)}")
    return NORMS[name]
