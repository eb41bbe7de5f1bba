"""What a scanner does beside what an attacker does, and whether repair helped there."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page
from robustmri.report.scanner import corruption_rows, count_helped, threat_rows, threat_table

PLACE = 45


def corruptions(page: Page) -> dict[str, Any] | None:
    """Accuracy by corruption and severity, and the average and worst case of each physical threat;
    None where neither was measured.
    """
    rows = corruption_rows(page.results)
    threats = threat_rows(page.results) if threat_table(page.results) else []
    if not rows and not threats:
        return None
    return {
        "corruptions": rows,
        "helped": count_helped(rows) if len(page.results) > 1 else None,
        "threats": threats,
        "several": len(page.results) > 1,
    }
