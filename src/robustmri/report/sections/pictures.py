"""A few slices before and after the attack, and what the last classifier says of them."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page
from robustmri.report.pictures import choose_examples, make_picture
from robustmri.results.budget import Budget

PLACE = 20


def pictures(page: Page) -> dict[str, Any] | None:
    """Slices by class; None without pictures."""
    if page.arrays is None:
        return None
    first = page.results[0]
    gallery = []
    for label, examples in choose_examples(first.examples, first.cohort.classes):
        shown = []
        for example in examples:
            later = None
            if len(page.results) > 1:
                where = Budget(example.norm, example.eps, example.eps_units, None)
                rows = page.outcomes[-1].rows(example.attack, where)
                same = rows["case_id"] == example.case_id
                if same.any():
                    place = int(same.argmax())
                    later = (str(rows["prediction"][place]), float(rows["confidence"][place]))
            shown.append((make_picture(example, page.arrays), later))
        gallery.append((label, shown))
    return {"gallery": gallery} if gallery else None
