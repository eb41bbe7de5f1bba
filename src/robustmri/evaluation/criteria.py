"""A result's numbers, held against the minima that people gave."""

from __future__ import annotations

import math
from collections.abc import Mapping

from robustmri.core.errors import ResultError, ThreatModelError
from robustmri.results.acceptance import Judged
from robustmri.results.budget import CLEAN, TITLES, WORST, Budget
from robustmri.results.headline import budget_of, headline, main_budget
from robustmri.results.schema import Result, RobustnessReport
from robustmri.threat.eps import Eps, parse_eps

PATIENTS, LOW = "patients.", ".low"
NAMES = {"clean": CLEAN, "none": CLEAN, "worst": WORST, "worst_case": WORST, "worst-case": WORST}
SHOWN = 12
"""Names in an error."""


def judge(
    result: RobustnessReport, minimum: Mapping[str, float], at: Budget | None = None
) -> list[Judged]:
    """Each minimum with the number that it is about, in their order.

    A name is that of an attack, "clean" or "worst_case"; "@EPS" says the radius in the norm of the
    headline, otherwise the headline's own is meant. "patients." in front counts patients, ".low"
    behind takes the lower bound of the 95 % interval.

    Args:
        result: what is judged.
        minimum: name to the least that it may be.
        at: budget of the headline, where others are judged beside it; None: the result's own.

    Raises:
        ResultError: the result has no such number, or several.
    """
    titles = TITLES | {run.attack: run.title for run in result.attacks}
    judged = []
    for name, least in minimum.items():
        number = find_number(result, name, at)
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


def find_number(result: RobustnessReport, name: str, at: Budget | None = None) -> Result:
    """The number of that name; arguments and errors as `judge`'s."""
    at = at or main_budget([result])
    unit = "patient" if name.startswith(PATIENTS) else "slice"
    told, _, radius = name.removeprefix(PATIENTS).removesuffix(LOW).partition("@")
    known = {number.attack for number in result.results}
    attack = NAMES.get(told, told if told in known else told.replace("_", "-"))
    here = [one for one in result.results if (one.attack, one.unit) == (attack, unit)]
    if attack == WORST and not here and not radius:  # One attack alone: no worst case was taken.
        strongest = headline(result, at)
        here = [strongest] if strongest and strongest.eps and unit == "slice" else []
    try:
        eps = parse_eps(radius) if radius else None
    except ThreatModelError as error:
        raise ResultError(f"The minimum {name!r} names no radius: {error}") from error
    if eps is None:
        found = [one for one in here if one.eps is None or budget_of(one) == at]
    else:
        found = [one for one in here if one.eps is not None and _is_at(one, eps)]
        # What a scanner does at severity 1 is not what an attacker does within eps 1.
        about = [one for one in found if at and (one.norm, one.target) == (at.norm, at.target)]
        found = about if about or (attack == WORST and at) else found
    if not found:
        raise ResultError(
            f"There is no number {name!r} to hold against a minimum. There is: {_known(result)}."
        )
    if len(found) > 1:
        norms = ", ".join(dict.fromkeys(one.norm for one in found))
        raise ResultError(f"{name!r} is the name of several numbers (in {norms}).")
    return found[0]


def _is_at(number: Result, eps: Eps) -> bool:
    same = number.eps_units == eps.units
    return same and math.isclose(number.eps or 0.0, eps.value, rel_tol=1e-6)


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
