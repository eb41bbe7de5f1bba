"""Accuracy against eps."""

from __future__ import annotations

from typing import Any

from robustmri.report.figures import collect_plots, draw_accuracy
from robustmri.report.page import Page

PLACE = 40


def curve(page: Page) -> dict[str, Any] | None:
    """A plot for each norm and reading of eps; None where there is one radius only."""
    classes = len(page.results[0].cohort.classes)
    plots = [
        (plot, *(draw_accuracy(plot, classes=classes, width=width) for width in (760, 360)))
        for plot in collect_plots(page.results, page.names)
    ]
    return {"plots": plots} if plots else None
