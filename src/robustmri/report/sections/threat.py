"""What the attacker may do, knows and wants."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page

PLACE = 80


def threat(page: Page) -> dict[str, Any]:
    """The sentences of the result."""
    return {}
