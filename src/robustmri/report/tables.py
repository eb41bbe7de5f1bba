"""The before/after table: rows that line up several results, as plain text for terminal and
markdown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from robustmri.core.errors import SettingsError
from robustmri.report.wording import (
    bounds,
    budget_words,
    norms_of,
    p_value,
    people,
    percent,
    points,
    titles_of,
    with_interval,
)
from robustmri.results.budget import CLEAN, WORST, Budget
from robustmri.results.comparison import Comparison
from robustmri.results.headline import budget_of, main_budget
from robustmri.results.lineage import repairs
from robustmri.results.schema import ENOUGH, NormFacts, Result, RobustnessReport, html_table


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
    """Column heads: Before and After where the last repairs the first, otherwise what tells the
    models apart: network, file, or training.
    """
    if repairs(results):
        return ["Before", "After"]
    models = [result.model for result in results]
    names = [model.name for model in models]
    if len(models) > 1:
        candidates = (
            [model.backbone for model in models],
            [model.source for model in models],
            names,
            [f"{model.backbone}, {model.name}" for model in models],
        )
        for told in candidates:
            if len(set(told)) == len(told) and "" not in told:
                return told
    return [
        name if names.count(name) == 1 else f"{name} ({place + 1})"
        for place, name in enumerate(names)
    ]


def check_names(names: Sequence[str], count: int) -> list[str]:
    """Names that a person gave the classifiers, one each.

    Raises:
        SettingsError: another number of them, an empty one, or the same one twice.
    """
    given = [name.strip() for name in names]
    if len(given) != count or "" in given or len(set(given)) != count:
        raise SettingsError(
            f"--names needs {count} different names, one for each result and divided by commas, "
            f"got {', '.join(names)!r}."
        )
    return given


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


def at_main_eps(rows: Sequence[Row], at: Budget | None) -> list[Row]:
    """Rows that the table shows: clean ones, those at the main eps in every reading of it, those
    without an eps.
    """
    return [
        row
        for row in rows
        if row.budget.eps is None
        or (at is not None and (row.budget.norm, row.budget.eps) == (at.norm, at.eps))
    ]


def beside_main(
    rows: Sequence[Row], at: Budget | None, norms: Mapping[str, NormFacts]
) -> list[Row]:
    """Rows of what is neither an attack in a norm nor the physical threat of the headline:
    corruptions, and physical threats that were looked at besides.
    """
    main = at.norm if at else ""
    return [
        row
        for row in rows
        if row.budget.norm and row.budget.norm != main and norms[row.budget.norm].kind != "norm"
    ]


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
            + [with_interval(number.accuracy, number) if number else "-" for number in numbers]
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


def tabulate_comparison(comparison: Comparison) -> Table:
    """Two results, paired: a row for each attack within each budget, differences in points."""
    rows = [
        [
            number.title,
            "" if number.budget.eps is None else f"{number.budget.norm} {number.budget.eps:.4g}",
            percent(number.first),
            percent(number.second),
            points(number.difference),
            bounds(number.low, number.high),
            f"{number.saved}, {number.lost}",
            p_value(number.p_adjusted),
        ]
        for number in comparison.numbers
    ]
    sides = (comparison.first.name, comparison.second.name)
    heads = ["Attack", "Eps", *sides, "Points", "95 %", "Saved, lost", "p"]
    return Table(heads, rows, comparison.scope)


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
