"""What is covered, and what is not, in the words of standards and regulators."""

from __future__ import annotations

from typing import Any

from robustmri.report.coverage import map_coverage
from robustmri.report.page import Page

PLACE = 95


def coverage(page: Page) -> dict[str, Any]:
    """A table for each document."""
    accepted = page.acceptance is not None and bool(page.acceptance.minimum)
    certified = any(page.certificates)
    return {"sources": map_coverage(page.results, certified=certified, accepted=accepted)}
