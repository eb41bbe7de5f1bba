"""The checks that the tool ran by itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

from robustmri.report.page import Page
from robustmri.results.schema import Status

PLACE = 70
ENDS: tuple[tuple[Status, str], ...] = (
    ("fail", "failed"),
    ("warn", "with a warning"),
    ("pass", "passed"),
)


def checks(page: Page) -> dict[str, Any]:
    """A row for each check, and how many came out how."""
    counted = Counter(row.status for row in page.checks)
    tally = ", ".join(f"{counted[status]} {words}" for status, words in ENDS if counted[status])
    return {"checks": page.checks, "tally": tally}
