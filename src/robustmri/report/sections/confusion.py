"""What is taken for what."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page
from robustmri.results.budget import CLEAN, Budget
from robustmri.results.headline import headline
from robustmri.results.schema import Confusion, RobustnessReport

PLACE = 60


def confusion(page: Page) -> dict[str, Any] | None:
    """Tables of counts for each result, untouched and under the attack of the headline."""
    tables = [_pick_confusions(report, page.budget) for report in page.results]
    return {"confusions": tables} if any(tables) else None


def _pick_confusions(report: RobustnessReport, at: Budget | None) -> list[Confusion]:
    """The clean one and the headline's."""
    number = headline(report, at)
    wanted = [(CLEAN, None)] + ([(number.attack, at)] if number and at else [])
    return [
        table
        for attack, where in wanted
        for table in report.confusions
        if table.attack == attack
        and (
            where is None
            or (table.norm, table.eps, table.eps_units) == (where.norm, where.eps, where.eps_units)
        )
    ][:2]
