"""Two results case by case: who was saved, who was lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.errors import ResultError
from robustmri.report.html import refuse_different_tests
from robustmri.report.verdict import failures, gather_checks, make_cards, write_verdict
from robustmri.report.wording import (
    bounds,
    budget_words,
    norms_of,
    p_value,
    people,
    percent,
    points,
)
from robustmri.results.budget import WORST, Budget
from robustmri.results.cases import CaseTable
from robustmri.results.comparison import Paired
from robustmri.results.headline import attacks_within, headline, main_budget
from robustmri.results.lineage import repairs
from robustmri.results.schema import RobustnessReport
from robustmri.web.folder import Folder, id_of
from robustmri.web.views.overview import describe_result
from robustmri.web.views.result import MOST, MOST_PATIENTS, among, brief, facts

MOST_PAIRS = 4
"""Results beside one that are kept paired with it."""
TURNS = {
    "saved": "Saved: wrong under attack before, right now",
    "lost": "Lost: right under attack before, wrong now",
    "both": "Right under attack in both",
    "neither": "Wrong under attack in both",
}
TURNS_OF_TARGET = {
    "saved": "Saved: called {0} under attack before, not called so now",
    "lost": "Lost: not called {0} under attack before, called so now",
    "both": "Called {0} under attack in neither",
    "neither": "Called {0} under attack in both",
}


def compare(folder: Folder, first: str, second: str, query: Mapping[str, str]) -> dict[str, Any]:
    """Counts by class and patient of who was saved and lost, and the cases of one kind.

    Args:
        folder: the folder.
        first: id of the result before.
        second: of the one after.
        query: `show`, a key of `TURNS`; `class` and `patient`, see `result.among`.

    Raises:
        ResultError: the results are not of the same test slices, or share no budget.
        SettingsError: no such class.
        NotThereError: no such patient.
    """
    show = query.get("show", "") or "saved"
    if show not in TURNS:
        raise ResultError(f"show must be one of {', '.join(TURNS)}.")
    reports = [folder.result(id) for id in (first, second)]
    names = [folder.find("result", id).name for id in (first, second)]
    pair, table, report = _pair(folder, (first, second), names), folder.cases(first), reports[0]
    known, turns = facts(folder, first), pair.turns
    chosen = np.flatnonzero((turns == show) & among(folder, first, query))
    chosen = chosen[np.lexsort((known.left[chosen], known.smallest[chosen]))]
    return {
        "first": {"id": first, "name": names[0], **describe_result(reports[0])},
        "second": {"id": second, "name": names[1], **describe_result(reports[1])},
        "repairs": repairs(reports),
        **pair.words,
        "paired": _paired(folder, reports),
        "people": people(report.cohort),
        "show": show,
        "class": query.get("class", ""),
        "patient": query.get("patient", ""),
        "found": len(chosen),
        "cases": brief(folder, report, table, known, chosen[:MOST].tolist()),
    }


class Pair(msgspec.Struct, frozen=True):
    """What is derived once from two tables: which turn each case of the first took, and what the
    page says that does not depend on the cases it shows.
    """

    of: tuple[CaseTable, CaseTable]
    turns: npt.NDArray[np.str_]
    words: dict[str, Any]


def _pair(folder: Folder, ids: tuple[str, str], names: list[str]) -> Pair:
    """Of two results, kept until one of them changes."""
    tables, kept = (folder.cases(ids[0]), folder.cases(ids[1])), facts(folder, ids[0]).pairs
    if ids[1] not in kept or kept[ids[1]].of[1] is not tables[1]:
        if len(kept) >= MOST_PAIRS:
            kept.clear()
        reports = [folder.result(id) for id in ids]
        kept[ids[1]] = _derive(reports, tables, names)
    made: Pair = kept[ids[1]]
    return made


def _derive(
    reports: list[RobustnessReport], tables: tuple[CaseTable, CaseTable], names: list[str]
) -> Pair:
    outcomes = [table.outcomes for table in tables]
    refuse_different_tests(reports, outcomes, names)
    at = main_budget(reports)
    numbers = [headline(report, at) for report in reports]
    if at is None or numbers[0] is None or numbers[1] is None:
        raise ResultError(f"{names[0]} and {names[1]} met no attack at the same eps.")
    turns = _turns(tables, [number.attack for number in numbers if number], at)
    verdict, below = write_verdict(reports, outcomes, at)
    patients, labels = _by_patient(tables[0], turns), tables[0].column("label")
    words = {
        "verdict": verdict,
        "below": " ".join([below, *_say_unlike(reports, names, at)]),
        "reasons": failures(gather_checks(reports, names=names)),
        "cards": make_cards(reports, outcomes, at),
        "radius": budget_words(at, reports[0].norms),
        "turns": {
            turn: said.format(at.target)
            for turn, said in (TURNS_OF_TARGET if at.target else TURNS).items()
        },
        "total": _count(turns),
        "classes": [
            {"id": str(place), "name": name, **_count(turns[labels == name])}
            for place, name in enumerate(reports[0].cohort.classes)
        ],
        "patients": patients[:MOST_PATIENTS],
        "patients_found": len(patients),
    }
    return Pair(tables, turns, words)


def _paired(folder: Folder, reports: list[RobustnessReport]) -> dict[str, Any] | None:
    """What `compare` found out about these two, with intervals by patient; None where it was not
    asked so far.
    """
    own = [report.files.get("outcomes.parquet", "") for report in reports]
    for found, made in folder.comparisons():
        sides = [made.first.outcomes_sha256, made.second.outcomes_sha256]
        if "" in sides or sorted(sides) != sorted(own):
            continue
        turned = sides != own
        norms = norms_of(reports)
        page = id_of("report", found.name.removesuffix(".json") + ".html")
        return {
            "page": page,
            "scope": made.scope,
            "methods": list(dict.fromkeys(row.method for row in made.numbers)),
            "numbers": [_say_paired(row, made.at, norms, turned=turned) for row in made.numbers],
            "classes": [_say_paired(row, made.at, norms, turned=turned) for row in made.classes],
        }
    return None


def _say_unlike(reports: list[RobustnessReport], names: list[str], at: Budget) -> list[str]:
    """That the worst cases are not of the same attacks."""
    met = [attacks_within(report)[at] - {WORST} for report in reports]
    if met[0] == met[1]:
        return []
    titles = {run.attack: run.title for report in reports for run in report.attacks}
    alone = [
        f"{name} alone met {', '.join(sorted(titles.get(one, one) for one in own - other))}"
        for name, own, other in zip(names, met, met[::-1], strict=True)
        if own - other
    ]
    return [f"These are not worst cases of the same attacks: {'; '.join(alone)}."]


def _say_paired(
    row: Paired, at: Budget | None, norms: Mapping[str, Any], *, turned: bool
) -> dict[str, Any]:
    main = row.budget.eps is None or row.budget == at
    row = row.turned() if turned else row
    return {
        "title": row.title,
        "radius": budget_words(row.budget, norms),
        "label": row.label,
        "first": percent(row.first),
        "second": percent(row.second),
        "difference": [row.low, row.difference, row.high],
        "points": points(row.difference),
        "bounds": bounds(row.low, row.high),
        "saved": row.saved,
        "lost": row.lost,
        "people_saved": row.patients_saved,
        "people_lost": row.patients_lost,
        "p": p_value(row.p_adjusted),
        "worst": row.attack == WORST,
        "main": main,
    }


def _turns(
    tables: tuple[CaseTable, CaseTable], attacks: list[str], at: Any
) -> npt.NDArray[np.str_]:
    before = tables[0].right_under(attacks[0], at)
    place = {str(name): k for k, name in enumerate(tables[1].column("case_id"))}
    order = np.array([place[str(name)] for name in tables[0].column("case_id")])
    after = tables[1].right_under(attacks[1], at)[order]
    words = np.array([["neither", "saved"], ["lost", "both"]])
    met = (before >= 0) & (after >= 0)
    return np.where(met, words[np.clip(before, 0, 1), np.clip(after, 0, 1)], "")


def _count(turns: npt.NDArray[np.str_]) -> dict[str, int]:
    return {turn: int((turns == turn).sum()) for turn in TURNS}


def _by_patient(table: CaseTable, turns: npt.NDArray[np.str_]) -> list[dict[str, Any]]:
    patients = table.column("patient_id").astype(str)
    names, of = np.unique(patients, return_inverse=True)
    counts = {turn: np.bincount(of, weights=turns == turn) for turn in TURNS}
    order = np.lexsort((names, counts["saved"] - counts["lost"]))
    return [
        {
            "id": id_of("patient", str(names[k])),
            "name": str(names[k]),
            **{turn: int(count[k]) for turn, count in counts.items()},
        }
        for k in order
    ]
