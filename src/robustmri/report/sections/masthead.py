"""Title, verdict and the cards with the figures that matter most."""

from __future__ import annotations

from typing import Any

from robustmri.report.glance import Fact, glance
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
        "glance": [*glance(page.results), *_say_acceptance(page)],
    }


def _say_acceptance(page: Page) -> list[Fact]:
    """How many of the minima are met; nothing where none were given."""
    if not page.judged or not page.judged[0]:
        return []
    met = [[one.met for one in judged] for judged in page.judged]
    return [Fact("Acceptance", [[f"{sum(one)} of {len(one)} minima met."] for one in met])]
