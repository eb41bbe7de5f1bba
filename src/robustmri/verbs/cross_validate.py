"""The whole story on five patient-wise folds, their test patients pooled. It resumes run by run."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from robustmri.core.errors import SettingsError
from robustmri.core.files import atomic_file
from robustmri.core.progress import Progress, part_of, silent
from robustmri.data.split import FOLDS
from robustmri.recipes import Recipe, require_recipe
from robustmri.verbs.on_time import as_fitted
from robustmri.verbs.pool import pool, refuse_evaluation
from robustmri.verbs.report import write_report
from robustmri.verbs.reproduce import check_recipe, protocol

if TYPE_CHECKING:
    from robustmri.report.tables import Table


def cross_validate(
    source: str | Path,
    out: str | Path,
    recipe: Recipe,
    *,
    folds: Collection[int | str] = range(1, FOLDS + 1),
    minutes: float = 0.0,
    title: str = "Five patient-wise folds",
    images: bool = True,
    progress: Progress = silent,
) -> Table | None:
    """The whole story on each of five patient-wise folds, then all test patients together, each
    tested once.

    Args:
        source: scans.
        out: folder for fold-1/ to fold-5/, each as `protocol` leaves it, and before/, after/ and
            report.html of all.
        recipe: settings of every stage; its split is replaced.
        folds: those to run now, so that several machines can share the work.
        minutes: time for all five: the first fold is fitted into a fifth of it, the others are run
            with the epochs and the number of slices that came out; 0: as long as it takes.
        title: heading of the pooled report.
        images: whether the folds' reports show slices; the pooled one shows none.
        progress: told about every stage.

    Returns:
        The pooled table of before and after at all radii; None while folds are missing.
    """
    from robustmri.report import as_markdown, comparison_table

    require_recipe(recipe)
    check_recipe(recipe)
    every = range(1, FOLDS + 1)
    unknown = [fold for fold in folds if str(fold) not in map(str, every)]
    if unknown:
        raise SettingsError(f"There is no fold {unknown[0]!r}. Choices: 1 to {FOLDS}.")
    root = Path(out)
    for stage in ("before", "after"):
        refuse_evaluation(root / stage)
    for fold in sorted(map(int, folds)):
        own, time = recipe, minutes / FOLDS if fold == 1 else 0.0
        if minutes and not time:
            own = as_fitted(root / "fold-1", recipe)
        protocol(
            source,
            root / f"fold-{fold}",
            images=images,
            title=f"{title}: fold {fold}",
            recipe=msgspec.structs.replace(
                own, prepare=msgspec.structs.replace(recipe.prepare, split="folds", fold=fold)
            ),
            minutes=time,
            progress=part_of(f"fold {fold}", progress),
        )
    done = [root / f"fold-{fold}" for fold in every]
    if not all((fold / "after" / "robustness.json").is_file() for fold in done):
        return None
    results = [
        pool([fold / stage for fold in done], root / stage, title=title)
        for stage in ("before", "after")
    ]
    write_report([root / "before", root / "after"], root / "report.html", images=False, title=title)
    table = comparison_table(results, every=True)
    with atomic_file(root / "table.md") as partial:
        partial.write_text(as_markdown(table), encoding="utf-8")
    return table
