"""Who is affected: by class and by patient."""

from __future__ import annotations

from typing import Any

import numpy as np

from robustmri.report.page import Page
from robustmri.results.budget import CLEAN, NO_BUDGET, Budget
from robustmri.results.headline import headline
from robustmri.results.outcomes import Outcomes, count_classes, count_patients
from robustmri.results.schema import RobustnessReport

PLACE = 50


def strata(page: Page) -> dict[str, Any] | None:
    """Counts for each result, under the attack of the headline; None where no attack has one."""
    if page.budget is None:
        return None
    parts = [
        _strata(report, rows, page.budget)
        for report, rows in zip(page.results, page.outcomes, strict=True)
    ]
    return {"strata": parts}


def _strata(report: RobustnessReport, outcomes: Outcomes, at: Budget) -> dict[str, Any]:
    number = headline(report, at)
    attack = number.attack if number else CLEAN
    attacked, clean = outcomes.rows(attack, at), outcomes.rows(CLEAN, NO_BUDGET)
    # An attack with a target meets no slice that is of that class.
    met = set(attacked["case_id"])
    clean = clean.only(np.array([case in met for case in clean["case_id"]], dtype=bool))
    return {
        "attack": attack,
        "classes": count_classes(clean, attacked, report.cohort.classes, at.target),
        "clean_patients": count_patients(clean, at.target),
        "attacked_patients": count_patients(attacked),
    }
