"""Where the classifier looks, and whether the method that says so can be believed."""

from __future__ import annotations

from typing import Any

import numpy as np

from robustmri.report.page import Page
from robustmri.report.pictures import encode_png, trace_outline
from robustmri.report.tables import Table
from robustmri.report.wording import percent, with_interval

PLACE = 56
MOST = 4
"""Examples whose maps are shown, at most one of each class first."""


def saliency(page: Page) -> dict[str, Any] | None:
    """Shares by method, and maps of a few examples; None where nobody asked."""
    if not any(report.saliency for report in page.results):
        return None
    return {"saliency_table": saliency_table(page), "maps": _maps(page)}


def saliency_table(page: Page) -> Table:
    """A row for each method and result."""
    heads = ["Method", "Classifier", "Slices", "In the lesion", "By chance", "Weights shuffled"]
    heads.append("Likeness")
    rows = [
        [
            one.title,
            name,
            str(one.n),
            with_interval(one.in_lesion, one),
            percent(one.chance),
            percent(one.in_lesion_shuffled),
            f"{one.likeness:.2f}",
        ]
        for name, report in zip(page.names, page.results, strict=True)
        for one in report.saliency
    ]
    rows.sort(key=lambda row: row[0])
    first = next(one for report in page.results for one in report.saliency)
    notes = [
        f"Mean share of the attribution that lies in the lesion, over the slices whose map is not "
        f"empty, of {first.n_patients} patients; in brackets the 95 % interval, by patient. By "
        "chance: the lesion's share of the pixels.",
        "Weights shuffled: the same of a network that has learnt nothing (Adebayo et al. 2018). "
        "Likeness: rank correlation between its maps and the classifier's, 0 where its map is "
        "empty. Near 1 the method shows the slice and not what was learnt.",
    ]
    return Table(heads, rows, notes)


def _maps(page: Page) -> list[dict[str, Any]]:
    """Of a few examples the slice and the maps; none without pictures."""
    if page.arrays is None or not page.maps:
        return []
    examples = sorted(page.results[0].examples, key=lambda one: one.position)
    chosen: list[Any] = []
    for one in examples:
        if len(chosen) < MOST and one.label not in {other.label for other in chosen}:
            chosen.append(one)
    shown = []
    for one in chosen:
        clean = page.arrays["clean"][one.position]
        shown.append(
            {
                "example": one,
                "clean": encode_png((clean / 257).astype(np.uint8)),
                "maps": [
                    (title, encode_png(stack[one.position])) for title, stack in page.maps.items()
                ],
                "outline": trace_outline(page.arrays["mask"][one.position]),
                "height": clean.shape[0],
                "width": clean.shape[1],
            }
        )
    return shown
