"""Three tumours: where each grows, how it pushes the brain aside, and how it takes up contrast
agent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from robustmri.data.phantom.brain import above_tentorium, cerebrum, skull_cavity
from robustmri.data.phantom.canvas import Canvas
from robustmri.data.phantom.head import mirrored
from robustmri.data.phantom.shapes import (
    Array,
    Point,
    Waves,
    ellipsoid,
    frame_along,
    intersect,
    merge,
    push_along,
)

# Shares of patients.
MENINGIOMA_SITES = ("convexity", "falx", "wing", "planum", "tentorium", "angle")
MENINGIOMA_SHARES = (0.66, 0.09, 0.1, 0.08, 0.04, 0.03)
MENINGIOMA_OEDEMA = 0.2
CEREBELLAR_GLIOMA = 0.07
SOLID_GLIOMA = 0.04
FAINT_GLIOMA = 0.05
CYSTIC_ADENOMA = 0.15

ADENOMA_RADIUS_MM = (9, 14)


class Lesion(Protocol):
    """A tumour in the standard head."""

    @property
    def centre(self) -> Point:
        """A point well inside, mm."""

    @property
    def radius_mm(self) -> float:
        """Half of its usual extent."""

    def displace(self, points: Array) -> Array:
        """Where the brain tissue now at `points` would lie without the tumour."""

    def outline(self, points: Array, cavity: Array, brain: Array) -> Array:
        """Distance to the tumour, necrosis included and oedema left out, as a radiologist draws it.

        Args:
            points: mm in the standard head, shape (3, n).
            cavity: distance to the inside of the skull.
            brain: distance to the brain, pushed aside as it is.
        """

    def paint(
        self, canvas: Canvas, outline: Array, cavity: Array, brain: Array, white: Array
    ) -> None:
        """Paint it over the finished head; `white` is the share of white matter at each point."""


def draw_lesion(label: str, rng: np.random.Generator) -> Lesion:
    """A random tumour of one of the three kinds."""
    draw: dict[str, Callable[[np.random.Generator], Lesion]] = {
        "meningioma": draw_meningioma,
        "glioma": draw_glioma,
        "pituitary": draw_adenoma,
    }
    return draw[label](rng)


@dataclass(frozen=True)
class Meningioma:
    """Extra-axial, on the dura with a broad base, homogeneous and bright, a dural tail at its
    rim.
    """

    centre: Point
    base: Point
    frame: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]
    radius_mm: float
    surface: Waves
    tail_mm: float
    oedema_mm: float
    amount: float
    patchiness: float

    def displace(self, points: Array) -> Array:
        """Press the cortex inwards, away from the dura."""
        height = float(self.axes[2] + (self.base - self.centre) @ self.frame[2]) + 1.0
        return push_along(points, self.base, self.frame[2], max(height, 4.0), self.radius_mm)

    def outline(self, points: Array, cavity: Array, brain: Array) -> Array:
        """A lump cut off by the dura."""
        local = self.frame @ (points - self.centre[:, None])
        lump = ellipsoid(local, (0, 0, 0), self.axes) + np.float32(
            0.07 * self.radius_mm
        ) * self.surface(points)
        return intersect(lump, cavity + np.float32(0.5))

    def paint(
        self, canvas: Canvas, outline: Array, cavity: Array, brain: Array, white: Array
    ) -> None:
        """Oedema if any, a cleft of CSF, the dural tail, the tumour."""
        texture = self.surface(canvas.points)
        canvas.paint("oedema", outline - self.oedema_mm - 2 * texture, white)
        canvas.paint("csf", np.maximum(outline - 1.6, cavity + 0.5), 0.7)
        canvas.paint("dura", np.maximum(np.abs(cavity + 0.8) - 1.0, outline - self.tail_mm))
        canvas.paint(
            "meningioma",
            outline,
            self.amount * (1 - self.patchiness * np.clip(texture - 0.3, 0, 1)),
        )


def draw_meningioma(rng: np.random.Generator) -> Meningioma:
    """Convexity in most patients; else falx, wing of the sphenoid, planum near the sella,
    tentorium, angle.
    """
    radius = float(rng.uniform(16, 26))
    side = rng.choice([-1.0, 1.0])
    site = rng.choice(MENINGIOMA_SITES, p=MENINGIOMA_SHARES)
    base, normal = (
        _convexity_site(rng) if site == "convexity" else _basal_site(str(site), side, rng)
    )
    if site in ("planum", "angle"):
        radius = float(rng.uniform(12, 19))
    normal = normal / np.linalg.norm(normal)
    axes = radius * np.exp(rng.normal(0, 0.12, size=3)) * np.array([1.08, 1.0, 0.9])
    centre = base - normal * axes[2] * rng.uniform(0.35, 0.75)
    return Meningioma(
        centre=centre.astype(np.float32),
        base=base.astype(np.float32),
        frame=frame_along(normal, rng),
        axes=axes.astype(np.float32),
        radius_mm=radius,
        surface=Waves(rng, 1.2 * radius, count=14),
        tail_mm=float(rng.uniform(2, 8)),
        oedema_mm=float(
            rng.choice(
                [-4.0, rng.uniform(3, 9)],
                p=[1 - MENINGIOMA_OEDEMA, MENINGIOMA_OEDEMA],
            )
        ),
        amount=float(rng.uniform(0.85, 1.0)),
        patchiness=float(rng.choice([0.12, 0.5], p=[0.92, 0.08])),
    )


def _basal_site(
    site: str, side: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """A point of the falx, the tentorium or the skull's base on one side, and the normal out of the
    brain there.
    """
    low, high, normal = {
        "falx": ((0, -55, 28), (0, 50, 46), (-1, 0, 0.15)),
        "wing": ((28, 30, -26), (44, 38, -16), (0.2, 0.8, -0.6)),
        "planum": ((0, 26, -22), (8, 48, -22), (0, 0.1, -1)),
        "tentorium": ((18, -60, -12), (36, -35, -12), (0.4, 0, -0.9)),
        "angle": ((26, -16, -42), (36, -8, -32), (0.8, 0.55, 0.1)),
    }[site]
    mirror = np.array([side, 1, 1])
    return rng.uniform(low, high) * mirror, np.array(normal) * mirror


def _convexity_site(
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """A point of the dura over the convexity and the outward normal there."""
    direction = rng.normal(size=3) * np.array([1.0, 1.1, 1.0])
    direction[2] = abs(direction[2]) - 0.25
    direction /= np.linalg.norm(direction)
    reach = np.linspace(30, 100, 141, dtype=np.float32)
    start = np.array([[0.0], [-2.0], [8.0]])
    ray = (start + direction[:, None] * reach).astype(np.float32)
    base = ray[:, int(np.argmin(np.abs(skull_cavity(mirrored(ray)))))]
    steps = np.concatenate([np.eye(3), -np.eye(3)], axis=1).astype(np.float32)
    around = skull_cavity(mirrored(base[:, None] + steps))
    return base, around[:3] - around[3:]


@dataclass(frozen=True)
class Glioma:
    """Intra-axial, irregular; an enhancing ring about a necrotic core, oedema along the white
    matter.
    """

    centre: Point
    frame: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]
    radius_mm: float
    surface: Waves
    detail: Waves
    roughness_mm: float
    ring_mm: float
    oedema_mm: float
    amount: float
    swelling: float

    def displace(self, points: Array) -> Array:
        """Push tissue outwards; less than the tumour's volume, for it also infiltrates."""
        offset = points - self.centre[:, None]
        distance = np.sqrt((offset * offset).sum(0)) + np.float32(1e-3)
        source = np.cbrt(np.maximum(distance**3 - np.float32(self.swelling * self.radius_mm**3), 0))
        moved: Array = self.centre[:, None] + offset * (source / distance)
        return moved

    def outline(self, points: Array, cavity: Array, brain: Array) -> Array:
        """An uneven lump that stays within the brain."""
        local = self.frame @ (points - self.centre[:, None])
        uneven = np.float32(self.roughness_mm) * (self.surface(points) + 0.2 * self.detail(points))
        lump = ellipsoid(local, (0, 0, 0), self.axes) + uneven
        return intersect(lump, brain - np.float32(0.5))

    def paint(
        self, canvas: Canvas, outline: Array, cavity: Array, brain: Array, white: Array
    ) -> None:
        """Oedema, infiltrated brain, necrotic core, and the ring with its gaps and uneven width."""
        lumps, detail = self.surface(canvas.points), self.detail(canvas.points)
        fingers = outline - self.oedema_mm * (1 + 0.45 * detail - 0.3 * lumps)
        fading = np.clip(1 - outline / (2.2 * self.oedema_mm + 1), 0.3, 1)
        canvas.paint("oedema", intersect(fingers, brain), (0.35 + 0.65 * white) * fading)
        canvas.paint("infiltrated", outline)
        width = self.ring_mm * np.clip(1 + 0.3 * detail + 0.35 * lumps, 0.25, None)
        canvas.paint("necrosis", outline + width)
        uptake = self.amount * np.clip(0.95 + 0.3 * detail, 0.35, 1)
        canvas.paint("glioma", intersect(outline, -outline - width), uptake)


def draw_glioma(rng: np.random.Generator) -> Glioma:
    """Anywhere in the cerebrum, now and then in a cerebellar hemisphere; some reach the cortex."""
    radius = float(rng.uniform(15, 25))
    if rng.random() < CEREBELLAR_GLIOMA:
        radius = min(radius, 15.0)
        centre = np.array(
            [
                rng.choice([-1, 1]) * rng.uniform(14, 26),
                rng.uniform(-50, -38),
                rng.uniform(-42, -34),
            ]
        )
    else:
        centre = _cerebral_site(radius, rng)
    solid = rng.random() < SOLID_GLIOMA
    faint = rng.random() < FAINT_GLIOMA
    return Glioma(
        centre=centre.astype(np.float32),
        frame=frame_along(rng.normal(size=3), rng),
        axes=(radius * np.exp(rng.normal(0, 0.2, size=3))).astype(np.float32),
        radius_mm=radius,
        surface=Waves(rng, 1.5 * radius, count=14),
        detail=Waves(rng, 9, count=20, spread=0.5),
        roughness_mm=0.17 * radius,
        ring_mm=float(rng.uniform(0.7, 1.0) * radius if solid else rng.uniform(3.5, 6.5)),
        oedema_mm=float(rng.uniform(5, 15)),
        amount=float(rng.uniform(0.4, 0.6) if faint else rng.uniform(0.85, 1.0)),
        swelling=float(rng.uniform(0.2, 0.5)),
    )


def _cerebral_site(radius_mm: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A random place in the cerebrum whose depth is between a fraction of the radius and 40 mm."""
    while True:
        place = rng.uniform((-55, -70, -35), (55, 70, 58))
        point = mirrored(place[:, None].astype(np.float32))
        depth = -float(cerebrum(point, 2.5)[0])
        if 0.75 * radius_mm < depth < 40 and float(above_tentorium(point)[0]) < -4:
            return place


@dataclass(frozen=True)
class Adenoma:
    """Sellar, on the midline, small; fills the sella and often bulges up through it with a
    waist.
    """

    centre: Point
    axes: npt.NDArray[np.float32]
    top: Point
    top_axes: npt.NDArray[np.float32]
    radius_mm: float
    surface: Waves
    amount: float
    cyst_mm: float

    def displace(self, points: Array) -> Array:
        """Lift the chiasm and the floor of the third ventricle."""
        height = float(self.top[2] + self.top_axes[2]) + 27.0
        if height <= 0:
            return points
        base = np.array([self.top[0], self.top[1], -27], np.float32)
        return push_along(
            points, base, np.array([0, 0, -1], np.float32), height + 1.5, self.radius_mm
        )

    def outline(self, points: Array, cavity: Array, brain: Array) -> Array:
        """Two lobes, one in the sella and one above it."""
        lobes = merge(
            ellipsoid(points, self.centre, self.axes), ellipsoid(points, self.top, self.top_axes), 4
        )
        return lobes + np.float32(0.05 * self.radius_mm) * self.surface(points)

    def paint(
        self, canvas: Canvas, outline: Array, cavity: Array, brain: Array, white: Array
    ) -> None:
        """Thinned bone of the sella's floor, the tumour, a cyst if any."""
        texture = self.surface(canvas.points)
        canvas.paint("bone", np.maximum(outline - 1.5, canvas.points[2] + 33), 0.7)
        canvas.paint("csf", np.maximum(outline - 1.8, -28 - canvas.points[2]), 0.8)
        canvas.paint("adenoma", outline, self.amount * (1 - 0.2 * np.clip(texture, 0, 1)))
        canvas.paint(
            "necrosis",
            ellipsoid(canvas.points, self.top, self.top_axes) + self.top_axes.min() - self.cyst_mm,
            0.8,
        )


def draw_adenoma(rng: np.random.Generator) -> Adenoma:
    """Macroadenoma, 18 to 28 mm wide, with or without a suprasellar part."""
    radius = float(rng.uniform(*ADENOMA_RADIUS_MM))
    centre = np.array([rng.normal(0, 1.5), 20 + rng.normal(0, 1), -36.5 + 0.25 * radius])
    axes = radius * np.array([1.05, 0.85, 0.85]) * np.exp(rng.normal(0, 0.1, size=3))
    rise = radius * rng.uniform(0.2, 1.25)
    top = centre + np.array([rng.normal(0, 1.5), rng.normal(-1, 1), rise])
    return Adenoma(
        centre=centre.astype(np.float32),
        axes=axes.astype(np.float32),
        top=top.astype(np.float32),
        top_axes=(radius * rng.uniform(0.65, 0.95) * np.exp(rng.normal(0, 0.08, size=3))).astype(
            np.float32
        ),
        radius_mm=radius,
        surface=Waves(rng, 1.3 * radius, count=14),
        amount=float(rng.uniform(0.85, 1.0)),
        cyst_mm=float(
            rng.choice([-3.0, rng.uniform(1, 4)], p=[1 - CYSTIC_ADENOMA, CYSTIC_ADENOMA])
        ),
    )
