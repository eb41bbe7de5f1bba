"""Title, verdict and the cards with the figures that matter most."""

from __future__ import annotations

from typing import Any

from robustmri.report.glance import glance
from robustmri.report.page import Page
from robustmri.report.verdict import few_patients, make_cards, write_verdict

PLACE = 10


def masthead(page: Page) -> dict[str, Any]:
    """What the report says in one sentence, or why it says none."""
    said = (page.results, page.outcomes, page.budget, page.names, page.comparison)
    verdict, below = write_verdict(*said)
    return {
        "verdict": verdict,
        "below": below,
        "few": few_patients(page.results),
        "cards": make_cards(*said),
        "glance": glance(page.results),
    }
