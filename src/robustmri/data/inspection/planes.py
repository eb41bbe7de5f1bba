"""The plane of a slice, guessed from its grey values where nobody says it, and whether it gives the
class away.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from robustmri.data.inspection.slices import Slices
from robustmri.data.intensity import resize, to_grey
from robustmri.data.leakage import Finding
from robustmri.data.parallel import map_in_order
from robustmri.data.regions import find_head

PLANES = ("axial", "coronal", "sagittal")
SIDE = 64
SHIFTS = range(-4, 5)
"""Pixels by which the middle of a head may lie beside that of its outline."""
# Chosen on 180 phantom slices, whose planes are known, and 96 slices of the figshare release, whose
# planes were told by eye; on 96 others of that release 85 % are told as by eye.
ASYMMETRIC = 0.13
TALL = 1.18
ROUGH = 1.3
WIDE_BELOW = 0.5
STRONG = 0.5
"""Cramer's V of class and plane from which the plane says much of the class."""


def guess_plane(image: npt.NDArray[Any]) -> str:
    """Plane of a slice of a head: sagittal where its left does not mirror its right, coronal where
    it is rougher below than above, or cut off below; else axial.
    """
    small = resize(image, SIDE)
    head = find_head(small)
    rows, columns = np.nonzero(head)
    if len(rows) < SIDE or not small.any():
        return ""
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    tall = (bottom - top) / (right - left)
    if _symmetry(np.where(head, small, 0), (left + right - 1) / 2) < ASYMMETRIC and tall < TALL:
        return "sagittal"
    cut = float(np.sum(head[-3:].any(0))) / (right - left)
    return "coronal" if cut > WIDE_BELOW or _roughness(small, head) > ROUGH else "axial"


def _symmetry(image: npt.NDArray[np.float32], middle: float) -> float:
    """Correlation of an image with its mirror image, the best of several middles."""
    best, columns = -1.0, np.arange(SIDE)
    for shift in SHIFTS:
        opposite = np.rint(2 * middle + shift - columns).astype(int)
        inside = (opposite >= 0) & (opposite < SIDE)
        mirrored = np.zeros_like(image)
        mirrored[:, inside] = image[:, opposite[inside]]
        used = (image > 0) | (mirrored > 0)
        one, other = image[used] - image[used].mean(), mirrored[used] - mirrored[used].mean()
        size = np.linalg.norm(one) * np.linalg.norm(other)
        best = max(best, float(one @ other / size) if size else 1.0)
    return best


def _roughness(image: npt.NDArray[np.float32], head: npt.NDArray[np.bool_]) -> float:
    """How much steeper the grey values are in the lower half of a head than in the upper one."""
    from scipy import ndimage

    core = ndimage.binary_erosion(head, iterations=4)
    rows = np.nonzero(head.any(axis=1))[0]
    lower = np.arange(SIDE)[:, None] >= (rows[0] + rows[-1]) / 2
    steep = np.hypot(*np.gradient(image))
    above, below = steep[core & ~lower], steep[core & lower]
    return float(below.mean() / max(above.mean(), 1e-6)) if len(above) and len(below) else 1.0


def find_planes(slices: Slices) -> npt.NDArray[np.object_]:
    """Plane of every slice: the one that its source says, else a guess."""
    planes = np.array([case.plane for case in slices.cases], dtype=object)
    unknown = np.flatnonzero(planes == "")
    images = (to_grey(slices.image(int(number))) for number in unknown)
    planes[unknown] = list(map_in_order(guess_plane, images))
    return planes


def check_planes(slices: Slices, planes: npt.NDArray[np.object_]) -> list[Finding]:
    """How many slices there are of each plane, and whether the plane tells the class."""
    told = sum(bool(case.plane) for case in slices.cases)
    counts = Counter(planes)
    how = "told by the source" if told == len(slices) else "guessed from the grey values"
    if 0 < told < len(slices):
        how = f"{told} told by the source, {len(slices) - told} guessed from the grey values"
    listed = ", ".join(f"{counts[plane]} {plane}" for plane in PLANES if counts[plane])
    found = [Finding("planes", "pass", f"{listed or 'none known'} ({how})")]
    for number, name in enumerate(slices.names):
        here = slices.cohort == number
        strength = cramers_v(slices.label[here], planes[here])
        where = f" in {name}" if len(slices.names) > 1 else ""
        found.append(
            Finding(
                f"the plane does not tell the class{where}",
                "warn" if strength > STRONG else "pass",
                f"Cramer's V of class and plane is {strength:.2f} (0: unrelated, 1: one tells the "
                f"other); planes {how}"
                + (": a classifier may learn the plane instead" if strength > STRONG else ""),
            )
        )
    return found


def cramers_v(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """How much one of two attributes tells of the other: 0 nothing, 1 everything. Reference: Cramer
    1946, Ch. 21.

    >>> cramers_v(np.array(list("aabb")), np.array(list("xxyy")))
    1.0
    >>> cramers_v(np.array(list("abab")), np.array(list("xxyy")))
    0.0
    """
    rows, row = np.unique(one.astype(str), return_inverse=True)
    columns, column = np.unique(other.astype(str), return_inverse=True)
    if min(len(rows), len(columns)) < 2:
        return 0.0
    counts = np.zeros((len(rows), len(columns)))
    np.add.at(counts, (row.ravel(), column.ravel()), 1)
    expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    return float(np.sqrt(chi2 / counts.sum() / (min(counts.shape) - 1)))
