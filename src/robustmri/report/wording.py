"""How the report says numbers: percentages, intervals, radii, names of attacks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from robustmri.results.budget import CORRUPTION, TITLES, Budget
from robustmri.results.detection import Share
from robustmri.results.schema import (
    CohortFacts,
    NormFacts,
    RegionResult,
    Result,
    RobustnessReport,
    SaliencyResult,
)

Bounded = Result | RegionResult | SaliencyResult | Share
EFFECTIVE = re.compile(r"([\d.]+)(?= effective of )")


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
    return f"{points(difference[0])} [{bounds(*difference[1:])}]"


def bounds(low: float, high: float) -> str:
    """Bounds of a difference of two fractions, in percentage points.

    >>> bounds(0.012, 0.3)
    '+1.2 to +30.0'
    """
    return f"{points(low)} to {points(high)}"


def interval(result: Bounded) -> str:
    """Bounds of the interval in percent, as in `97.1 to 99.2`."""
    return f"{100 * result.ci_low:.1f} to {100 * result.ci_high:.1f}"


def with_interval(share: float, result: Bounded) -> str:
    """A share of the result with its interval, as in `98.3 % [96.9 to 99.2]`."""
    return f"{percent(share)} [{interval(result)}]"


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
    titles = dict(TITLES)
    for result in results:
        for run in result.attacks:
            titles |= {**run.members, run.attack: run.title}
    return titles


def norms_of(results: Sequence[RobustnessReport]) -> dict[str, NormFacts]:
    """Name to facts of every norm of the results, in the order in which they are shown."""
    found: dict[str, NormFacts] = {}
    for result in results:
        found |= result.norms
    return found


def radius(budget: Budget, norm: NormFacts) -> str:
    """Radius in words, with its size in grey levels where the norm makes that meaningful.

    >>> linf = NormFacts(title="l-infinity", meaning="largest change of any pixel", per_pixel=True)
    >>> radius(Budget("linf", 0.04, "image", 0.04), linf)
    'eps 0.04 (10.2/255)'
    >>> radius(Budget("linf", 0.04, "normalised", 0.00902), linf)
    'eps 0.04 normalised (2.3/255)'
    >>> turned = NormFacts(
    ...     title="change of position", meaning="", per_pixel=False, kind="physical", unit="degrees"
    ... )
    >>> radius(Budget("affine", 5.0, "image", None), turned)
    'change of position, eps 5 degrees'
    """
    if norm.kind != "norm":
        word = norm.meaning if norm.kind == CORRUPTION else "eps"
        return " ".join(filter(None, (f"{norm.title}, {word} {budget.eps:.4g}", norm.unit)))
    words = f"eps {budget.eps:.4g}" + (" normalised" if budget.eps_units == "normalised" else "")
    if norm.per_pixel and budget.eps_image is not None:
        return f"{words} ({grey_levels(budget.eps_image)}/255)"
    return f"{words}, {norm.title}"


def budget_words(budget: Budget, norms: Mapping[str, NormFacts]) -> str:
    """A budget as a reader sees it: its radius, and what the attacker wants to see."""
    limited = budget.eps is not None and math.isfinite(budget.eps)
    said = radius(budget, norms[budget.norm]) if limited else ""
    return said + (f", to be called {budget.target}" if budget.target else "")


def words_of(results: Sequence[RobustnessReport]) -> Callable[[Budget], str]:
    """Says the budgets that the attacks of the results were given, also those without a radius."""
    norms = norms_of(results)
    return lambda at: budget_words(at, norms) or "their own distance"


def methods_of(said: Iterable[str]) -> list[str]:
    """How intervals were drawn, each way once; ways that differ in one number have its range.

    >>> methods_of(["exact, 41.2 effective of 32", "Wilson", "exact, 15.4 effective of 32"])
    ['exact, 15.4 to 41.2 effective of 32', 'Wilson']
    """
    ways: dict[tuple[str, ...], set[str]] = {}
    for method in said:
        around = EFFECTIVE.split(method)  # The number stands alone between what does not differ.
        ways.setdefault((around[0], *around[2:]), set()).update(around[1:2])
    return [
        " to ".join(dict.fromkeys((min(found, key=float), max(found, key=float)))).join(around)
        if found
        else around[0]
        for around, found in ways.items()
    ]


def p_value(value: float) -> str:
    """A p-value with as many digits as it deserves.

    >>> p_value(0.0312), p_value(0.5), p_value(0.0000123)
    ('0.031', '0.50', '< 0.001')
    """
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def people(cohort: CohortFacts) -> str:
    """Who the groups are: patients where ids are known, otherwise groups inferred from
    near-duplicates.
    """
    return "patients" if cohort.groups == "patient" else "inferred groups"
