"""What a classifier has been trained on, so that no later test asks about it: hashes of the files,
and of how the slices look.

A cohort that is prepared again from the same scans, with another seed, size or intensity rule, has
another fingerprint, but its files have the same hash; scans that were exported again look the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.data.cohort import Cohort
from robustmri.data.intensity import resize, to_grey
from robustmri.data.leakage import Finding
from robustmri.data.parallel import map_in_order

SIDE = 16
"""A slice's look is told by this many rows and columns, one bit each."""
SAME_LOOK = 10
"""Bits of 256 that may differ. Measured on 2634 slices of 178 patients, prepared twice (96 px from
minimum to maximum, 128 px by percentiles): at most 5 for the same slice, at least 20 for slices of
different patients.
"""
FEWEST_BITS = 16
"""A slice whose look has fewer is nearly flat, and looks like every other flat one."""
BLOCK = 512
MANY = 0.05
"""Share of the test slices that may look known before it is no coincidence."""
NAME = "test slices new to the classifier"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Slices that a classifier was trained on or chosen by.

    Attributes:
        files: the first half of the sha256 of each source file, sorted.
        looks: 256 bits of each slice in hexadecimal digits, sorted.
    """

    files: tuple[str, ...]
    looks: tuple[str, ...]

    def __or__(self, other: Seen) -> Seen:
        """Both together."""
        return Seen(
            files=tuple(sorted({*self.files, *other.files})),
            looks=tuple(sorted({*self.looks, *other.looks})),
        )


def note_seen(cohort: Cohort, rows: Sequence[int]) -> Seen:
    """What a training on these rows sees."""
    files = {cohort.cases[row].sha256[:32] for row in rows}
    looks = {np.packbits(bits).tobytes().hex() for bits in looks_of(cohort, rows)}
    return Seen(files=tuple(sorted(files)), looks=tuple(sorted(looks)))


def count_known(seen: Seen, cohort: Cohort, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    """Rows whose file was seen, and rows that look like a slice that was; nearly flat slices look
    like none.
    """
    files = set(seen.files)
    same_file = [row for row in rows if cohort.cases[row].sha256[:32] in files]
    known = np.frombuffer(bytes.fromhex("".join(seen.looks)), dtype=np.uint8)
    known = np.unpackbits(known.reshape(len(seen.looks), SIDE * SIDE // 8), axis=1)
    known = known[known.sum(axis=1) >= FEWEST_BITS]
    if not len(known) or not rows:
        return same_file, []
    alike: list[int] = []
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        looks = looks_of(cohort, block)
        same = different_bits(looks, known).min(axis=1) <= SAME_LOOK
        same &= looks.sum(axis=1) >= FEWEST_BITS
        alike += [row for row, is_same in zip(block, same, strict=True) if is_same]
    return same_file, alike


def different_bits(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """How many bits differ between each row of `a` and each of `b`; by a product of matrices."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    both: npt.NDArray[np.float32] = a @ b.T
    bits: npt.NDArray[np.float32] = a.sum(axis=1)[:, None] + b.sum(axis=1)[None, :] - 2 * both
    return bits


def check_seen(seen: Seen | None, cohort: Cohort, rows: Sequence[int]) -> Finding:
    """Whether the classifier was trained on slices that it is about to be tested on."""
    if seen is None:
        return Finding(NAME, "warn", "what the classifier was trained on is not known")
    same_file, alike = count_known(seen, cohort, rows)
    known = sorted({*same_file, *alike})
    if not known:
        return Finding(
            NAME, "pass", f"none of {len(rows)} slices is, or looks like, one it was trained on"
        )
    serious = bool(same_file) or len(alike) > MANY * len(rows)
    return Finding(
        NAME,
        "fail" if serious else "warn",
        f"of {len(rows)} slices {len(same_file)} come from files that it was trained on, and "
        f"{len(alike)} look like slices that it was trained on",
        tuple(cohort.cases[row].case_id for row in known),
    )


def looks_of(cohort: Cohort, rows: Sequence[int]) -> npt.NDArray[np.bool_]:
    """How slices look, 256 bits each, shape (k, 256); any rule that keeps the order of grey values
    gives the same.
    """
    small = list(map_in_order(lambda row: small_look(cohort.images[row]), rows))
    return look_of_small(np.stack(small)) if small else np.zeros((0, SIDE * SIDE), dtype=bool)


def small_look(image: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """A slice at 16 x 16 pixels."""
    return resize(to_grey(image), SIDE)


def look_of_small(small: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether each part of small slices, shape (n, 16, 16), is darker than its neighbour to the
    right; shape (n, 256).
    """
    brightest = small.max(axis=(1, 2), keepdims=True)
    darker = np.roll(small, -1, axis=2) > small * 1.02 + 1e-3 * brightest
    return np.asarray(darker, dtype=bool).reshape(len(small), -1)
