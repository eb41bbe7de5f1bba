"""One patient's head: its size, pose and proportions, the cavity of the skull and everything
outside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustmri.data.phantom.canvas import Blob, Canvas, Tube
from robustmri.data.phantom.shapes import Array, Vector, Waves, ellipsoid, merge, tube

# The standard head, mm; origin between thalami, x to the left, y forward, z up. Later parts cover
# earlier ones.
FACE: tuple[Blob | Tube, ...] = (
    Blob("muscle", (62, 26, -20), (11, 30, 34)),  # temporalis
    Blob("muscle", (54, 28, -75), (11, 22, 34)),  # masseter
    Blob("muscle", (32, 22, -68), (12, 16, 22)),  # pterygoids
    Blob("fat", (47, 50, -70), (11, 12, 18)),
    Blob("muscle", (24, -60, -95), (22, 20, 55)),  # neck
    Blob("muscle", (0, 40, -98), (20, 30, 24)),  # tongue
    Tube("bone", (52, 0, -62), (50, 14, -105), (8, 7)),  # mandible
    Tube("marrow", (52, 0, -60), (50, 14, -105), (5, 4)),
    Tube("bone", (50, 14, -105), (8, 76, -118), (8, 9)),
    Tube("marrow", (50, 14, -105), (8, 76, -118), (4.5, 5.5)),
    Blob("bone", (0, 66, -82), (26, 20, 9)),  # palate and teeth
    Blob("marrow", (0, 70, -81), (20, 12, 5)),
    Blob("bone", (24, 58, -58), (17, 20, 19)),  # maxilla
    Blob("air", (25, 58, -58), (13, 16, 15)),
    Blob("mucosa", (0, 66, -56), (13, 32, 22)),
    Tube("air", (4.5, 46, -44), (5.0, 86, -68), (2.2, 3.6)),  # nasal passages
    Tube("air", (5.5, 38, -64), (6.0, 90, -74), (2.5, 3.0)),
    Blob("bone", (0, 62, -36), (12, 22, 9)),
    Blob("air", (6, 64, -36), (4.0, 18, 6.5)),  # ethmoid
    Blob("air", (0, 12, -78), (13, 11, 11)),  # nasopharynx
    Blob("air", (0, 6, -108), (9, 6, 34)),
    Blob("fat", (30, 60, -33), (17, 25, 16)),  # orbit
    Tube("muscle", (12, 34, -31), (21, 68, -33), (1.8, 2.4)),
    Tube("muscle", (20, 34, -22), (32, 68, -23), (1.8, 2.2)),
    Tube("muscle", (20, 34, -38), (32, 68, -44), (1.8, 2.2)),
    Tube("muscle", (26, 36, -32), (43, 66, -33), (1.8, 2.4)),
    Tube("white", (14, 36, -29), (30, 64, -33), (1.9, 2.2)),  # optic nerve
    Blob("skin", (31, 74, -33), (13.2, 13.2, 13.2)),
    Blob("vitreous", (31, 74, -33), (11.8, 11.8, 11.8)),
    Blob("mucosa", (31, 83, -33), (5.0, 2.2, 5.0)),  # lens and iris
)
SKULL_BASE: tuple[Blob | Tube, ...] = (
    Blob("bone", (0, 26, -44), (17, 20, 13)),
    Tube("bone", (0, 10, -44), (0, -8, -74), (9, 7)),  # clivus
    Tube("marrow", (0, 9, -46), (0, -7, -72), (5.5, 4)),
    Tube("bone", (18, 0, -44), (58, -22, -42), (8, 11)),  # petrous bone
    Blob("air", (58, -26, -48), (7, 9, 12)),  # mastoid
    Blob("bone", (0, 80, -16), (22, 8, 14)),
    Blob("air", (8, 82, -14), (9, 4.0, 10)),  # frontal sinus
    Tube("bone", (0, -4, -88), (0, -8, -190), (10, 11)),  # vertebrae
    Tube("marrow", (0, -4, -88), (0, -8, -190), (6.5, 8)),
    Blob("air", (5, 34, -46), (8, 11, 8.5)),  # sphenoid sinus
)


@dataclass(frozen=True)
class Head:
    """Proportions and pose of one head.

    Attributes:
        scale: size along x, y, z relative to the standard head.
        rotation: 3 x 3 matrix from the scanner's axes to the head's.
        shift_mm: the head's origin in the scanner.
        warp: three fields that make the head uneven, in units of `warp_mm`.
        gap_mm: CSF between skull and brain.
        sulcus_mm: width of the sulci; grows with age, as the ventricles do.
        ventricle: size of the ventricles relative to the standard head.
        part_sizes: size of each part of `FACE` and `SKULL_BASE` relative to the standard head.
    """

    scale: npt.NDArray[np.float32]
    rotation: npt.NDArray[np.float32]
    shift_mm: npt.NDArray[np.float32]
    warp: tuple[Waves, Waves, Waves]
    skull_mm: float
    scalp_mm: float
    gap_mm: float
    sulcus_mm: float
    ventricle: float
    part_sizes: npt.NDArray[np.float64]
    folds: Waves
    texture: Waves
    fine: Waves
    muscles: Waves

    warp_mm = 2.2

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Head:
        """Head of a random adult."""
        age = rng.uniform(0, 1)
        turns = np.deg2rad(rng.normal(0, (5, 3.5, 4)))  # nod, tilt, turn
        return cls(
            scale=(rng.normal(1.0, 0.03) * rng.normal(1.0, (0.035, 0.03, 0.03))).astype(np.float32),
            rotation=_rotation(turns).astype(np.float32),
            shift_mm=rng.normal(0, (3, 5, 5)).astype(np.float32),
            warp=(Waves(rng, 130, count=8), Waves(rng, 130, count=8), Waves(rng, 130, count=8)),
            skull_mm=float(rng.uniform(5.5, 8.5)),
            scalp_mm=float(rng.uniform(4.0, 7.0)),
            gap_mm=float(1.5 + 1.2 * age),
            sulcus_mm=float(0.35 + 0.9 * age + rng.normal(0, 0.1)),
            ventricle=float(np.exp(rng.normal(-0.1 + 0.35 * age, 0.15))),
            part_sizes=np.exp(rng.normal(0, 0.07, size=len(FACE) + len(SKULL_BASE))),
            folds=Waves(rng, 25, count=28),
            texture=Waves(rng, 14, count=20, spread=0.5),
            fine=Waves(rng, 7, count=16),
            muscles=Waves(rng, 32, count=14),
        )

    def to_standard(self, scanner_points: Array) -> Array:
        """Points of the scanner (mm) in the standard head."""
        points: Array = np.divide(
            self.rotation @ (scanner_points - self.shift_mm[:, None]), self.scale[:, None]
        )
        warped: Array = points + np.float32(self.warp_mm) * np.stack(
            [field(points) for field in self.warp]
        )
        return warped

    def to_scanner(self, point: Vector) -> npt.NDArray[np.float32]:
        """The inverse of `to_standard`, for one point."""
        goal = np.asarray(point, np.float32)
        unwarped = goal
        for _ in range(6):  # The warp is a contraction: each round gains a digit.
            place = ((self.rotation.T @ (unwarped * self.scale)) + self.shift_mm).astype(np.float32)
            unwarped = (unwarped + goal - self.to_standard(place[:, None])[:, 0]).astype(np.float32)
        return place


def _rotation(turns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    (cx, cy, cz), (sx, sy, sz) = np.cos(turns), np.sin(turns)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    rotation: npt.NDArray[np.float64] = about_x @ about_y @ about_z
    return rotation


def mirrored(points: Array) -> Array:
    """Points folded onto the patient's left, where the standard head is drawn."""
    return np.stack([np.abs(points[0]), points[1], points[2]])


def cerebral_cavity(points: Array) -> Array:
    """Distance to the part of the skull's cavity that holds the cerebrum; `points` mirrored."""
    vault = ellipsoid(points, (0, 0, 6), (67, 84, 62))
    above_base = np.maximum(vault, -22 - points[2])
    return merge(above_base, ellipsoid(points, (37, 8, -21), (25, 34, 26)), 8)


def posterior_fossa(points: Array) -> Array:
    """Distance to the part of the cavity below the tentorium, down into the spinal canal; `points`
    mirrored.
    """
    fossa = ellipsoid(points, (0, -38, -32), (55, 40, 33))
    return merge(fossa, tube(points, (0, -8, -30), (0, -27, -200), (15, 9)), 12)


def paint_outside(canvas: Canvas, head: Head, cavity: Array) -> None:
    """Skin, fat, muscle, face, neck, skull and its base.

    Args:
        canvas: nothing painted yet.
        head: whose.
        cavity: distance to the inside of the skull.
    """
    points = mirrored(canvas.points)
    texture, fine = head.texture(canvas.points), head.fine(canvas.points)
    vault = cavity - head.skull_mm - head.scalp_mm
    face = ellipsoid(points, (0, 40, -62), (67, 58, 78))
    face = merge(face, tube(points, (0, 90, -42), (0, 104, -64), (5, 11)), 12)
    neck = ellipsoid(points, (0, -28, -150), (60, 58, 130))
    outline = merge(merge(vault, face, 25), neck, 25)
    outline = np.minimum(outline, ellipsoid(points, (76, -12, -36), (5, 14, 26)))  # ear

    canvas.paint("skin", outline)
    canvas.paint("fat", outline + 1.8)
    deep = np.maximum(
        outline + head.scalp_mm * 0.9 + 2 * texture, points[2] + 12 - 0.35 * points[1]
    )
    canvas.paint("muscle", deep, 0.9)
    # Sheets of fat between the muscles, and fat within them.
    canvas.paint("fat", np.maximum(deep, np.abs(head.muscles(canvas.points)) * 6 - 1.1), 0.75)
    canvas.paint("fat", np.maximum(deep, 0.0), np.clip(0.15 + 0.25 * fine, 0, 0.6))
    for part, size in zip(FACE, head.part_sizes[: len(FACE)], strict=True):
        canvas.paint_part(part, points, float(size))
    canvas.paint("bone", cavity - head.skull_mm)
    diploe = np.abs(cavity - head.skull_mm * 0.5) - head.skull_mm * 0.16 - 0.35 * texture
    canvas.paint("marrow", diploe)
    for part, size in zip(SKULL_BASE, head.part_sizes[len(FACE) :], strict=True):
        canvas.paint_part(part, points, float(size))
    cells = np.maximum(ellipsoid(points, (56, -24, -46), (10, 12, 14)), 1.0 - 2 * np.abs(fine))
    canvas.paint("mucosa", cells, 0.4)
    canvas.paint("air", -outline)
