"""What is left of the figures beyond remembering the training slices."""

from __future__ import annotations

from typing import Any

from robustmri.report.page import Page
from robustmri.report.wording import points
from robustmri.results.budget import CLEAN, WORST, Budget
from robustmri.results.schema import Result, RobustnessReport

PLACE = 45


def memory(page: Page) -> dict[str, Any] | None:
    """The nearest neighbour's accuracy beside each result's, untouched and in the worst case."""
    baselines = [report.baseline for report in page.results if report.baseline is not None]
    if not baselines:
        return None
    lines = []
    for number in baselines[0].results:
        own = [_same_slices(report, number) for report in page.results]
        if any(own):
            beyond = [one and points(one.accuracy - number.accuracy) for one in own]
            budget = Budget(number.norm, number.eps, number.eps_units, number.eps_image)
            lines.append({"memory": number, "budget": budget, "own": own, "beyond": beyond})
    known = baselines[0].known
    trained = f"{known[0]}" if len(known) == 1 else f"{min(known)} to {max(known)}"
    return {"baseline": baselines[0], "lines": lines, "known": trained}


def _same_slices(report: RobustnessReport, memory: Result) -> Result | None:
    wanted = CLEAN if memory.eps is None else WORST
    for number in report.results:
        if (
            number.attack == wanted
            and number.unit == "slice"
            and not number.target
            and (number.eps, number.eps_units, number.n) == (memory.eps, memory.eps_units, memory.n)
            and number.norm in ("", memory.norm)
        ):
            return number
    return None
