"""Who is affected: by class and by patient."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page
from robustmri.results.budget import CLEAN, NO_BUDGET, Budget
from robustmri.results.headline import headline
from robustmri.results.outcomes import Outcomes, count_classes, count_patients
from robustmri.results.schema import RobustnessReport

PLACE = 50


def strata(page: Page) -> dict[str, Any]:
    """Counts for each result, under the attack of the headline."""
    parts = zip(page.results, page.outcomes, strict=True)
    return {"strata": [_strata(report, rows, page.budget) for report, rows in parts]}


def _strata(report: RobustnessReport, outcomes: Outcomes, at: Budget | None) -> dict[str, Any]:
    number = headline(report, at)
    attack = number.attack if number else CLEAN
    return {
        "attack": attack,
        "classes": count_classes(outcomes, report.cohort.classes, attack, at or NO_BUDGET),
        "clean_patients": count_patients(outcomes.rows(CLEAN, NO_BUDGET)),
        "attacked_patients": count_patients(outcomes.rows(attack, at or NO_BUDGET)),
    }
