"""Two results, paired: the difference under each attack, by class, and who was saved or lost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from robustmri.report.figures import draw_difference
from robustmri.report.page import Page
from robustmri.report.wording import budget_words, methods_of
from robustmri.results.budget import CLEAN
from robustmri.results.comparison import Paired

PLACE = 35
MOST = 40
"""Patients that are listed; the others are counted."""


def comparison(page: Page) -> dict[str, Any] | None:
    """Rows with an interval by patient; None where nothing was paired."""
    found = page.comparison
    if found is None:
        return None
    classes = [
        (_say_group(rows[0], page), _lines(rows))
        for _, each in groupby(found.classes, key=lambda row: (row.attack, row.budget))
        if (rows := list(each))
    ]
    shown = [row for row in found.numbers if row.budget.eps is None or row.budget == found.at]
    return {
        "groups": _group(shown, page),
        "every": _group(found.numbers, page) if len(shown) < len(found.numbers) else [],
        "classes": classes,
        "turned": found.patients[:MOST],
        "more": max(0, len(found.patients) - MOST),
        "sides": (found.first.name, found.second.name),
        "methods": methods_of(row.method for row in found.numbers),
    }


def _group(numbers: Sequence[Paired], page: Page) -> list[tuple[str, Any]]:
    """Rows of one budget together, smaller radii first and those without one last."""

    def rank(row: Paired) -> tuple[bool, bool, str, str, float]:
        at = row.budget
        return row.attack != CLEAN, at.eps is None, at.norm, at.eps_units, at.eps or 0.0

    def words(row: Paired) -> str:
        said = budget_words(row.budget, page.norms)
        return said or ("" if row.attack == CLEAN else "without a fixed eps")

    return [
        (said, _lines(list(rows))) for said, rows in groupby(sorted(numbers, key=rank), key=words)
    ]


def _lines(rows: Sequence[Paired]) -> list[tuple[Paired, Any]]:
    return [(row, draw_difference(row)) for row in rows]


def _say_group(row: Paired, page: Page) -> str:
    words = budget_words(row.budget, page.norms)
    return f"{row.title}, {words}" if words else row.title
