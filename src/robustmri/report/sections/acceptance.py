"""What the classifier is meant for, what its numbers must be at least, and who decided that."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page
from robustmri.report.wording import budget_words, percent
from robustmri.results.acceptance import Judged

PLACE = 65


def acceptance(page: Page) -> dict[str, Any]:
    """A row for each minimum, with a number for each result; without any it says so."""
    judged = zip(*page.judged, strict=True) if page.judged else ()
    return {
        "given": page.acceptance,
        "minima": [(_say(row[0], page), percent(row[0].least), row) for row in judged],
    }


def _say(judged: Judged, page: Page) -> str:
    where = budget_words(judged.budget, page.norms)
    bound = ", lower bound of the 95 % interval" if judged.bound == "low" else ""
    unit = f", by {judged.unit}" if judged.unit == "patient" else ""
    return f"{judged.title}{f', {where}' if where else ''}{unit}{bound}"
