"""The table: accuracy under each attack, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustmri.report.figures import draw_intervals
from robustmri.report.page import Page
from robustmri.report.tables import Published, Row, at_main_eps, beside_main, published_for
from robustmri.report.wording import budget_words, methods_of, norms_of, points
from robustmri.results.budget import CLEAN, WORST, Budget
from robustmri.results.schema import RobustnessReport

PLACE = 30


def table(page: Page) -> dict[str, Any]:
    """Rows at the main eps, and all of them where there are more."""
    beside = beside_main(page.rows, page.budget, page.norms)
    rows = [row for row in page.rows if row not in beside]
    shown = at_main_eps(rows, page.budget)
    quoted = [
        stage
        for stage in ("before", "after")
        if any(figure.stage == stage for figure in page.published)
    ]

    def lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
        return [
            _table_row(row, page.results, page.names, quoted, page.published, page.budget)
            for row in rows
        ]

    every = [number for row in rows for number in row.slices if number]
    return {
        "rows": lines(shown),
        "every": lines(rows) if shown != rows else [],
        "quoted": quoted,
        "alone": any(number.only is not None for number in every),
        "suites": _say_who_broke(shown, page),
        "sources": list(dict.fromkeys(figure.source for figure in page.published)),
        "published": page.published,
        "intervals": methods_of(
            number.interval for report in page.results for number in report.results
        ),
    }


def _table_row(
    row: Row,
    results: Sequence[RobustnessReport],
    names: Sequence[str],
    quoted: Sequence[str],
    published: Sequence[Published],
    at: Budget | None,
) -> dict[str, Any]:
    first, last = row.slices[0], row.slices[-1]
    change = (
        points(last.accuracy - first.accuracy) if len(row.slices) > 1 and first and last else ""
    )
    return {
        "row": row,
        "detail": _row_detail(row, results),
        "forest": draw_intervals(row.slices, names),
        "change": change,
        "only": " / ".join(
            "-" if number is None or number.only is None else str(number.only)
            for number in row.slices
        )
        if any(number is not None and number.only is not None for number in row.slices)
        else "",
        "published": [published_for(row, stage, published, at) for stage in quoted],
    }


def _row_detail(row: Row, results: Sequence[RobustnessReport]) -> str:
    """What the attack did, in a few words."""
    if row.attack == CLEAN:
        return "slices as they were scanned"
    if row.attack == WORST:
        return "right only if no attack fooled it"
    distances = [
        f"{number.median_distance:.3g}"
        for number in row.slices
        if number and number.median_distance
    ]
    if distances:
        norm = norms_of(results)[row.budget.norm].title
        words = [f"smallest change found, median {norm} {' and '.join(distances)}"]
    else:
        made = next((run.settings for run in results[0].attacks if run.attack == row.attack), {})
        effort = {key: made.get(key) for key in ("steps", "restarts")}
        words = [
            f"{n} {key[:-1] if n == 1 else key}" for key, n in effort.items() if isinstance(n, int)
        ]
    fewer = {number.n for number in row.slices if number} - {results[0].split.n_slices}
    return ", ".join(words + [f"on {n} slices" for n in sorted(fewer)])


def _say_who_broke(rows: Sequence[Row], page: Page) -> list[str]:
    """For each suite and classifier how many slices each member broke, in the order in which they
    ran.
    """
    said = []
    for row in rows:
        for number, name in zip(row.slices, page.names, strict=True):
            if number and number.broken_by:
                members = [
                    f"{page.titles.get(member, member)} {count}"
                    for member, count in number.broken_by.items()
                ]
                budget = budget_words(row.budget, page.norms)
                where = ", ".join(
                    part for part in (budget, name if len(page.names) > 1 else "") if part
                )
                said.append(f"{row.name}, {where}: broken by {', '.join(members)}")
    return said
