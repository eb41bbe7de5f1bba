"""Settings and origin: what is needed to repeat the result."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page

PLACE = 110


def provenance(page: Page) -> dict[str, Any]:
    """All of it is in the results."""
    return {}
