"""Title, verdict and the cards with the figures that matter most."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page
from robustmri.report.verdict import few_patients, make_cards, write_verdict

PLACE = 10


def masthead(page: Page) -> dict[str, Any]:
    """What the report says in one sentence, or why it says none."""
    verdict, below = write_verdict(page.results, page.outcomes, page.budget)
    return {
        "verdict": verdict,
        "below": below,
        "few": few_patients(page.results),
        "cards": make_cards(page.results, page.outcomes, page.budget),
    }
