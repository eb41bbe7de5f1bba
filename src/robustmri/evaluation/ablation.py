"""What each ingredient is worth: variants of a repair on the same slices, over their seeds, by
patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

import msgspec
import numpy as np

from robustmri.core.errors import ResultError
from robustmri.evaluation.intervals import (
    Difference,
    Interval,
    paired_difference,
    share_interval,
)
from robustmri.evaluation.metrics import find_settings
from robustmri.results.budget import CLEAN, WORST
from robustmri.results.outcomes import Column, columns_of, find_right, read_table
from robustmri.threat.eps import Eps


class Share(msgspec.Struct, frozen=True):
    """An accuracy over all slices and seeds.

    Attributes:
        accuracy: as a fraction.
        interval: by patient.
        change: against the first variant, slice by slice; None for that one itself.
    """

    accuracy: float
    interval: Interval
    change: Difference | None


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """One variant.

    Attributes:
        name: of the variant.
        runs: trainings it was measured on.
        clean: on untouched slices.
        robust: the worst case at each radius, by the radius with its units.
        by_seed: clean accuracy of each training, and its worst cases in the order of `robust`.
        seconds: that a training took, on average.
    """

    name: str
    runs: int
    clean: Share
    robust: dict[str, Share]
    by_seed: list[list[float]]
    seconds: float


class _Right(NamedTuple):
    """Whether each slice is right, untouched and at worst at each radius, and whose it is."""

    kept: dict[str, Column]
    groups: Column


def compare(
    results: Mapping[str, Sequence[str | Path]], seconds: Mapping[str, Sequence[float]]
) -> list[Worth]:
    """How the variants did, the first of them being what the others are compared with.

    Args:
        results: name of a variant to its result folders, a seed after another; the same seeds and
            radii for all.
        seconds: name to the seconds of each training.

    Raises:
        ResultError: the folders are not of the same slices and radii, or not as many for each
            variant.
    """
    found = {name: [_read(folder) for folder in folders] for name, folders in results.items()}
    base, worth = _joined(next(iter(found.values()))), []
    for place, (name, runs) in enumerate(found.items()):
        own = _joined(runs)
        if own.kept.keys() != base.kept.keys() or not np.array_equal(own.groups, base.groups):
            raise ResultError(
                f"variant {name!r} was not measured on the same slices, radii and seeds as the "
                "first one."
            )
        shares = {
            what: Share(
                float(right.mean()),
                share_interval(right, own.groups),
                paired_difference(base.kept[what], right, own.groups) if place else None,
            )
            for what, right in own.kept.items()
        }
        by_seed = [[float(right.mean()) for right in run.kept.values()] for run in runs]
        mean = float(np.mean(seconds[name]))
        clean = shares.pop(CLEAN)
        worth.append(
            Worth(
                name=name, runs=len(runs), clean=clean, robust=shares, by_seed=by_seed, seconds=mean
            )
        )
    return worth


def _read(folder: str | Path) -> _Right:
    """The slices of one evaluation in the cohort's order."""

    columns = columns_of(read_table(folder))
    settings, right = find_settings(columns), find_right(columns)
    # The first is what the evaluation is about; corruptions beside it stay out.
    about = next((at.norm for attack, at in settings if attack == WORST), "")
    kept, groups = {}, None
    for (attack, budget), rows in settings.items():
        if attack == CLEAN or (attack == WORST and budget.norm == about):
            ordered = rows[np.argsort(columns["index"][rows])]
            groups = columns["group"][ordered].astype(str)
            radius = Eps(budget.eps or 0.0, cast(Literal["image", "normalised"], budget.eps_units))
            kept[CLEAN if attack == CLEAN else str(radius)] = right[ordered]
    if groups is None or len(kept) < 2:
        raise ResultError(
            f"{folder} has no worst case to compare. Evaluate with an attack that has a radius."
        )
    return _Right(kept, groups)


def _joined(runs: Sequence[_Right]) -> _Right:
    if any(run.kept.keys() != runs[0].kept.keys() for run in runs):
        raise ResultError("The seeds of a variant were measured at different radii.")
    kept = {what: np.concatenate([run.kept[what] for run in runs]) for what in runs[0].kept}
    return _Right(kept, np.concatenate([run.groups for run in runs]))
