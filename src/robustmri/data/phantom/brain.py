"""What fills the skull: meninges, CSF, folded cortex, white matter, ventricles, cerebellum,
vessels, the sella.
"""

from __future__ import annotations

import numpy as np

from robustmri.data.phantom.canvas import Blob, Canvas, Tube
from robustmri.data.phantom.head import Head, cerebral_cavity, mirrored, posterior_fossa
from robustmri.data.phantom.shapes import Array, ellipsoid, intersect, merge

CORTEX_MM = 2.9

NUCLEI: tuple[Blob | Tube, ...] = (
    Blob("grey", (12, 0, 1), (7, 12, 8)),  # thalamus
    Blob("grey", (14, 27, 6), (5, 9, 7)),  # caudate
    Blob("grey", (26, 17, 0), (5, 14, 9)),  # putamen
    Blob("grey", (24, 2, -26), (7, 12, 7)),  # amygdala and hippocampus
)
CISTERNS: tuple[Blob | Tube, ...] = (
    Blob("csf", (0, 14, -22), (13, 11, 6)),
    Blob("csf", (0, 5, -20), (6, 8, 8)),
    Blob("csf", (0, -26, -3), (9, 5, 5)),
)
STEM: tuple[Blob | Tube, ...] = (
    Tube("white", (0, -10, -6), (0, -8, -28), (12.5, 14)),
    Blob("white", (0, -7, -34), (16, 13, 14)),
    Tube("white", (0, -13, -46), (0, -24, -78), (9, 6)),
    Tube("white", (0, -24, -78), (0, -28, -200), (5.5, 5.5)),
)
# frontal horn, body, atrium, occipital and temporal horn, third, fourth
VENTRICLES: tuple[Blob | Tube, ...] = (
    Tube("csf", (8, 36, 2), (11, 14, 13), (4.5, 7.0)),
    Tube("csf", (11, 14, 13), (15, -14, 14), (7.0, 6.0)),
    Tube("csf", (15, -14, 14), (25, -27, 5), (6.0, 8.0)),
    Tube("csf", (25, -27, 5), (24, -54, 1), (7.0, 2.0)),
    Tube("csf", (25, -25, 3), (32, 2, -23), (4.0, 2.0)),
    Blob("csf", (0, 0, -3), (2.2, 13, 9)),
    Blob("csf", (0, -24, -36), (6, 5, 8)),
)
VESSELS: tuple[Blob | Tube, ...] = (
    Tube("blood", (0, -30, 4), (0, -74, -10), (1.8, 2.6)),  # straight sinus
    Tube("blood", (1.5, 8, 10), (1.5, -28, 5), (0.8, 1.4)),  # internal cerebral veins
    Tube("choroid", (25, -22, 6), (21, -14, 12), (3.4, 1.6)),
    Blob("choroid", (0, -27, 2), (2.4, 3.2, 2.6)),  # pineal
    Blob("blood", (12.5, 18, -35), (5.0, 10, 6.0)),  # cavernous sinus
    Tube("flow void", (12, 10, -37), (12, 25, -34), (2.4, 2.4)),  # carotid
    Tube("flow void", (12, 25, -34), (12, 16, -24), (2.2, 1.8)),
    Tube("flow void", (12, 16, -23), (40, 15, -16), (1.5, 1.2)),
    Tube("flow void", (0, 7, -52), (0, 8, -28), (1.6, 1.6)),
)
SELLA: tuple[Blob | Tube, ...] = (
    Tube("bone", (0, 12, -32), (5, 12, -33), (1.8, 1.8)),
    Blob("gland", (0, 20, -34.5), (7.0, 5.5, 4.0)),
    Tube("gland", (0, 19, -32), (0, 13, -23), (1.2, 1.0)),
    Tube("white", (0, 15, -23), (10, 28, -25), (2.0, 1.8)),  # chiasm
)


def tentorium_height(points: Array) -> Array:
    """Height z of the tentorium above each (x, y); `points` mirrored."""
    height: Array = 2 - 0.5 * points[0] - 0.45 * np.maximum(-points[1] - 45, 0)
    return height


def above_tentorium(points: Array) -> Array:
    """Negative above the tentorium or in front of it; `points` mirrored."""
    side: Array = 0.85 * (tentorium_height(points) - points[2]) - 1.5 * np.maximum(
        points[1] + 0.5 * points[0] + 2, 0
    )
    return side


def cerebrum(points: Array, gap_mm: float) -> Array:
    """Distance to the cerebrum, sulci not counted; `points` mirrored."""
    return intersect(
        cerebral_cavity(points) + np.float32(gap_mm), above_tentorium(points) + np.float32(1.2)
    )


def cerebellum(points: Array, gap_mm: float) -> Array:
    """Distance to the cerebellum; `points` mirrored."""
    lobes = merge(
        ellipsoid(points, (24, -43, -34), (34, 36, 29)),
        ellipsoid(points, (0, -44, -28), (10, 30, 25)),
        4,
    )
    lobes = np.maximum(lobes, posterior_fossa(points) + np.float32(gap_mm))
    lobes = np.maximum(lobes, 0.9 * (points[1] + 0.5 * points[0]) + np.float32(3))
    return intersect(lobes, np.float32(1.5) - above_tentorium(points))


def brain_surface(points: Array, gap_mm: float, cavity: Array) -> Array:
    """Distance to cerebrum and cerebellum, which swell no further than the skull; `points`
    mirrored.
    """
    return intersect(
        np.minimum(cerebrum(points, gap_mm), cerebellum(points, gap_mm)), cavity + np.float32(1)
    )


def paint_brain(canvas: Canvas, head: Head, cavity: Array, places: Array) -> Array:
    """Cerebrum, brainstem and cerebellum with their CSF; returns the share of white matter at each
    point.

    Args:
        canvas: skull painted, its cavity filled by CSF.
        head: whose.
        cavity: distance to the inside of the skull.
        places: where the tissue at each point would lie without the lesion's mass effect, shape (3,
            n).
    """
    points = mirrored(places)
    brain = intersect(cerebrum(points, head.gap_mm), cavity + np.float32(1))
    sulci = _sulci(points, places, head, brain)
    canvas.paint("white", brain)
    cortex = np.minimum(-brain, sulci) - np.float32(CORTEX_MM)
    canvas.paint("grey", np.maximum(brain, cortex))
    white = canvas.coverage(brain) * (1 - canvas.coverage(cortex))
    for part in NUCLEI:
        canvas.paint_part(part, points, amount=0.8)
    canvas.paint("csf", np.maximum(brain, sulci))
    for part in CISTERNS:
        canvas.paint_part(part, points)
    _paint_hindbrain(canvas, head, cavity, points, places)
    ventricles = VENTRICLES[0].distance(points, head.ventricle)
    for part in VENTRICLES[1:]:
        ventricles = merge(ventricles, part.distance(points, head.ventricle), 2.5)
    canvas.paint("csf", ventricles)
    return white * (1 - canvas.coverage(ventricles))


def _sulci(points: Array, places: Array, head: Head, brain: Array) -> Array:
    """Distance to the sulci: sheets where a random field, stretched along the radius, crosses
    zero.
    """
    # Each hemisphere folds about its own axis, so that sulci meet its convex and its medial face at
    # right angles.
    axis = np.stack(
        [
            np.full_like(points[0], 24) * np.sign(places[0]),
            np.clip(places[1], -38, 36),
            np.full_like(points[0], 6),
        ]
    )
    outward = places - axis
    radius = np.sqrt((outward * outward).sum(0)) + np.float32(1e-3)
    outward *= np.float32(0.35) + np.float32(24) / radius
    field, gradient = head.folds.with_gradient(axis + outward)
    steepness = np.sqrt((gradient * gradient).sum(0))
    sheet = np.abs(field) / (steepness + np.float32(0.06)) - np.float32(head.sulcus_mm / 2)
    # It rises backwards, so that an axial slice cuts it in a line.
    level = np.stack([points[0], points[1], points[2] + np.float32(0.4) * (points[1] - 10)])
    sylvian = ellipsoid(level, (52, 10, -5), (17, 32, 1.4 + head.sulcus_mm * 0.6))
    fissure = np.maximum(
        points[0] - np.float32(0.5 + head.sulcus_mm * 0.4), -_callosal_arch(points)
    )
    depth = np.minimum(-brain, fissure)
    sulci = np.maximum(sheet, depth - 19)
    nearest: Array = np.minimum(np.minimum(sulci, sylvian), fissure)
    return nearest


def _callosal_arch(points: Array) -> Array:
    return ellipsoid(points, (0, 1, 0), (200, 38, 23))


def _paint_hindbrain(
    canvas: Canvas, head: Head, cavity: Array, points: Array, places: Array
) -> None:
    stem = STEM[0].distance(points, 1.0)
    for part in STEM[1:]:
        stem = merge(stem, part.distance(points, 1.0), 4)
    canvas.paint("csf", np.maximum(stem - 2.5, points[2] + 4))
    lobes = intersect(cerebellum(points, head.gap_mm), cavity + np.float32(1))
    canvas.paint("grey", lobes)
    # Fissures fan out from the fourth ventricle: radii in a sagittal slice, arcs in an axial one.
    angle = np.arctan2(points[2] + 34, -22 - points[1])
    folia = np.sin(angle * 27 + 1.2 * head.texture(places))
    canvas.paint("csf", np.maximum(lobes, np.maximum(0.55 - folia, -11 - lobes) * 3), 0.45)
    canvas.paint("white", np.maximum(lobes + 3, np.minimum(2.5 * folia + 1.0, lobes + 13)), 0.9)
    canvas.paint("white", stem)


def paint_meninges(canvas: Canvas, head: Head, cavity: Array, places: Array) -> None:
    """Dura, falx, tentorium, sinuses, vessels, choroid plexus and the sella: what enhances in every
    patient.

    Args:
        canvas: brain painted.
        head: whose.
        cavity: distance to the inside of the skull.
        places: as in `paint_brain`.
    """
    points = mirrored(canvas.points)
    moved = mirrored(places)
    height = tentorium_height(points)
    falx = np.maximum(
        np.maximum(moved[0] - np.float32(0.35), -_callosal_arch(moved) + 6),
        np.maximum(height - points[2], -18 - points[2]),
    )
    canvas.paint("dura", np.maximum(falx, cavity))
    notch = (np.sqrt((points[0] / 20) ** 2 + ((points[1] + 12) / 28) ** 2) - 1) * 20
    tent = np.maximum(np.abs(points[2] - height) * 0.85 - 0.45, np.maximum(points[1] + 8, -notch))
    canvas.paint("dura", np.maximum(tent, cavity))
    sagittal = np.maximum(np.abs(cavity + 2.5) - 3, points[0] - 3.2 - 0.3 * cavity)
    canvas.paint("blood", np.maximum(sagittal, np.maximum(height - points[2], points[1] - 75)))
    transverse = np.maximum(np.abs(cavity + 2) - 2.6, np.abs(points[2] - height - 1) - 3.2)
    canvas.paint("blood", np.maximum(transverse, points[1] + 22))
    veins = np.sqrt(head.texture(places) ** 2 + head.folds(places) ** 2) * 4.2 - 0.9
    canvas.paint("blood", np.maximum(veins, np.abs(cerebrum(moved, head.gap_mm) + 2) - 5), 0.6)
    for part in VESSELS[:4]:
        canvas.paint_part(part, moved, amount=0.85)
    for part in (*VESSELS[4:], *SELLA):
        canvas.paint_part(part, points, amount=0.9)


def skull_cavity(points: Array) -> Array:
    """Distance to the whole inside of the skull and spinal canal; `points` mirrored."""
    return merge(cerebral_cavity(points), posterior_fossa(points), 6)
