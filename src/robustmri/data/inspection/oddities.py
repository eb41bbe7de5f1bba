"""Slices unlike the others: nearly empty, saturated, of another size, of other grey values, or with
marks burnt in.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robustmri.data.inspection.slices import Slices, counted
from robustmri.data.leakage import Finding
from robustmri.data.readers.dicom import BURNT_IN
from robustmri.data.regions import find_head

FULL = 65535
DARK = 0.05
EMPTY = 0.02
"""Share of pixels above `DARK` below which hardly anything is on a slice."""
SATURATED = 0.03
"""Share of pixels at the brightest value; the rule "percentile" makes 0.5 %."""
USUAL = 0.8
"""Share of the slices that must have one size before another one is odd."""
FAR = 7.0
"""Standard deviations (from the median deviation) from which a slice's grey values are odd."""
BRIGHT = 0.35
"""Of a mark, against the brightest pixel: what is written into a picture is white."""
LETTERS = 3
"""Marks in a line that make a text."""
LARGEST = 0.1
"""Height of a letter against that of the slice."""
CORNER = 0.3
"""Part of the height, and of the width, in which a corner's text stands."""


@dataclass(frozen=True)
class Oddity:
    """A slice unlike the others, and why.

    Attributes:
        number: of the slice.
        kind: "nearly empty", "saturated", "another size", "other grey values" or "marks".
        reason: in words, with numbers.
    """

    number: int
    kind: str
    reason: str


def find_oddities(slices: Slices) -> list[Oddity]:
    """Every odd slice with its reasons, in the order of the slices."""
    found = [*_sizes(slices), *_grey_values(slices), *_marks(slices)]
    return sorted(found, key=lambda one: one.number)


def check_oddities(slices: Slices, oddities: list[Oddity]) -> list[Finding]:
    """One finding on odd slices, one on burnt-in marks."""
    odd = [one for one in oddities if one.kind != "marks"]
    marked = [one for one in oddities if one.kind == "marks"]
    counts = Counter(one.kind for one in odd)
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"
    notes = [
        # Not the names of the files, which follow.
        note.partition(": ")[0]
        for cohort in slices.cohorts
        for note in cohort.notes
        if BURNT_IN in note
    ]
    many = Counter(slices.label[one.number] for one in marked)
    total = Counter(slices.label)
    by_class = ", ".join(f"{many[label]} of {total[label]} {label}" for label in sorted(total))
    said = f"{counted(len(marked), 'slice')} with text-like marks in a corner"
    said += f" ({by_class})" if marked else ""
    return [
        Finding("odd slices", "warn" if odd else "pass", listed, _ids(slices, odd)),
        Finding(
            "marks burnt in",
            "warn" if marked or notes else "pass",
            "; ".join([said, *(f"its files: {note}" for note in notes)]),
            _ids(slices, marked),
        ),
    ]


def _ids(slices: Slices, oddities: list[Oddity]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(slices.cases[one.number].case_id for one in oddities))


def _sizes(slices: Slices) -> list[Oddity]:
    found = []
    for number in range(len(slices.cohorts)):
        rows = np.flatnonzero(slices.cohort == number)
        sizes = [(slices.cases[row].height, slices.cases[row].width) for row in rows]
        (height, width), most = Counter(sizes).most_common(1)[0]
        if most >= USUAL * len(rows):
            found += [
                Oddity(
                    int(row),
                    "another size",
                    f"{size[0]} x {size[1]} pixels, most are {height} x {width}",
                )
                for row, size in zip(rows, sizes, strict=True)
                if size != (height, width)
            ]
    return found


def _grey_values(slices: Slices) -> list[Oddity]:
    facts = np.array(slices.each(_measure), dtype=float).reshape(len(slices), -1)
    found = []
    for number, (filled, bright, *_) in enumerate(facts):
        if filled < EMPTY:
            found.append(Oddity(number, "nearly empty", f"{100 * filled:.1f} % of it is not dark"))
        if bright > SATURATED:
            reason = f"{100 * bright:.1f} % of the pixels have the brightest value"
            found.append(Oddity(number, "saturated", reason))
    told = {one.number for one in found}
    for number in range(len(slices.cohorts)):
        rows = np.flatnonzero(slices.cohort == number)
        for column, name in ((2, "mean"), (3, "darkest tenth")):
            values = facts[rows, column]
            middle = np.median(values)
            spread = 1.4826 * np.median(np.abs(values - middle)) + 0.01
            for row, value in zip(rows.tolist(), values, strict=True):
                if abs(value - middle) > FAR * spread and row not in told:
                    told.add(row)
                    reason = f"{name} {value:.2f} of the brightest, usual {middle:.2f}"
                    found.append(Oddity(row, "other grey values", reason))
    return found


def _measure(image: npt.NDArray[np.uint16]) -> tuple[float, float, float, float]:
    """Share of pixels that are not dark, and that have the brightest value; mean, and the darkest
    tenth.
    """
    return (
        float(np.mean(image > DARK * FULL)),
        float(np.mean(image >= image.max())),
        float(image.mean() / FULL),
        float(np.quantile(image, 0.1) / FULL),
    )


def _marks(slices: Slices) -> list[Oddity]:
    found = enumerate(slices.each(find_marks))
    return [Oddity(number, "marks", f"text-like marks {where}") for number, where in found if where]


def find_marks(image: npt.NDArray[np.uint16]) -> str:
    """Corners in which something like a text stands: three or more small bright shapes in a line,
    away from the head.

    Returns:
        Where, in words; empty where there is none.
    """
    from scipy import ndimage

    full, across = image.shape[:2]
    bright = image > BRIGHT * int(image.max())
    bright &= ~ndimage.binary_dilation(find_head(image), iterations=max(1, full // 48))
    parts, count = ndimage.label(bright, structure=np.ones((3, 3)))
    corners: dict[str, list[tuple[float, float]]] = {}
    for rows, columns in ndimage.find_objects(parts)[: 100 * LETTERS] if count else ():
        height, width = rows.stop - rows.start, columns.stop - columns.start
        y, x = (rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2
        low, right = y > (1 - CORNER) * full, x > (1 - CORNER) * across
        if max(height, width) > max(2.0, LARGEST * full) or not (
            (low or y < CORNER * full) and (right or x < CORNER * across)
        ):
            continue
        corner = f"{'bottom' if low else 'top'} {'right' if right else 'left'}"
        corners.setdefault(corner, []).append((y, float(height)))
    named = [corner for corner, shapes in corners.items() if _in_a_line(shapes)]
    return " and ".join(sorted(named))


def _in_a_line(shapes: list[tuple[float, float]]) -> bool:
    """Whether three shapes of about one height have their middles on one level."""
    return any(
        sum(
            abs(y - other) <= max(1.0, height / 2) and 0.5 <= (tall / height) <= 2
            for other, tall in shapes
        )
        >= LETTERS
        for y, height in shapes
    )
