"""The checks that the tool ran by itself."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page

PLACE = 70


def checks(page: Page) -> dict[str, Any]:
    """A row for each check."""
    return {"checks": page.checks}
