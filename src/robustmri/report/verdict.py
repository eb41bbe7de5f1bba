"""The story in sentences and cards: what a physician reads first, and what forbids saying it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from robustmri.report.tables import headline, repairs, stage_names
from robustmri.report.wording import grey_levels, interval, norms_of, people, percent, points
from robustmri.results.budget import CLEAN, NO_BUDGET, Budget
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
    results: Sequence[RobustnessReport], extra: Sequence[Check] = ()
) -> list[CheckRow]:
    """Checks of all results side by side, the failed ones first."""
    names = stage_names(results)
    found: dict[str, list[tuple[str, Check]]] = {}
    for report, name in zip(results, names, strict=True):
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
    results: Sequence[RobustnessReport], outcomes: Sequence[Outcomes], at: Budget | None
) -> tuple[str, str]:
    """The verdict and the sentence below it, for someone who has never heard of eps.

    The first says what an attacker achieves: of the answers that were right, how many a change
    turns. The second says what is true of untouched slices.
    """
    first, last = results[0], results[-1]
    clean = [headline(report, None) for report in results]
    worst = [headline(report, at) if at else None for report in results]
    split = first.split
    who = ("phantom " if first.cohort.synthetic else "") + people(first.cohort)
    only = "only " if few_patients(results) else ""
    slices = f"{split.n_slices} {split.evaluated_set} slices of {only}{split.n_patients} {who}"
    below = _say_clean(results, clean)
    if at is None or worst[0] is None or at.eps_image is None:
        return f"No attack was run on these {slices}.", below
    where = WITHIN.get(first.settings.get("evaluate", {}).get("region", ""), "")
    norm = norms_of(results)[at.norm]
    shift = (
        f"A change of at most {grey_levels(at.eps_image)} of 255 grey levels per pixel{where}"
        if norm.per_pixel
        else f"A change{where} of at most {at.eps_image:.4g} in {norm.title} size"
    )
    subject = (
        "this classifier"
        if len(results) == 1
        else f"the classifier with {_inside(first.model.name)}"
    )
    if repairs(results):
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
        other = "after repair" if repairs(results) else f"with {_inside(last.model.name)}"
        said += f"; {other} {percent(turned[-1].share)}"
    return said + ".", below


def few_patients(results: Sequence[RobustnessReport]) -> str:
    """Why the headline is about these patients only; empty where there were enough."""
    found = (check for report in results for check in report.checks if check.name == ENOUGH)
    return next((check.detail for check in found if check.status != "pass"), "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _inside(name: str) -> str:
    """A name within a sentence.

    >>> _inside("Standard training"), _inside("PGD training")
    ('standard training', 'PGD training')
    """
    return name[:1].lower() + name[1:] if name[1:2].islower() else name


def _say_clean(results: Sequence[RobustnessReport], clean: Sequence[Result | None]) -> str:
    first, last = clean[0], clean[-1]
    if first is None:
        return ""
    said = f"On slices left as they were, it is right on {percent(first.accuracy)}"
    if len(results) > 1 and last is not None:
        one, other = (f"with {_inside(results[place].model.name)}" for place in (0, -1))
        if repairs(results):
            one, other = "before", "after repair"
        said += f" {one} and on {percent(last.accuracy)} {other}"
    return said + "."


def make_cards(
    results: Sequence[RobustnessReport], outcomes: Sequence[Outcomes], at: Budget | None
) -> list[Card]:
    """Clean accuracy, worst case, what repair brings and costs, confidence in the wrong answers."""
    clean = [headline(report, None) for report in results]
    cards = [_accuracy_card("Right on untouched slices", clean)]
    if at is None:
        return cards
    worst = [headline(report, at) for report in results]
    cards.append(_accuracy_card("Right under the worst attack", worst))
    if len(results) == 1 and clean[0] and worst[0]:
        lost = points(worst[0].accuracy - clean[0].accuracy)
        cards.append(Card("Lost to the attack", [Figure(None, lost, "percentage points")]))
    elif clean[0] and clean[-1] and worst[0] and worst[-1]:
        gain, cost = worst[-1].accuracy - worst[0].accuracy, clean[-1].accuracy - clean[0].accuracy
        title = (
            "What repair brings and costs, points"
            if repairs(results)
            else "Last against first, points"
        )
        cards.append(
            Card(
                title,
                [
                    Figure(None, points(gain), "under attack"),
                    Figure(None, points(cost), "untouched"),
                ],
            )
        )
    sure = []
    for place, (rows, number) in enumerate(zip(outcomes, worst, strict=True)):
        fooled = number and confidence_when_fooled(
            rows.rows(CLEAN, NO_BUDGET), rows.rows(number.attack, at)
        )
        if fooled:
            sure.append(Figure(place, percent(fooled), "median"))
    if sure:
        cards.append(Card("Its confidence when fooled", sure))
    return cards


def _accuracy_card(label: str, numbers: Sequence[Result | None]) -> Card:
    figures = [
        Figure(place, percent(number.accuracy), f"{interval(number)}")
        for place, number in enumerate(numbers)
        if number is not None
    ]
    return Card(label, figures)
