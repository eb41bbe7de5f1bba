"""How the report says numbers: percentages, intervals, radii, names of attacks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robustmri.results.budget import CLEAN, WORST, Budget
from robustmri.results.schema import CohortFacts, Result, RobustnessReport

UNTOUCHED, WORST_CASE = "No attack", "Worst case"
NORM_NAMES = {"linf": "l-infinity"}
"""Norms that are called otherwise in a sentence than in the settings."""


def percent(fraction: float) -> str:
    """Percentage with one decimal that never rounds to a certainty that was not measured.

    >>> percent(0.9983), percent(1.0), percent(0.99999), percent(0.0002)
    ('99.8 %', '100.0 %', '> 99.9 %', '< 0.1 %')
    """
    value = round(100 * fraction, 1)
    if value == 100.0 and fraction < 1:
        return "> 99.9 %"
    if value == 0.0 and fraction > 0:
        return "< 0.1 %"
    return f"{value:.1f} %"


def points(difference: float) -> str:
    """Difference of two fractions in percentage points, with its sign.

    >>> points(0.7213), points(-0.0001)
    ('+72.1', '0.0')
    >>> points(-0.032) == "\N{MINUS SIGN}3.2"
    True
    """
    value = round(100 * difference, 1)
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}") if value else "0.0"


def change(difference: tuple[float, float, float]) -> str:
    """Difference of two fractions with its interval, in percentage points."""
    return f"{points(difference[0])} [{points(difference[1])} to {points(difference[2])}]"


def interval(result: Result) -> str:
    """Bounds of the interval in percent, as in `97.1 to 99.2`."""
    return f"{100 * result.ci_low:.1f} to {100 * result.ci_high:.1f}"


def grey_levels(eps_image: float) -> str:
    """Size in 8-bit grey levels.

    >>> grey_levels(0.04), grey_levels(8 / 255)
    ('10.2', '8')
    """
    return f"{255 * eps_image:.1f}".removesuffix(".0")


def titles_of(results: Sequence[RobustnessReport]) -> dict[str, str]:
    """Name to title of every attack of the results, of the members of suites, and of the rows that
    are no attack.
    """
    titles = {CLEAN: UNTOUCHED, WORST: WORST_CASE}
    for result in results:
        for run in result.attacks:
            titles |= {**run.members, run.attack: run.title}
    return titles


def radius(norm: str, eps: float | None, eps_units: str, eps_image: float | None) -> str:
    """Radius in words, with its size in grey levels where the norm makes that meaningful.

    >>> radius("linf", 0.04, "image", 0.04)
    'eps 0.04 (10.2/255)'
    >>> radius("linf", 0.04, "normalised", 0.00902)
    'eps 0.04 normalised (2.3/255)'
    """
    if eps is None or not math.isfinite(eps):
        return ""
    words = f"eps {eps:.4g}" + (" normalised" if eps_units == "normalised" else "")
    if norm == "linf" and eps_image is not None:
        return f"{words} ({grey_levels(eps_image)}/255)"
    return f"{words}, {NORM_NAMES.get(norm, norm)}"


def budget_words(budget: Budget) -> str:
    """A budget as a reader sees it: its radius, and what the attacker wants to see."""
    said = radius(budget.norm, budget.eps, budget.eps_units, budget.eps_image)
    return said + (f", to be called {budget.target}" if budget.target else "")


def people(cohort: CohortFacts) -> str:
    """Who the groups are: patients where ids are known, otherwise groups inferred from
    near-duplicates.
    """
    return "patients" if cohort.groups == "patient" else "inferred groups"
