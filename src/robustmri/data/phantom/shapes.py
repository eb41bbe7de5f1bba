"""Signed distances in mm (negative inside) and smooth random fields, evaluated at points of shape
(3, n).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Point = npt.NDArray[np.float32]
Values = npt.NDArray[np.floating]
Vector = Sequence[float] | npt.NDArray[np.floating]


def ellipsoid(points: Array, centre: Vector, axes: Vector) -> Array:
    """Distance to an ellipsoid with semi-axes `axes`, to first order: exact on the surface and for
    a sphere.

    >>> point = np.array([[12.0], [0.0], [0.0]], np.float32)
    >>> float(ellipsoid(point, (0, 0, 0), (10, 10, 10))[0].round(3))
    2.0
    """
    shape = (3,) + (1,) * (points.ndim - 1)
    semi = np.asarray(axes, np.float32).reshape(shape)
    scaled = (points - np.asarray(centre, np.float32).reshape(shape)) / semi
    radius = np.sqrt((scaled * scaled).sum(0))
    scaled /= semi
    slope = np.sqrt((scaled * scaled).sum(0))
    # The two small terms keep the quotient at the smallest semi-axis in the very centre, where it
    # would be 0 / 0.
    distance: Array = (
        (radius - 1) * (radius + np.float32(1e-6)) / (slope + np.float32(1e-6) / semi.min())
    )
    return distance


def tube(points: Array, start: Vector, end: Vector, radii: tuple[float, float]) -> Array:
    """Distance to a rounded tube whose radius runs from `radii[0]` at `start` to `radii[1]` at
    `end`.
    """
    shape = (3,) + (1,) * (points.ndim - 1)
    origin = np.asarray(start, np.float32).reshape(shape)
    axis = np.asarray(end, np.float32).reshape(shape) - origin
    offset = points - origin
    along = np.clip((offset * axis).sum(0) / (axis * axis).sum(), 0, 1)
    offset -= along * axis
    distance: Array = np.sqrt((offset * offset).sum(0)) - (radii[0] + (radii[1] - radii[0]) * along)
    return distance


def intersect(first: Values, second: Values) -> Array:
    """What two shapes have in common."""
    common: Array = np.maximum(first, second)
    return common


def merge(first: Array, second: Array, roundness_mm: float) -> Array:
    """Union of two shapes whose crease is filled over `roundness_mm` (polynomial smooth
    minimum).
    """
    overlap = np.maximum(roundness_mm - np.abs(first - second), 0) / np.float32(roundness_mm)
    union: Array = np.minimum(first, second) - overlap * overlap * np.float32(roundness_mm / 4)
    return union


class Waves:
    """Isotropic Gaussian-like random field of zero mean and unit variance: a sum of plane waves.

    Args:
        rng: draws directions, wavelengths and phases.
        wavelength_mm: middle of the band.
        count: number of waves.
        spread: half width of the band, as a fraction of the middle.
    """

    def __init__(
        self, rng: np.random.Generator, wavelength_mm: float, count: int = 24, spread: float = 0.35
    ) -> None:
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = wavelength_mm * rng.uniform(1 - spread, 1 + spread, size=(count, 1))
        self.vectors = (2 * np.pi * directions / lengths).astype(np.float32)
        self.phases = rng.uniform(0, 2 * np.pi, size=(count, 1)).astype(np.float32)
        self.amplitude = np.float32(np.sqrt(2 / count))

    def __call__(self, points: Array) -> Array:
        """Field at each point."""
        field = np.zeros(points.shape[1], np.float32)
        for vector, phase in zip(self.vectors, self.phases, strict=True):
            field += np.cos(vector @ points + phase)
        return field * self.amplitude

    def with_gradient(self, points: Array) -> tuple[Array, Array]:
        """Field, and its gradient per mm, shape (3, n)."""
        field = np.zeros(points.shape[1], np.float32)
        gradient = np.zeros_like(points)
        for vector, phase in zip(self.vectors, self.phases, strict=True):
            angle = vector @ points + phase
            field += np.cos(angle)
            gradient -= np.sin(angle) * vector[:, None]
        return field * self.amplitude, gradient * self.amplitude


def frame_along(
    normal: npt.NDArray[np.floating], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Rotation whose third row points along `normal`; the other two point at random."""
    normal = normal / np.linalg.norm(normal)
    across = np.cross(normal, rng.normal(size=3))
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(normal, across), normal]).astype(np.float32)


def push_along(
    points: Array, base: Point, normal: Point, height_mm: float, radius_mm: float
) -> Array:
    """Press tissue inwards from `base`, by `height_mm` where the tumour sits, less to its sides and
    in the depth.
    """
    offset = points - base[:, None]
    depth = -(normal @ offset)
    across = (offset * offset).sum(0) - depth * depth
    height = np.float32(height_mm) * np.exp(-across / np.float32(1.5 * radius_mm**2))
    # Deeper tissue moves less, never past its neighbour: what is squeezed is the brain below the
    # tumour.
    height = height * np.exp(-np.maximum(depth - height, 0) / np.float32(1.3 * height_mm + 6))
    # Behind the base lie bone, the other side of the falx, or another fossa: they stay.
    height *= depth > 0
    moved: Array = points + normal[:, None] * height
    return moved
