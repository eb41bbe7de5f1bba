"""The patients of whom least is left under attack, by name, for those who may know them."""

from __future__ import annotations

from typing import Any

import numpy as np

from robustmri.report.page import Page
from robustmri.results.budget import CLEAN, NO_BUDGET, Budget
from robustmri.results.headline import headline
from robustmri.results.outcomes import Outcomes

PLACE = 58
MOST = 10


def worst_patients(page: Page) -> dict[str, Any] | None:
    """A table for each result; None without attacks. A copy that leaves has no names, no rows."""
    if page.budget is None:
        return None
    numbers = [headline(report, page.budget) for report in page.results]
    parts = [
        find_worst(rows, number.attack, page.budget) if number else []
        for rows, number in zip(page.outcomes, numbers, strict=True)
    ]
    return {"worst": parts if page.images else [], "most": MOST}


def find_worst(outcomes: Outcomes, attack: str, at: Budget) -> list[dict[str, Any]]:
    """The patients who lose most of their right answers, the most slices lost first."""
    clean, attacked = outcomes.rows(CLEAN, NO_BUDGET), outcomes.rows(attack, at)
    right = dict(zip(clean["case_id"], clean.right.tolist(), strict=True))
    was = np.array([right.get(case, False) for case in attacked["case_id"]], dtype=bool)
    fell = was & ~attacked.right
    patients, labels = attacked["patient_id"].astype(str), attacked["label"].astype(str)
    answers = attacked["prediction"].astype(str)
    found = []
    for patient in np.unique(patients):
        here = patients == patient
        lost = int(fell[here].sum())
        if lost:
            names, counts = np.unique(answers[here & fell], return_counts=True)
            found.append(
                {
                    "patient": patient,
                    "label": ", ".join(np.unique(labels[here])),
                    "n": int(here.sum()),
                    "right": int(was[here].sum()),
                    "lost": lost,
                    "as": names[counts.argmax()],
                }
            )
    found.sort(key=lambda one: (-one["lost"] / one["n"], -one["lost"], one["patient"]))
    return found[:MOST]
