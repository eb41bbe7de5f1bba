"""How to read the page, for three readers."""

from __future__ import annotations

from typing import Any

from robustmri.report.glance import is_black_box
from robustmri.report.page import Page

PLACE = 90


def reading(page: Page) -> dict[str, Any]:
    """The same for every result, but for what the attacker knew."""
    return {"black_box": all(map(is_black_box, page.results))}
