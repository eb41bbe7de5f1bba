"""Read scans into a cohort folder, and split it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustmri.core.progress import Progress, silent
from robustmri.data.cohort import Cohort
from robustmri.data.prepare import write_cohort
from robustmri.data.sources import find_unread, open_source
from robustmri.data.split import Split, make_split
from robustmri.recipes import PrepareSettings, change_settings

READING = ("columns", "patient_pattern", "slices", "window")
"""Settings that are options of the readers."""


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
        source: scans in any of the forms of docs/data-formats.md, or "phantom".
        out: folder to make.
        settings: size, channels, intensity rule, what to read, split, fold, shares of train,
            validation and test, and seed.
        progress: told about the slices read.
        changes: single settings, such as `size=96` or `size="192x256"`.

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

    opened = open_source(source, **{name: getattr(settings, name) for name in READING})
    return write_cohort(
        opened,
        out,
        size=settings.size,
        channels=settings.channels,
        intensity=settings.intensity,
        pad=settings.pad,
        split=split,
        notes=find_unread(source, opened),
        progress=lambda done, total: progress("reading", done, total or 0),
    )
