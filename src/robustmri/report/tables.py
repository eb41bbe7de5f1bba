"""The before/after table: rows that line up several results, as plain text for terminal and
markdown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from robustmri.report.wording import budget_words, interval, norms_of, people, percent, titles_of
from robustmri.results.budget import CLEAN, NO_BUDGET, WORST, Budget
from robustmri.results.schema import ENOUGH, Result, RobustnessReport, html_table


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A figure from the literature to stand beside ours; `accuracy` is a fraction, shown with two
    decimals.
    """

    what: str
    attack: str
    stage: Literal["before", "after"]
    accuracy: float
    source: str


class Row(msgspec.Struct, frozen=True):
    """One attack within one budget: a number per result and unit, None where it was not measured.

    `name` is the attack's as the field writes it.
    """

    attack: str
    name: str
    budget: Budget
    slices: list[Result | None]
    patients: list[Result | None]


class Table(msgspec.Struct, frozen=True):
    """Plain text: one header per column, one string per cell, remarks below."""

    headers: list[str]
    rows: list[list[str]]
    notes: list[str] = []

    def _repr_html_(self) -> str:
        """The same as HTML, for notebooks."""
        return html_table(self.headers, self.rows)


def stage_names(results: Sequence[RobustnessReport]) -> list[str]:
    """Column heads: Before and After where the last repairs the first, otherwise the models'
    names.
    """
    if repairs(results):
        return ["Before", "After"]
    names = [result.model.name for result in results]
    return [
        name if names.count(name) == 1 else f"{name} ({place + 1})"
        for place, name in enumerate(names)
    ]


def repairs(results: Sequence[RobustnessReport]) -> bool:
    """Whether these are two results, a standard network and a repaired one."""
    return (
        len(results) == 2 and results[0].model.objective == "standard" != results[1].model.objective
    )


def budget_of(result: Result) -> Budget:
    """What the attack behind a number was allowed."""
    if result.attack == CLEAN:
        return NO_BUDGET
    return Budget(result.norm, result.eps, result.eps_units, result.eps_image, result.target)


def align(results: Sequence[RobustnessReport]) -> list[Row]:
    """Rows in order of norm, units and eps; the clean one first, the worst case last within each
    budget.
    """
    found: dict[tuple[str, Budget], Row] = {}
    titles, norms = titles_of(results), list(norms_of(results))
    order: dict[str, int] = {}
    for place, report in enumerate(results):
        for result in report.results:
            order.setdefault(result.attack, len(order))
            key = (result.attack, budget_of(result))
            if key not in found:
                name = titles.get(result.attack, result.attack)
                empty = [None] * len(results)
                found[key] = Row(key[0], name, key[1], [*empty], [*empty])
            (found[key].patients if result.unit == "patient" else found[key].slices)[place] = result

    def rank(row: Row) -> tuple[Any, ...]:
        at = row.budget
        eps = math.inf if at.eps is None else at.eps
        return (
            row.attack != CLEAN,
            eps == math.inf,
            norms.index(at.norm) if at.norm else -1,
            at.eps_units,
            eps,
            at.target,
            row.attack == WORST,
            order[row.attack],
        )

    return sorted(found.values(), key=rank)


def main_budget(results: Sequence[RobustnessReport]) -> Budget | None:
    """The budget that the headline speaks of: where most attacks were run, of these the first; None
    without attacks.
    """
    attacks: dict[Budget, set[str]] = {}
    for result in results[0].results:
        if result.eps:
            attacks.setdefault(budget_of(result), set()).add(result.attack)
    return max(attacks, key=lambda at: len(attacks[at]), default=None)


def at_main_eps(rows: Sequence[Row], at: Budget | None) -> list[Row]:
    """Rows that the table shows: clean ones, those at the main eps in every reading of it, those
    without an eps.
    """
    return [
        row
        for row in rows
        if row.budget.eps is None or (at is not None and row.budget.eps == at.eps)
    ]


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


def published_for(
    row: Row, stage: str, published: Sequence[Published], at: Budget | None
) -> Published | None:
    """The figure to stand beside a row: the clean one, or the attack at the main eps in either
    reading of its units.
    """
    same_eps = at is not None and (row.budget.norm, row.budget.eps) == (at.norm, at.eps)
    if row.attack != CLEAN and not same_eps:
        return None
    return next(
        (figure for figure in published if (figure.attack, figure.stage) == (row.attack, stage)),
        None,
    )


def comparison_table(
    results: Sequence[RobustnessReport],
    published: Sequence[Published] = (),
    *,
    unit: Literal["slice", "patient"] = "slice",
    every: bool = False,
) -> Table:
    """Accuracy under each attack, a column per result, published figures beside measured ones.

    Only the main eps is shown, where most attacks were run, unless `every` is asked for; a report's
    curve and its full table hold the others. Cells read `98.3 % [96.9 to 99.2]`, the brackets
    holding the 95 % interval by patient; `-` means not measured.
    """
    at, norms = main_budget(results), norms_of(results)
    quoted = [
        stage for stage in ("before", "after") if any(figure.stage == stage for figure in published)
    ]
    rows = []
    for row in align(results) if every else at_main_eps(align(results), at):
        numbers = row.patients if unit == "patient" else row.slices
        if not any(numbers):
            continue
        beside = [published_for(row, stage, published, at) for stage in quoted]
        rows.append(
            [row.name, budget_words(row.budget, norms)]
            + [
                f"{percent(number.accuracy)} [{interval(number)}]" if number else "-"
                for number in numbers
            ]
            + [f"{100 * figure.accuracy:.2f} %" if figure else "-" for figure in beside]
        )
    split = results[0].split
    checks = [check for report in results for check in (*report.split.leakage, *report.checks)]
    failed = dict.fromkeys(check.name for check in checks if check.status == "fail")
    notes = [f"Do not quote: a check failed ({', '.join(failed)})."] if failed else []
    notes += [
        f"Accuracy over {split.n_slices} {split.evaluated_set} slices of {split.n_patients} "
        f"{people(results[0].cohort)}; brackets: 95 % interval."
    ]
    notes += _memory_note(results, at)
    if any(check.name == ENOUGH and check.status == "warn" for check in checks):
        notes.append(f"Too few {people(results[0].cohort)} for a claim.")
    if split.kind in ("slice", "none"):
        notes.append(split.note)
    if results[0].cohort.synthetic:
        notes.append("Synthetic phantom, not patients.")
    notes += [
        f"Published: {source}." for source in dict.fromkeys(figure.source for figure in published)
    ]
    heads = [
        "Attack",
        "Radius",
        *stage_names(results),
        *(f"Published, {stage}" for stage in quoted),
    ]
    return Table(heads, rows, notes)


def _memory_note(results: Sequence[RobustnessReport], at: Budget | None) -> list[str]:
    """What the nearest training slice, without any network, reaches at the main eps."""
    for report in results:
        if report.baseline is not None:
            clean, *certified = report.baseline.results
            limited = [one for one in certified if at and (one.eps, one.norm) == (at.eps, at.norm)]
            return [
                f"Nearest training slice, no network: {percent(clean.accuracy)} untouched"
                + "".join(f", certified {percent(one.accuracy)}" for one in limited[:1])
                + "."
            ]
    return []


def as_markdown(table: Table) -> str:
    """The table in GitHub's markdown, its notes as a paragraph below.

    >>> print(as_markdown(Table(["Attack", "Before"], [["PGD", "0.2 %"]])))
    | Attack | Before |
    |---|---|
    | PGD | 0.2 % |
    """

    def line(cells: Sequence[str]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )

    lines = [line(table.headers), "|" + "---|" * len(table.headers), *map(line, table.rows)]
    return "\n".join([*lines, "", " ".join(table.notes)] if table.notes else lines)
