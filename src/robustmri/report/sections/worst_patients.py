"""The patients of whom least is left under attack, by name, for those who may know them."""

from __future__ import annotations

from typing import Any

import numpy as np

from robustmri.report.page import Page
from robustmri.results.budget import CLEAN, NO_BUDGET, Budget
from robustmri.results.headline import headline
from robustmri.results.outcomes import Outcomes, find_right, numbered

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
    """The patients who lose most of their right answers, the most slices lost first; with a target,
    those who come to be called so.
    """
    clean, attacked = outcomes.rows(CLEAN, NO_BUDGET), outcomes.rows(attack, at)
    right = dict(zip(clean["case_id"], find_right(clean, at.target).tolist(), strict=True))
    was = np.array([right.get(case, False) for case in attacked["case_id"]], dtype=bool)
    fell = was & ~find_right(attacked)
    names, of = numbered(attacked["patient_id"])
    n, lost = np.bincount(of), np.bincount(of[fell], minlength=len(names))
    first = np.lexsort((-lost, -lost / np.maximum(n, 1)))  # Names are in order already.
    found = []
    for patient in first[:MOST].tolist():
        here = of == patient
        if lost[patient]:
            answers, counts = np.unique(
                attacked["prediction"][here & fell].astype(str), return_counts=True
            )
            found.append(
                {
                    "patient": names[patient],
                    "label": ", ".join(np.unique(attacked["label"][here].astype(str))),
                    "n": int(n[patient]),
                    "right": int(was[here].sum()),
                    "lost": int(lost[patient]),
                    "as": answers[counts.argmax()],
                }
            )
    return found
