"""What a scanner, a patient or a sticker may do to a slice: transforms with a few numbers, each in
[-1, 1], that gradients pass through.

`eps` says in the transform's own unit how much the numbers may do; with eps 0, and with all
numbers 0 (but for the patch), an image stays as it is, to the last bit.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from robustmri.core.arrays import Images
from robustmri.core.errors import ThreatModelError, did_you_mean


class Transform(Protocol):
    """A change of a slice that a few numbers describe."""

    @property
    def name(self) -> str:
        """Short name, as on the command line."""

    @property
    def title(self) -> str:
        """As a sentence has it."""

    @property
    def meaning(self) -> str:
        """What eps is, in a few words, for an axis."""

    @property
    def unit(self) -> str:
        """What a number for eps counts; empty where it is a mere number."""

    @property
    def usual(self) -> float:
        """An eps that occurs in practice, where none is given."""

    @property
    def largest(self) -> float:
        """The largest eps that makes sense."""

    def explain(self, eps: float) -> str:
        """What may happen to a slice within `eps`, in a sentence."""

    def count(self, size: tuple[int, int], eps: float) -> int:
        """How many numbers describe the change of an image of that height and width."""

    def apply(self, images: Images, values: Tensor, eps: float) -> Images:
        """The images changed, in [0, 1].

        Args:
            images: in [0, 1], shape (n, c, h, w).
            values: in [-1, 1], shape (n, `count`).
            eps: how much they may do.
        """


class BiasField:
    """A smooth gain over the slice, as a receive coil's sensitivity: a product of cosines of up to
    three half-waves along each axis, in the logarithm. What grows above 1 is scaled down as a
    whole, as the preparation of a scan does; nothing is clipped.

    Reference: Sled, Zijdenbos & Evans 1998 (a smooth multiplicative field).
    """

    name = "bias-field"
    title = "bias field"
    meaning = "largest relative change of the gain"
    unit = ""
    usual = 0.3
    largest = 9.0
    half_waves = 3

    def explain(self, eps: float) -> str:
        """See `Transform`."""
        return (
            f"Bias field, eps {eps:g}: a smooth gain (up to three half-waves along each axis) "
            f"between {1 / (1 + eps):.3g} and {1 + eps:.3g} at every pixel; what grew above 1 "
            "is then scaled down as a whole."
        )

    def count(self, size: tuple[int, int], eps: float) -> int:
        """One number for each wave but the constant one."""
        return (self.half_waves + 1) ** 2 - 1

    def apply(self, images: Images, values: Tensor, eps: float) -> Images:
        """See `Transform`."""
        rows, columns = (self._waves(side, images) for side in images.shape[-2:])
        waves = torch.einsum("iy,jx->ijyx", rows, columns).flatten(0, 1)[1:]
        wave = torch.einsum("nk,kyx->nyx", values, waves)[:, None]
        # All fields of these waves that stay within the largest gain, not only sums of small ones.
        wave = wave / _largest(wave.abs()).clamp_min(1.0)
        field = images * (math.log1p(eps) * wave).exp()
        return field / _largest(field).clamp_min(1.0)

    def _waves(self, side: int, like: Tensor) -> Tensor:
        place = (torch.arange(side, device=like.device) + 0.5) / side
        waves = torch.arange(self.half_waves + 1, device=like.device)[:, None]
        return (math.pi * waves * place).cos().to(like.dtype)


class Gamma:
    """Grey values to a power: a nonlinear change of the contrast that keeps black and white.

    Reference: Perez-Garcia et al. 2021, Sec. 2.4 (RandomGamma).
    """

    name = "gamma"
    title = "gamma change"
    meaning = "largest relative change of the exponent"
    unit = ""
    usual = 0.3
    largest = 9.0

    def explain(self, eps: float) -> str:
        """See `Transform`."""
        return (
            f"Gamma, eps {eps:g}: every grey value to the same power, between {1 / (1 + eps):.3g} "
            f"and {1 + eps:.3g}."
        )

    def count(self, size: tuple[int, int], eps: float) -> int:
        """The exponent."""
        return 1

    def apply(self, images: Images, values: Tensor, eps: float) -> Images:
        """See `Transform`."""
        exponent = (math.log1p(eps) * values).exp()[:, :, None, None]
        # As a factor: 0 to a power has no gradient, and x to the power of 1 is not always x.
        return images * images.clamp_min(1e-6) ** (exponent - 1)


class Affine:
    """The head lies otherwise in the scanner: rotated, shifted along both axes, and larger or
    smaller; bilinear interpolation, black outside.

    Reference: Engstrom et al. 2019, Sec. 2 (rotations and translations as a threat).
    """

    name = "affine"
    title = "change of position"
    meaning = "rotation in degrees, shift and scale in %"
    unit = "degrees and %"
    usual = 5.0
    largest = 45.0

    def explain(self, eps: float) -> str:
        """See `Transform`."""
        return (
            f"Position, eps {eps:g}: rotated by at most {eps:g} degrees, shifted by at most "
            f"{eps:g} % of the width along each axis, and scaled by at most {eps:g} %, all at once."
        )

    def count(self, size: tuple[int, int], eps: float) -> int:
        """Rotation, two shifts and the scale."""
        return 4

    def apply(self, images: Images, values: Tensor, eps: float) -> Images:
        """See `Transform`."""
        turn, down, right, larger = (values * eps / 100).unbind(1)
        angle, scale = math.radians(100) * turn, 1 / (1 + larger)
        ratio = images.shape[-2] / images.shape[-1]
        cos, sin = scale * angle.cos(), scale * angle.sin()
        # grid_sample's coordinates run from -1 to 1: a shift by 1 % of the width is one of 0.02.
        matrix = torch.stack(
            [
                torch.stack([cos, -sin * ratio, -2 * right], 1),
                torch.stack([sin / ratio, cos, -2 * down / ratio], 1),
            ],
            1,
        )
        grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
        return _resample(images, grid, values * eps)


class Deformation:
    """Tissue is moved smoothly: each point of a coarse grid by at most eps along each axis, the
    pixels between by cubic B-splines.

    Reference: Rueckert et al. 1999, Eq. 4 (free-form deformation).
    """

    name = "deformation"
    title = "deformation"
    meaning = "largest displacement along an axis in % of the width"
    unit = "% of the width"
    usual = 3.0
    largest = 25.0
    points = 7

    def explain(self, eps: float) -> str:
        """See `Transform`."""
        return (
            f"Deformation, eps {eps:g}: a smooth displacement (cubic B-splines on {self.points} x "
            f"{self.points} points) of at most {eps:g} % of the width along each axis."
        )

    def count(self, size: tuple[int, int], eps: float) -> int:
        """Two numbers for each point."""
        return 2 * self.points**2

    def apply(self, images: Images, values: Tensor, eps: float) -> Images:
        """See `Transform`."""
        n, _, height, width = images.shape
        moves = values.reshape(n, 2, self.points, self.points)
        rows, columns = self._splines(height, images), self._splines(width, images)
        moves = torch.einsum("yi,naij,xj->nyxa", rows, moves, columns)
        still = torch.eye(2, 3, device=images.device, dtype=images.dtype).expand(n, 2, 3)
        grid = F.affine_grid(still, list(images.shape), align_corners=False)
        each = torch.tensor([1.0, width / height], device=images.device, dtype=images.dtype)
        return _resample(images, grid + eps / 50 * each * moves, values * eps)

    def _splines(self, side: int, like: Tensor) -> Tensor:
        """Weight of each point at each pixel; those of a pixel are positive and add up to 1."""
        place = (torch.arange(side, device=like.device) + 0.5) / side * (self.points - 3)
        first = place.floor()
        t = place - first
        weights = torch.stack(
            [
                (1 - t) ** 3,
                3 * t**3 - 6 * t**2 + 4,
                -3 * t**3 + 3 * t**2 + 3 * t + 1,
                t**3,
            ],
            1,
        )
        at = first.long()[:, None] + torch.arange(4, device=like.device)
        spread = torch.zeros(side, self.points, device=like.device)
        return spread.scatter(1, at, weights / 6).to(like.dtype)


class Patch:
    """A square of any grey values somewhere on the slice. Gradients find the values; the place is
    drawn, so that each restart tries another one.

    Reference: Brown et al. 2017; Karmon, Zoran & Goldberg 2018 (a visible patch, kept small).
    """

    name = "patch"
    title = "patch"
    meaning = "side of the square in % of the width"
    unit = "% of the width"
    usual = 10.0
    largest = 100.0

    def explain(self, eps: float) -> str:
        """See `Transform`."""
        return f"Patch, eps {eps:g}: a square with a side of {eps:g} % of the width, any values."

    def count(self, size: tuple[int, int], eps: float) -> int:
        """Two numbers for the place and one for each pixel."""
        return 2 + self._side(size, eps) ** 2

    def apply(self, images: Images, values: Tensor, eps: float) -> Images:
        """See `Transform`."""
        n, size = len(images), images.shape[-2:]
        side = self._side(size, eps)
        free = torch.tensor(size, device=images.device) - side + 1
        share = ((values[:, :2].detach() + 1) / 2 * free).long()
        top, left = torch.minimum(share, free - 1).clamp_min(0).unbind(1)
        along = torch.arange(side, device=images.device)
        number = torch.arange(n, device=images.device)[:, None, None]
        rows, columns = (top[:, None] + along)[:, :, None], (left[:, None] + along)[:, None, :]
        grey = (values[:, 2:].reshape(n, side, side) + 1) / 2
        changed = images.clone()
        # Axes that are indexed come first: (n, side, side, c).
        changed[number, :, rows, columns] = grey[..., None].expand(-1, -1, -1, images.shape[1])
        return changed

    def _side(self, size: tuple[int, int] | torch.Size, eps: float) -> int:
        return min(round(eps / 100 * size[-1]), *size) if eps else 0


TRANSFORMS: dict[str, Transform] = {
    one.name: one for one in (BiasField(), Gamma(), Affine(), Deformation(), Patch())
}
"""Name on the command line to transform, in the order in which a report has them."""


def find_transform(name: str) -> Transform:
    """The transform of that name.

    Raises:
        ThreatModelError: no such transform.
    """
    if not isinstance(name, str) or name not in TRANSFORMS:
        raise ThreatModelError(
            f"There is no physical threat {name!r}. {did_you_mean(name, TRANSFORMS)}"
        )
    return TRANSFORMS[name]


def _largest(images: Tensor) -> Tensor:
    """Largest value of each image, ready to broadcast."""
    return images.amax((1, 2, 3), keepdim=True)


def _resample(images: Images, grid: Tensor, values: Tensor) -> Images:
    """The images at the places of the grid; where nothing moves, the images to the last bit."""
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    still = (values == 0).all(1)[:, None, None, None]
    # Of the two terms the gradient stays, and the rounding of the interpolation does not.
    moved = torch.where(still, images + (moved - moved.detach()), moved)
    return moved.clamp(0.0, 1.0)
