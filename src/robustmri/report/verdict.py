"""The story in sentences and cards: what a physician reads first, and what forbids saying it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from robustmri.report.tables import stage_names
from robustmri.report.wording import (
    bounds,
    grey_levels,
    interval,
    norms_of,
    people,
    percent,
    points,
    radius,
)
from robustmri.results.budget import CLEAN, CORRUPTION, NO_BUDGET, Budget
from robustmri.results.comparison import Comparison, Paired
from robustmri.results.headline import headline
from robustmri.results.lineage import repairs
from robustmri.results.outcomes import Outcomes, confidence_when_fooled, count_turned
from robustmri.results.schema import ENOUGH, Check, Result, RobustnessReport, Status

WITHIN = {
    "brain": " of the head",
    "lesion": " inside the lesion",
    "outside-lesion": " outside the lesion",
}
SEVERITY: dict[Status, int] = {"fail": 0, "warn": 1, "pass": 2}


class Figure(msgspec.Struct, frozen=True):
    """A number on a card, in the colour of its classifier; `stage` None for none of them."""

    stage: int | None
    value: str
    note: str = ""


class Card(msgspec.Struct, frozen=True):
    """A headline number, one figure per classifier."""

    label: str
    figures: list[Figure]
    note: str = ""


class CheckRow(msgspec.Struct, frozen=True):
    """A check as it ended for each classifier; `entries` holds one (name, check) where they all
    agree.
    """

    name: str
    status: Status
    entries: list[tuple[str, Check]]


def gather_checks(
    results: Sequence[RobustnessReport],
    extra: Sequence[Check] = (),
    names: Sequence[str] | None = None,
) -> list[CheckRow]:
    """Checks of all results side by side, the failed ones first."""
    found: dict[str, list[tuple[str, Check]]] = {}
    for report, name in zip(results, names or stage_names(results), strict=True):
        for check in (*report.split.leakage, *report.checks):
            found.setdefault(check.name, []).append((name, check))
    for check in extra:
        found.setdefault(check.name, []).append(("", check))
    rows = []
    for title, entries in found.items():
        same = len({(check.status, check.detail) for _, check in entries}) == 1
        worst = min((check.status for _, check in entries), key=SEVERITY.__getitem__)
        everywhere = same and (len(entries) == len(results) or entries[0][0] == "")
        rows.append(CheckRow(title, worst, [("", entries[0][1])] if everywhere else entries))
    return sorted(rows, key=lambda row: SEVERITY[row.status])


def failures(rows: Sequence[CheckRow]) -> list[str]:
    """Why there is no headline, a sentence per failed check; empty where all is well."""
    return [
        f"{row.name}{f' ({name})' if name else ''}: {check.detail}"
        for row in rows
        for name, check in row.entries
        if check.status == "fail"
    ]


def write_verdict(
    results: Sequence[RobustnessReport],
    outcomes: Sequence[Outcomes],
    at: Budget | None,
    names: Sequence[str] | None = None,
    comparison: Comparison | None = None,
) -> tuple[str, str]:
    """The verdict and the sentence below it, for someone who has never heard of eps.

    Of a classifier, and of its repair, the first says what an attacker achieves: of the answers
    that were right, how many a change turns. Of two classifiers that were compared it says which
    one withstands more. The second says what is true of untouched slices.
    """
    names = names or stage_names(results)
    first, repaired = results[0], repairs(results)
    clean = [headline(report, None) for report in results]
    worst = [headline(report, at) if at else None for report in results]
    who = ("phantom " if first.cohort.synthetic else "") + people(first.cohort)
    split = first.split
    tested = f"{_only(results)}{split.n_patients} {who}"
    slices = f"{split.n_slices} {split.evaluated_set} slices of {tested}"
    below = _say_clean(names, clean, repaired)
    if at is None or worst[0] is None:
        return _say_without_budget(results, slices), below
    shift = _say_change(first, at)
    if comparison is not None and comparison.headline is not None:
        if not repaired:
            return _say_more_robust(comparison, comparison.headline, shift, at, who), (
                _say_clean_of_two(comparison, names)
            )
        below = _say_repair(comparison, comparison.headline, below)
        if _met_others(worst, comparison.headline):
            number = comparison.headline
            return (
                f"Under {shift[:1].lower()}{shift[1:]}, by the attacks that both met, the standard "
                f"classifier {_say_kept(at)} {percent(number.first)} of {number.n} slices of "
                f"{number.n_patients} {who}, the repaired one on {percent(number.second)}."
            ), below
    subject = "this classifier" if len(results) == 1 else names[0]
    if repaired:
        subject = "the standard classifier"
    turned = [
        count_turned(rows.rows(CLEAN, NO_BUDGET), rows.rows(number.attack, at), at.target)
        for rows, number in zip(outcomes, worst, strict=True)
        if number is not None
    ]
    first_share = turned[0]
    if not first_share.of:
        return f"{_capital(subject)} is right on none of {slices}, attacked or not.", below
    answers = f"answers that were not {at.target}" if at.target else "right answers"
    into = f"into {at.target}" if at.target else "wrong"
    share = "all of" if first_share.share == 1 else f"{percent(first_share.share)} of"
    said = f"{shift} is enough to turn {share} {subject}'s {answers} {into}, on {slices}"
    if not first_share.turned:
        said = f"{shift} turned none of {subject}'s {answers} {into}, on {slices}"
    if len(results) > 1 and worst[-1] is not None:
        other = "after repair" if repaired else f"of {names[-1]}'s"
        said += f"; {other} {percent(turned[-1].share)}"
    return said + ".", below


def _say_without_budget(results: Sequence[RobustnessReport], slices: str) -> str:
    """Where no attack had a radius, or none that all results share: how near the nearest images
    lie, if they were looked for.
    """
    first = results[0]
    numbers = [number for report in results for number in report.results]
    if all(number.attack == CLEAN or number.norm == CORRUPTION for number in numbers):
        return f"No attack was run on these {slices}."
    if len(results) > 1:
        return "No attack was run within the same budget on all of them."
    if not first.sensitivity:
        return f"No attack within a fixed eps was run on these {slices}."
    found = first.sensitivity[0]
    who = f"{_only(results)}{found.n_patients} {people(first.cohort)}"
    on = f"on the {found.n} slices of {who} that were searched"
    half = found.quantiles["0.5"]
    if half is None:
        return f"No change that was found turns half of this classifier's right answers, {on}."
    shift = _say_change(first, Budget(found.norm, half, "image", half))
    return f"{shift} is enough to turn half of this classifier's right answers wrong, {on}."


def _say_change(report: RobustnessReport, at: Budget) -> str:
    """What the attacker may do, as the subject of a sentence."""
    where = WITHIN.get(report.asked.region, "")
    norm, eps = norms_of([report])[at.norm], at.eps_image or 0.0
    if norm.kind != "norm":
        return f"A {radius(at, norm)}"
    if norm.per_pixel:
        levels = "levels of each colour" if report.cohort.channels == 3 else "grey levels"
        return f"A change of at most {grey_levels(eps)} of 255 {levels} per pixel{where}"
    return f"A change{where} of at most {eps:.4g} in {norm.title} size"


def _say_kept(at: Budget) -> str:
    return f"is not made to say {at.target} on" if at.target else "stays right on"


def _say_more_robust(
    comparison: Comparison, number: Paired, shift: str, at: Budget, who: str
) -> str:
    """Which of two classifiers is the more robust, and by how much."""
    sides = [(comparison.first.name, number.first), (comparison.second.name, number.second)]
    (better, more), (worse, less) = sorted(sides, key=lambda side: -side[1])
    low, high = sorted((abs(number.low), abs(number.high)))
    under = f"under {shift[:1].lower()}{shift[1:]}"
    kept, on = _say_kept(at), f"of {number.n} slices of {number.n_patients} {who}"
    if number.decided:
        return (
            f"{better} is more robust than {worse}: {under} it {kept} {percent(more)} {on}, "
            f"{worse} on {percent(less)}, a difference of {100 * (more - less):.1f} points (95 % "
            f"interval {100 * low:.1f} to {100 * high:.1f})."
        )
    return (
        f"{comparison.first.name} and {comparison.second.name} cannot be told apart: {under} the "
        f"first {kept} {percent(number.first)} {on}, the second on {percent(number.second)}, and "
        f"the 95 % interval of the difference, {bounds(number.low, number.high)} points, holds 0."
    )


def _say_clean_of_two(comparison: Comparison, names: Sequence[str]) -> str:
    number = comparison.clean
    said = (
        f"On slices left as they were, {names[0]} is right on {percent(number.first)} and "
        f"{names[1]} on {percent(number.second)} ({points(number.difference)} points, 95 % "
        f"interval {bounds(number.low, number.high)})."
    )
    return " ".join([said, *comparison.scope[1:]])


def _say_repair(comparison: Comparison, number: Paired, below: str) -> str:
    clean = comparison.clean
    said = (
        f"Under attack repair is worth {points(number.difference)} points (95 % interval "
        f"{bounds(number.low, number.high)}), on untouched slices {points(clean.difference)} "
        f"({bounds(clean.low, clean.high)})."
    )
    return " ".join([below, said, *comparison.scope[1:]])


def few_patients(results: Sequence[RobustnessReport]) -> str:
    """Why the headline is about these patients only; empty where there were enough."""
    found = (check for report in results for check in report.checks if check.name == ENOUGH)
    return next((check.detail for check in found if check.status != "pass"), "")


def _only(results: Sequence[RobustnessReport]) -> str:
    return "only " if few_patients(results) else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _say_clean(names: Sequence[str], clean: Sequence[Result | None], repaired: bool) -> str:
    first, last = clean[0], clean[-1]
    if first is None:
        return ""
    if len(clean) == 1 or last is None:
        return f"On slices left as they were, it is right on {percent(first.accuracy)}."
    if repaired:
        return (
            f"On slices left as they were, it is right on {percent(first.accuracy)} before and on "
            f"{percent(last.accuracy)} after repair."
        )
    return (
        f"On slices left as they were, {names[0]} is right on {percent(first.accuracy)} and "
        f"{names[-1]} on {percent(last.accuracy)}."
    )


def make_cards(
    results: Sequence[RobustnessReport],
    outcomes: Sequence[Outcomes],
    at: Budget | None,
    names: Sequence[str] | None = None,
    comparison: Comparison | None = None,
) -> list[Card]:
    """Clean accuracy, worst case, what repair brings and costs, confidence in the wrong answers."""
    clean = [headline(report, None) for report in results]
    cards = [_accuracy_card("Right on untouched slices", clean)]
    if at is None:
        return cards
    worst = [headline(report, at) for report in results]
    kept = f"Not made to say {at.target}" if at.target else "Right under the worst attack"
    shared = comparison.headline if comparison else None
    if shared is not None and _met_others(worst, shared):
        both = [
            Figure(place, percent(share), "by what both met")
            for place, share in enumerate((shared.first, shared.second))
        ]
        cards.append(Card(kept, both))
    else:
        cards.append(_accuracy_card(kept, worst))
    if len(results) == 1:
        if clean[0] and worst[0] and not at.target:
            lost = points(worst[0].accuracy - clean[0].accuracy)
            cards.append(Card("Lost to the attack", [Figure(None, lost, "percentage points")]))
    elif clean[0] and clean[-1] and worst[0] and worst[-1]:
        names = names or stage_names(results)
        against = f"{names[-1]} against {names[0]}, points"
        title = "What repair brings and costs, points" if repairs(results) else against
        gain, cost = worst[-1].accuracy - worst[0].accuracy, clean[-1].accuracy - clean[0].accuracy
        figures = [
            Figure(None, points(gain), "under attack"),
            Figure(None, points(cost), "untouched"),
        ]
        if comparison is not None and comparison.headline is not None:
            measured = ((comparison.headline, "under attack"), (comparison.clean, "untouched"))
            figures = [
                Figure(None, points(one.difference), f"{what}, {bounds(one.low, one.high)}")
                for one, what in measured
            ]
        cards.append(Card(title, figures))
    sure = []
    for place, (rows, number) in enumerate(zip(outcomes, worst, strict=True)):
        fooled = number and confidence_when_fooled(
            rows.rows(CLEAN, NO_BUDGET), rows.rows(number.attack, at), at.target
        )
        if fooled:
            sure.append(Figure(place, percent(fooled), "median"))
    if sure:
        cards.append(Card("Its confidence when fooled", sure))
    return cards


def _met_others(worst: Sequence[Result | None], shared: Paired) -> bool:
    """Whether the worst cases of two results are not those of the slices and attacks that both
    met.
    """
    shares = (shared.first, shared.second)
    return any(
        number is None or not math.isclose(number.accuracy, share)
        for number, share in zip(worst, shares, strict=True)
    )


def _accuracy_card(label: str, numbers: Sequence[Result | None]) -> Card:
    figures = [
        Figure(place, percent(number.accuracy), f"{interval(number)}")
        for place, number in enumerate(numbers)
        if number is not None
    ]
    return Card(label, figures)
