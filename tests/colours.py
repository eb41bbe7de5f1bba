"""Small pictures in colour, oblong, whose class is seen by its hue alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("melanoma", "naevus")
HEIGHT, WIDTH = 36, 60
SPOTS = ((150, 60, 60), (60, 60, 150))
"""Red and blue, equally bright to within a few levels."""


def draw_lesion(kind: int, patient: int, number: int) -> np.ndarray:
    """A spot in the hue of its class on skin, under noise; uint8, shape (HEIGHT, WIDTH, 3)."""
    rng = np.random.default_rng([kind, patient, number])
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    row, column = HEIGHT / 2 + rng.normal(0, 3), WIDTH / 2 + rng.normal(0, 6)
    spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 120)[:, :, None]
    skin = np.array((210, 170, 150))
    shown = skin + spot * (np.array(SPOTS[kind]) - skin) + rng.normal(0, 6, (HEIGHT, WIDTH, 3))
    pixels: np.ndarray = np.clip(shown, 0, 255).astype(np.uint8)
    return pixels


def write_pictures(
    folder: Path, *, patients: int = 7, each: int = 2, classes: tuple[str, ...] = CLASSES
) -> Path:
    """CLASS/PATIENT/NUMBER.png."""
    for kind, label in enumerate(classes):
        for patient in range(patients):
            where = folder / label / f"{label[0]}{patient}"
            where.mkdir(parents=True)
            for number in range(each):
                Image.fromarray(draw_lesion(kind, patient, number)).save(where / f"{number}.png")
    return folder
