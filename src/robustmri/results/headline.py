"""Which of a result's numbers stands for it: the budget that the headline speaks of, and the worst
case there.
"""

from __future__ import annotations

from collections.abc import Sequence

from robustmri.results.budget import CLEAN, CORRUPTION, NO_BUDGET, WORST, Budget
from robustmri.results.schema import Result, RobustnessReport


def budget_of(result: Result) -> Budget:
    """What the attack behind a number was allowed."""
    if result.attack == CLEAN:
        return NO_BUDGET
    return Budget(result.norm, result.eps, result.eps_units, result.eps_image, result.target)


def main_budget(results: Sequence[RobustnessReport]) -> Budget | None:
    """The budget that the headline speaks of: of those within which every result was attacked the
    one where all met most attacks; None without such a one. What is measured beside, by a scanner
    or in another threat than the first, is no headline.
    """
    attacks = [attacks_within(result) for result in results]
    about = next((at.norm for at in attacks[0] if at.norm != CORRUPTION), None)
    shared = [
        at for at in attacks[0] if at.norm == about and all(at in others for others in attacks)
    ]
    return max(
        shared,
        key=lambda at: len(set.intersection(*(others[at] for others in attacks))),
        default=None,
    )


def attacks_within(result: RobustnessReport) -> dict[Budget, set[str]]:
    """The attacks that were run within each budget that has a radius."""
    attacks: dict[Budget, set[str]] = {}
    for number in result.results:
        if number.eps:
            attacks.setdefault(budget_of(number), set()).add(number.attack)
    return attacks


def headline(result: RobustnessReport, at: Budget | None) -> Result | None:
    """The worst case of a budget, or its strongest attack where no worst case was taken; clean
    without a budget.
    """
    here = [
        number
        for number in result.results
        if number.unit == "slice" and budget_of(number) == (at or NO_BUDGET)
    ]
    return min(here, key=lambda number: (number.attack != WORST, number.accuracy), default=None)
