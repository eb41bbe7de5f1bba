"""Read scans into a cohort folder, and split it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustmri.core.progress import Progress, silent
from robustmri.data.cohort import Cohort
from robustmri.data.prepare import write_cohort
from robustmri.data.sources import open_source
from robustmri.data.split import Split, make_split
from robustmri.recipes import PrepareSettings, change_settings


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    settings: PrepareSettings | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> Cohort:
    """Read scans and write a cohort folder with its split.

    Args:
        source: a figshare release, a folder of images with a CSV, class folders, or "phantom".
        out: folder to make.
        settings: size, intensity rule, split, fold, shares of train, validation and test, and seed.
        progress: told about the slices read.
        changes: single settings, such as `size=96`.

    Raises:
        DataError: the source cannot be read as a whole, or cannot be split.
    """
    settings = change_settings(settings or PrepareSettings(), changes)

    def split(cohort: Cohort) -> Split:
        return make_split(
            cohort,
            settings.split,
            seed=settings.seed,
            fold=settings.fold,
            fractions=settings.fractions,
        )

    return write_cohort(
        open_source(source),
        out,
        size=settings.size,
        intensity=settings.intensity,
        split=split,
        progress=lambda done, total: progress("reading", done, total or 0),
    )
