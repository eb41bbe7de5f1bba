"""The phantom as a source of slices: patients one by one, each from its own seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from robustmri.core.errors import SettingsError
from robustmri.data.limits import how_to_raise, max_pixels
from robustmri.data.phantom.brain import brain_surface, paint_brain, paint_meninges, skull_cavity
from robustmri.data.phantom.canvas import Canvas
from robustmri.data.phantom.head import Head, mirrored, paint_outside
from robustmri.data.phantom.lesions import Lesion, draw_lesion
from robustmri.data.phantom.shapes import Array
from robustmri.data.phantom.signal import Scanner
from robustmri.data.readers.source import LeftOut, RawSlice

CLASSES = ("meningioma", "glioma", "pituitary")
PLANES = ("axial", "coronal", "sagittal")
# Directions of rows and columns as a radiologist looks at the slice, and the normal: x left, y
# forward, z up.
ROWS = {"axial": (0, -1, 0), "coronal": (0, 0, -1), "sagittal": (0, 0, -1)}
COLUMNS = {"axial": (1, 0, 0), "coronal": (1, 0, 0), "sagittal": (0, -1, 0)}
NORMALS = {"axial": 2, "coronal": 1, "sagittal": 0}
# The middle of the head in the scanner; face and neck make it lower than the origin.
MIDDLES = {"axial": (0, -2, 0), "coronal": (0, 0, -14), "sagittal": (0, 0, -18)}
LEAST_SHARE_OF_AREA = 0.6
MOST_SLICES = 1_000_000


@dataclass(frozen=True)
class PhantomSource:
    """Synthetic patients, a tumour each, cut into slices through it.

    Args:
        patients: number of patients; the classes take turns.
        slices_per_patient: number of slices of each, in all three planes.
        size: pixels along each side.
        seed: patient `i` depends on the seed and on `i` alone, not on how many others there are.

    >>> source = PhantomSource(patients=3, slices_per_patient=2, size=32)
    >>> [(item.case_id, item.label) for item in source.read()][2]
    ('phantom-0001-0', 'glioma')
    """

    patients: int = 90
    slices_per_patient: int = 8
    size: int = 128
    seed: int = 0

    name = "phantom"
    synthetic = True
    patient_ids = True

    def __post_init__(self) -> None:
        for setting, least in (
            ("patients", 1),
            ("slices_per_patient", 1),
            ("size", 16),
            ("seed", 0),
        ):
            value = getattr(self, setting)
            if value < least:
                raise SettingsError(f"phantom: {setting} must be at least {least}, got {value}.")
        # The slices of a patient are drawn together.
        pixels = self.slices_per_patient * self.size**2
        if pixels > max_pixels():
            raise SettingsError(
                f"phantom: slices of {self.size} x {self.size} pixels, {self.slices_per_patient} "
                f"of each patient, are {pixels} pixels; {how_to_raise(max_pixels(), 'pixels')}."
            )
        if self.patients * self.slices_per_patient > MOST_SLICES:
            raise SettingsError(
                f"phantom: at most {MOST_SLICES} slices in all, got {self.patients} patients with "
                f"{self.slices_per_patient} each."
            )

    def __len__(self) -> int:
        return self.patients * self.slices_per_patient

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """All slices, patient by patient."""
        for patient in range(self.patients):
            yield from self.read_patient(patient)

    def read_patient(self, patient: int) -> list[RawSlice]:
        """Slices of one patient."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(patient,)))
        label = CLASSES[patient % len(CLASSES)]
        head = Head.draw(rng)
        lesion = draw_lesion(label, rng)
        scanner = Scanner.draw(rng)
        levels = scanner.levels(rng)
        pixel_mm = scanner.field_of_view_mm / self.size
        planes = [
            PLANES[(start + i) % 3]
            for start in [int(rng.integers(3))]
            for i in range(self.slices_per_patient)
        ]
        positions = _positions_through(head, lesion, planes, rng)
        grids = [
            self._grid(plane, position, pixel_mm, rng)
            for plane, position in zip(planes, positions, strict=True)
        ]
        places = np.concatenate(grids, axis=1)
        signal, outline = render(head, lesion, places, levels, edge_mm=max(1.25 * pixel_mm, 1.0))
        images = scanner.acquire(signal, places, rng).reshape(-1, self.size, self.size)
        masks = (outline < 0).reshape(images.shape)
        slices = []
        for number, (plane, image, mask) in enumerate(zip(planes, images, masks, strict=True)):
            slices.append(
                RawSlice(
                    case_id=f"phantom-{patient:04d}-{number}",
                    label=label,
                    patient_id=f"phantom-{patient:04d}",
                    image=image,
                    mask=mask,
                    source=f"phantom:seed={self.seed}/{patient:04d}/{number}",
                    sha256=hashlib.sha256(image.astype("<u2").tobytes()).hexdigest(),
                    plane=plane,
                )
            )
        return slices

    def _grid(
        self, plane: str, position_mm: float, pixel_mm: float, rng: np.random.Generator
    ) -> Array:
        """Points of the scanner under the pixels of one slice, shape (3, size * size), not quite
        centred.
        """
        steps = (np.arange(self.size) - (self.size - 1) / 2) * pixel_mm
        centre = np.array(MIDDLES[plane], float)
        centre[NORMALS[plane]] = position_mm
        rows = np.array(ROWS[plane])[:, None, None] * (steps[:, None] + rng.normal(0, 3))
        columns = np.array(COLUMNS[plane])[:, None, None] * (steps[None, :] + rng.normal(0, 3))
        grid: Array = (centre[:, None, None] + rows + columns).reshape(3, -1).astype(np.float32)
        return grid


def _positions_through(
    head: Head, lesion: Lesion, planes: list[str], rng: np.random.Generator
) -> list[float]:
    """Where to cut, mm along each plane's normal: at random, where the lesion's area is a good
    share of its largest.
    """
    steps = np.linspace(-2, 2, 33) * lesion.radius_mm
    middle = head.to_scanner(lesion.centre)
    cube = (
        np.stack(np.meshgrid(*(middle[:, None] + steps), indexing="ij"))
        .reshape(3, -1)
        .astype(np.float32)
    )
    points = head.to_standard(cube)
    cavity = skull_cavity(mirrored(points))
    brain = brain_surface(mirrored(lesion.displace(points)), head.gap_mm, cavity)
    inside = (lesion.outline(points, cavity, brain) < 0).reshape((len(steps),) * 3)
    positions = []
    for normal in (NORMALS[plane] for plane in planes):
        area = inside.sum(axis=tuple({0, 1, 2} - {normal}))
        chosen = rng.choice(np.flatnonzero(area >= LEAST_SHARE_OF_AREA * area.max()))
        positions.append(float(middle[normal] + steps[chosen]))
    return positions


def render(
    head: Head, lesion: Lesion, places: Array, levels: dict[str, float], edge_mm: float
) -> tuple[Array, Array]:
    """Signal at points of the scanner, and the distance to the lesion's outline there."""
    points = head.to_standard(places)
    canvas = Canvas(points, levels, edge_mm)
    moved = lesion.displace(points)
    cavity = skull_cavity(mirrored(points))
    paint_outside(canvas, head, cavity)
    canvas.paint("dura", cavity)
    canvas.paint("csf", cavity + 0.9)
    white = paint_brain(canvas, head, cavity, moved)
    paint_meninges(canvas, head, cavity, moved)
    brain = brain_surface(mirrored(moved), head.gap_mm, cavity)
    outline = lesion.outline(points, cavity, brain)
    lesion.paint(canvas, outline, cavity, brain, white)
    return canvas.signal, outline
