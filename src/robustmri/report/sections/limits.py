"""What is not covered, and the papers behind the attacks."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page

PLACE = 100


def limits(page: Page) -> dict[str, Any]:
    """Papers of the attacks that were run and have a DOI."""
    shown = {row.attack for row in page.rows}
    runs = [run for report in page.results for run in report.attacks]
    papers = [(run.title, run.paper, run.doi) for run in runs if run.doi and run.attack in shown]
    return {"papers": list(dict.fromkeys(papers))}
