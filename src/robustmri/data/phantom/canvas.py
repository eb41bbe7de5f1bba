"""Where tissues are laid over one another, mixed at their edges as in a partial volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from robustmri.data.phantom.shapes import Array, Values, Vector, ellipsoid, tube


class Blob(NamedTuple):
    """An ellipsoid of one tissue."""

    tissue: str
    centre: Vector
    axes: Vector

    def distance(self, points: Array, size: float = 1.0) -> Array:
        """Distance to it, enlarged by `size`."""
        return ellipsoid(points, self.centre, np.asarray(self.axes) * size)

    def corners(self, size: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Lowest and highest corner of the box around it."""
        return np.asarray(self.centre) - np.asarray(self.axes) * size, np.asarray(
            self.centre
        ) + np.asarray(self.axes) * size


class Tube(NamedTuple):
    """A rounded tube of one tissue."""

    tissue: str
    start: Vector
    end: Vector
    radii: tuple[float, float]

    def distance(self, points: Array, size: float = 1.0) -> Array:
        """Distance to it, `size` times as thick."""
        return tube(points, self.start, self.end, (self.radii[0] * size, self.radii[1] * size))

    def corners(self, size: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Lowest and highest corner of the box around it."""
        ends = np.stack([np.asarray(self.start), np.asarray(self.end)])
        return ends.min(0) - max(self.radii) * size, ends.max(0) + max(self.radii) * size


@dataclass
class Canvas:
    """Signal at a set of points while it is being painted.

    Attributes:
        points: millimetres in the standard head (x to the patient's left, y forward, z up), shape
            (3, n).
        levels: signal of each tissue.
        edge_mm: width over which one tissue passes into the next, about a pixel.
    """

    points: Array
    levels: Mapping[str, float]
    edge_mm: float
    signal: Array = field(init=False)

    def __post_init__(self) -> None:
        self.signal = np.zeros(self.points.shape[1], np.float32)

    def coverage(self, distance: Values) -> Array:
        """Share of each point's voxel inside a shape: 1 well inside, 0.5 on the surface, 0
        outside.
        """
        share: Array = np.clip(np.float32(0.5) - distance / np.float32(self.edge_mm), 0, 1)
        return share

    def paint(self, tissue: str, distance: Values, amount: float | Values = 1.0) -> None:
        """Cover what is there by `tissue` inside the shape, all of it or a share `amount`."""
        share = self.coverage(distance) * np.asarray(amount, np.float32)
        self.signal += share * (np.float32(self.levels[tissue]) - self.signal)

    def paint_part(
        self, part: Blob | Tube, points: Array, size: float = 1.0, amount: float = 1.0
    ) -> None:
        """Cover what is there by a part of the standard head, evaluated at `points` near it
        only.
        """
        low, high = part.corners(size)
        near = np.ones(points.shape[1], bool)
        for along, least, most in zip(points, low - self.edge_mm, high + self.edge_mm, strict=True):
            near &= (along > least) & (along < most)
        index = np.flatnonzero(near)
        share = self.coverage(part.distance(points[:, index], size)) * np.float32(amount)
        self.signal[index] += share * (np.float32(self.levels[part.tissue]) - self.signal[index])
