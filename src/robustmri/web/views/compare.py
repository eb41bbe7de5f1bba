"""Two results case by case: who was saved, who was lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import ResultError
from robustmri.report.html import refuse_different_tests
from robustmri.report.verdict import make_cards, write_verdict
from robustmri.report.wording import budget_words, people
from robustmri.results.cases import CaseTable
from robustmri.results.headline import headline, main_budget
from robustmri.results.lineage import repairs
from robustmri.web.folder import Folder, id_of
from robustmri.web.views.overview import describe_result
from robustmri.web.views.result import MOST, MOST_PATIENTS, among, brief, facts

TURNS = {
    "saved": "Saved: wrong under attack before, right now",
    "lost": "Lost: right under attack before, wrong now",
    "both": "Right under attack in both",
    "neither": "Wrong under attack in both",
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
    tables = [folder.cases(id) for id in (first, second)]
    names = [folder.find("result", id).name for id in (first, second)]
    refuse_different_tests(reports, [table.outcomes for table in tables], names)
    at = main_budget(reports)
    numbers = [headline(report, at) for report in reports]
    if at is None or numbers[0] is None or numbers[1] is None:
        raise ResultError(f"{names[0]} and {names[1]} met no attack at the same eps.")
    turns = _turns(tables, [number.attack for number in numbers if number], at)
    table, report = tables[0], reports[0]
    verdict, below = write_verdict(reports, [one.outcomes for one in tables], at)
    chosen = np.flatnonzero((turns == show) & among(folder, first, query))
    known, patients = facts(folder, first), _by_patient(table, turns)
    chosen = chosen[np.lexsort((known.left[chosen], known.smallest[chosen]))]
    return {
        "first": {"id": first, "name": names[0], **describe_result(reports[0])},
        "second": {"id": second, "name": names[1], **describe_result(reports[1])},
        "repairs": repairs(reports),
        "verdict": verdict,
        "below": below,
        "cards": make_cards(reports, [one.outcomes for one in tables], at),
        "radius": budget_words(at, report.norms),
        "people": people(report.cohort),
        "turns": TURNS,
        "show": show,
        "class": query.get("class", ""),
        "patient": query.get("patient", ""),
        "found": len(chosen),
        "total": _count(turns),
        "classes": [
            {"id": str(place), "name": name, **_count(turns[table.column("label") == name])}
            for place, name in enumerate(report.cohort.classes)
        ],
        "patients": patients[:MOST_PATIENTS],
        "patients_found": len(patients),
        "cases": brief(folder, report, table, known, chosen[:MOST].tolist()),
    }


def _turns(tables: list[CaseTable], attacks: list[str], at: Any) -> npt.NDArray[np.str_]:
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
