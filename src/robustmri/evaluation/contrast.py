"""Which of two cohorts is easier to attack: the smallest change that fools, slice by slice."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.errors import ResultError
from robustmri.evaluation.metrics import find_settings, finite
from robustmri.results.budget import CLEAN
from robustmri.results.outcomes import columns_of, find_right, read_table

Floats = npt.NDArray[np.float64]
DRAWS = 2000
LEVEL = (0.025, 0.975)
CHUNK = 100
"""Draws at a time: of ten thousand slices, 8 MB."""


class Nearest(NamedTuple):
    """Slices that were right untouched, and how little fools each.

    Attributes:
        eps: size of the smallest change that was found, in units of its norm; infinite where none
            was.
        groups: whose slices they are.
        searched: slices that the search was asked of, with those that were wrong untouched.
    """

    eps: Floats
    groups: npt.NDArray[np.str_]
    searched: int


class Median(msgspec.Struct, frozen=True):
    """A median with the 95 % interval by patient; None stands for infinite."""

    value: float | None
    low: float | None
    high: float | None


class Ease(msgspec.Struct, frozen=True, kw_only=True):
    """How easily the slices of one cohort are fooled.

    Attributes:
        name: of the cohort.
        searched: slices that were attacked.
        right: of these, named rightly untouched; the following is of them alone.
        groups: patients that they are of, or groups that were inferred.
        held: slices that no change was found for.
        eps: the smallest that fools, in units of its norm.
    """

    name: str
    searched: int
    right: int
    groups: int
    held: int
    eps: Median


def read_nearest(folder: str | Path, norm: str) -> Nearest:
    """The smallest change of each slice of a result, over its attacks that look for one.

    Args:
        folder: of `robustness.json` and `outcomes.parquet`.
        norm: that the change is measured in.

    Raises:
        ResultError: no attack of the result looks for the smallest change in that norm.
    """
    columns = columns_of(read_table(folder))
    fooled = ~find_right(columns)
    smallest: dict[int, float] = {}
    groups: dict[int, str] = {}
    wrong: set[int] = set()
    for (attack, budget), rows in find_settings(columns).items():
        if attack == CLEAN or budget.eps is not None or budget.norm != norm or budget.target:
            continue
        distances = columns[f"distance_{norm}"][rows].astype(float)
        for row, distance in zip(rows.tolist(), distances.tolist(), strict=True):
            index = int(columns["index"][row])
            groups[index] = str(columns["group"][row])
            if columns["clean_prediction"][row] != columns["label"][row]:
                wrong.add(index)
            found = distance if fooled[row] else np.inf
            smallest[index] = min(found, smallest.get(index, np.inf))
    if not smallest:
        raise ResultError(
            f"{folder} has no attack that looks for the smallest change in {norm}. Evaluate with "
            "one: --attacks fmn."
        )
    kept = sorted(smallest.keys() - wrong)
    return Nearest(
        np.array([smallest[index] for index in kept]),
        np.array([groups[index] for index in kept], dtype=np.str_),
        len(smallest),
    )


def draw_medians(nearest: Nearest, seed: int) -> Floats:
    """Medians of the smallest eps, patients drawn with replacement, shape (DRAWS,).

    Of an even number it is the higher of the two in the middle, as in `measure_ease`.
    """
    names, owner = np.unique(nearest.groups, return_inverse=True)
    order = np.argsort(nearest.eps, kind="stable")
    ordered, owner = nearest.eps[order], owner[order]
    generator, found = np.random.default_rng(seed), []
    for _ in range(0, DRAWS, CHUNK):
        shares = np.full(len(names), 1 / len(names))
        times = generator.multinomial(len(names), shares, size=CHUNK)
        counts = np.cumsum(times[:, owner], axis=1)
        found.append(ordered[np.argmax(counts > counts[:, -1:] // 2, axis=1)])
    return np.concatenate(found)


def measure_ease(name: str, nearest: Nearest) -> Ease:
    """The median over the slices, with its interval.

    Raises:
        ResultError: not one slice was right untouched.
    """
    if not len(nearest.eps):
        raise ResultError(f"{name}: of {nearest.searched} slices none was named rightly untouched.")
    median = np.quantile(nearest.eps, 0.5, method="higher")
    low, high = np.quantile(draw_medians(nearest, 0), LEVEL, method="nearest")
    return Ease(
        name=name,
        searched=nearest.searched,
        right=len(nearest.eps),
        groups=len(np.unique(nearest.groups)),
        held=int(np.isinf(nearest.eps).sum()),
        eps=Median(*map(finite, (median, low, high))),
    )


def compare_ease(first: Nearest, second: Nearest) -> Median:
    """The first median as a multiple of the second; below 1, the first is easier to fool. Nothing
    where one of them is infinite.
    """
    # Not the same patients, so not the same draws.
    one, other = draw_medians(first, 0), draw_medians(second, 1)
    medians = [np.quantile(each.eps, 0.5, method="higher") for each in (first, second)]
    if not np.isfinite(medians).all():
        return Median(None, None, None)
    with np.errstate(invalid="ignore"):
        ratios = one / other
    # Both infinite in one draw: neither is nearer.
    low, high = np.quantile(np.where(np.isnan(ratios), 1.0, ratios), LEVEL, method="nearest")
    return Median(*map(finite, (medians[0] / medians[1], low, high)))
