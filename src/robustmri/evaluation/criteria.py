"""A result's numbers, held against the minima that people gave."""

from __future__ import annotations

import math
from collections.abc import Mapping

from robustmri.core.errors import ResultError, ThreatModelError
from robustmri.results.acceptance import Judged
from robustmri.results.budget import CLEAN, TITLES, WORST
from robustmri.results.headline import budget_of, headline, main_budget
from robustmri.results.schema import Result, RobustnessReport
from robustmri.threat.eps import parse_eps

PATIENTS, LOW = "patients.", ".low"
NAMES = {"clean": CLEAN, "none": CLEAN, "worst": WORST, "worst_case": WORST, "worst-case": WORST}
SHOWN = 12
"""Names in an error."""


def judge(result: RobustnessReport, minimum: Mapping[str, float]) -> list[Judged]:
    """Each minimum with the number that it is about, in their order.

    A name is that of an attack, "clean" or "worst_case"; "@EPS" says the radius, otherwise the
    headline's is meant. "patients." in front counts patients, ".low" behind takes the lower bound
    of the 95 % interval.

    Raises:
        ResultError: the result has no such number.
    """
    titles = TITLES | {run.attack: run.title for run in result.attacks}
    judged = []
    for name, least in minimum.items():
        number = find_number(result, name)
        measured = number.ci_low if name.endswith(LOW) else number.accuracy
        judged.append(
            Judged(
                name=name,
                title=titles.get(number.attack, number.attack),
                budget=budget_of(number),
                unit=number.unit,
                bound="low" if name.endswith(LOW) else "accuracy",
                least=least,
                measured=measured,
                met=measured >= least,
            )
        )
    return judged


def find_number(result: RobustnessReport, name: str) -> Result:
    """The number of that name; errors as `judge`'s."""
    unit = "patient" if name.startswith(PATIENTS) else "slice"
    told, _, radius = name.removeprefix(PATIENTS).removesuffix(LOW).partition("@")
    known = {number.attack for number in result.results}
    attack = NAMES.get(told, told if told in known else told.replace("_", "-"))
    here = [one for one in result.results if (one.attack, one.unit) == (attack, unit)]
    if attack == WORST and not here and not radius:  # One attack alone: no worst case was taken.
        strongest = headline(result, main_budget([result]))
        here = [strongest] if strongest and strongest.eps and unit == "slice" else []
    try:
        eps = parse_eps(radius) if radius else None
    except ThreatModelError as error:
        raise ResultError(f"The minimum {name!r} names no radius: {error}") from error
    at = main_budget([result])
    for number in here:
        budget = budget_of(number)
        same = eps is not None and number.eps is not None and number.eps_units == eps.units
        if eps is None and (budget.eps is None or budget == at):
            return number
        if same and math.isclose(number.eps or 0.0, eps.value if eps else 0.0, rel_tol=1e-6):
            return number
    raise ResultError(
        f"There is no number {name!r} to hold against a minimum. There is: {_known(result)}."
    )


def _known(result: RobustnessReport) -> str:
    said = {CLEAN: "clean", WORST: "worst_case"}
    names = dict.fromkeys(
        said.get(one.attack, one.attack)
        + ("" if one.eps is None else f"@{one.eps:.6g}")
        + ("@normalised" if one.eps is not None and one.eps_units == "normalised" else "")
        for one in result.results
    )
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join([*names][:SHOWN]) + more
