"""One result: its verdict, its numbers and checks, and its cases to browse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.data.cohort import Cohort
from robustmri.report.sections.certificate import certificate_table
from robustmri.report.tables import align, at_main_eps
from robustmri.report.verdict import failures, gather_checks, make_cards, write_verdict
from robustmri.report.wording import (
    budget_words,
    grey_levels,
    norms_of,
    people,
    percent,
)
from robustmri.results.budget import CLEAN, NO_BUDGET, Budget
from robustmri.results.cases import FATES, CaseTable, say_fates
from robustmri.results.headline import headline, main_budget
from robustmri.results.schema import Example, RobustnessReport
from robustmri.web.folder import Folder, NotThereError, id_of
from robustmri.web.forms import search_fields
from robustmri.web.views.attacks import explain_attacks
from robustmri.web.views.overview import describe_result, say, test_set

MOST = 120
"""Cases in one answer."""
MOST_ORDERS = 16
"""Of the cases of a result that are kept: a reader goes through one of them."""
MOST_PATIENTS = 200
"""Patients in one answer; where there are more, they are looked for by a part of their name."""
SORTS = {
    "fragile": "Most fragile first",
    "sturdy": "Most robust first",
    "unsure": "Least sure first",
    "order": "As in the cohort",
}


def result(folder: Folder, id: str, query: Mapping[str, str]) -> dict[str, Any]:
    """What is true of the whole result; of its patients see `patients`."""
    found, report, table = folder.find("result", id), folder.result(id), folder.cases(id)
    summary = folder.keep("summary", found.path, lambda: _summarise(report, table))
    at = main_budget([report])
    return {
        "id": id,
        "name": found.name,
        **summary,
        **patients(folder, id, query),
        "fates": say_fates(at.target if at else ""),
        "sorts": SORTS,
        "beside": beside(folder, id),
        "certificate": _certificate(folder, id),
        "search": search_fields(report),
    }


def _summarise(report: RobustnessReport, table: CaseTable) -> dict[str, Any]:
    at, checks = main_budget([report]), gather_checks([report])
    verdict, below = write_verdict([report], [table.outcomes], at)
    return {
        **describe_result(report),
        "verdict": verdict,
        "below": below,
        "reasons": failures(checks),
        "caution": report.split.note if report.split.kind == "slice" else "",
        "cards": make_cards([report], [table.outcomes], at),
        "numbers": _numbers(report, at),
        "check_rows": [
            {"name": row.name, "status": row.status, "detail": row.entries[0][1].detail}
            for row in checks
        ],
        "threat": report.threat,
        "classes": report.cohort.classes,
        "people": people(report.cohort),
    }


def _certificate(folder: Folder, id: str) -> dict[str, Any] | None:
    """What holds for certain, in the report's words; why it cannot be shown, or None without
    one.
    """
    try:
        found = folder.certificate(id)
    except RobustMRIError as error:
        return {"why": folder.say(error)}
    if found is None:
        return None
    table = certificate_table(found)
    return {"headers": table.headers, "rows": table.rows, "notes": table.notes}


def _numbers(report: RobustnessReport, at: Budget | None) -> list[dict[str, Any]]:
    about = explain_attacks(report)
    return [
        {
            "attack": row.name,
            "radius": budget_words(row.budget, report.norms),
            "slices": say(row.slices[0]),
            "patients": say(row.patients[0]),
            "main": row in at_main_eps([row], at),
            "worst": row.attack == "worst",
            "about": about.get(row.attack, ""),
        }
        for row in align([report])
    ]


def patients(folder: Folder, id: str, query: Mapping[str, str]) -> dict[str, Any]:
    """The first patients by name whose name has what `like` says in it, how many there are, and
    the one whose id is `patient`.
    """
    every, like = facts(folder, id).patients, query.get("like", "").casefold()
    found = [one for one in every.values() if like in one["name"].casefold()]
    chosen = every.get(query.get("patient", ""))
    return {"patients": found[:MOST_PATIENTS], "patients_found": len(found), "patient": chosen}


def _patients(table: CaseTable) -> dict[str, dict[str, Any]]:
    """By id, in the order of their names."""
    names, counts = np.unique(table.column("patient_id").astype(str), return_counts=True)
    ids = [id_of("patient", name) for name in names.tolist()]
    return {
        id: {"id": id, "name": name, "slices": int(count)}
        for id, name, count in zip(ids, names.tolist(), counts, strict=True)
    }


def beside(folder: Folder, id: str) -> list[dict[str, str]]:
    """Other results of the same test slices."""
    own = test_set(folder.result(id))
    return [
        {"id": found.id, "name": found.name, "model": other.model.name}
        for found, other in folder.results()
        if found.id != id and test_set(other) == own
    ]


class Facts(msgspec.Struct, frozen=True):
    """What is derived once from the table: for each case its fate, smallest eps and the confidence
    in the true class that the headline's attack left; ids to numbers, of those that were listed
    until another is asked for; the patients by id, the orders that were asked for, and the results
    that it was paired with.
    """

    fates: npt.NDArray[np.str_]
    smallest: npt.NDArray[np.float64]
    left: npt.NDArray[np.float64]
    numbers: dict[str, int]
    patients: dict[str, dict[str, Any]]
    orders: dict[tuple[str, ...], npt.NDArray[np.intp]] = {}
    pairs: dict[str, Any] = {}


def facts(folder: Folder, id: str) -> Facts:
    """Of a result, kept until it changes."""
    report, table = folder.result(id), folder.cases(id)

    def derive() -> Facts:
        return Facts(
            fates=_fates(report, table),
            smallest=table.smallest_eps(main_norm(report)),
            left=_confidence_left(report, table),
            numbers={},
            patients=_patients(table),
        )

    return folder.keep("facts", folder.find("result", id).path, derive)


def main_norm(report: RobustnessReport) -> str:
    """The norm in which the headline speaks of eps."""
    at = main_budget([report])
    return at.norm if at else next(iter(report.norms), "linf")


def number_of(folder: Folder, id: str, case: str) -> int:
    """Number of a case in the table.

    Raises:
        NotThereError: the result has no such case.
    """
    known, table = facts(folder, id), folder.cases(id)
    if case not in known.numbers and len(known.numbers) < len(table):
        names = table.column("case_id")
        known.numbers.update({id_of("case", str(name)): at for at, name in enumerate(names)})
    found = known.numbers.get(case)
    if found is None:
        raise NotThereError("This result has no case of this address.")
    return found


def choose(folder: Folder, id: str, query: Mapping[str, str]) -> npt.NDArray[np.intp]:
    """Numbers of the cases that a query asks for, in its order.

    Args:
        folder: the folder.
        id: of the result.
        query: `class` (its place), `patient` (its id), `fate`, `sort`; each may be left out.

    Raises:
        SettingsError: a value that is none.
    """
    table, known = folder.cases(id), facts(folder, id)
    asked = tuple(query.get(name, "") for name in ("class", "patient", "fate", "sort"))
    if asked in known.orders:
        return known.orders[asked]
    keep = among(folder, id, query)
    if fate := query.get("fate", ""):
        if fate not in FATES:
            raise SettingsError(f"fate must be one of {', '.join(FATES)}.")
        keep &= known.fates == fate
    sort = query.get("sort", "") or "fragile"
    if sort not in SORTS:
        raise SettingsError(f"sort must be one of {', '.join(SORTS)}.")
    found = np.flatnonzero(keep)
    if len(known.orders) >= MOST_ORDERS:
        known.orders.clear()
    known.orders[asked] = found[np.lexsort((found, *_keys(known, table, sort, found)))]
    return known.orders[asked]


def among(folder: Folder, id: str, query: Mapping[str, str]) -> npt.NDArray[np.bool_]:
    """Whether each case is of the `class` and of the `patient` that a query names, if it does.

    Raises:
        SettingsError: no such class.
        NotThereError: no such patient.
    """
    report, table = folder.result(id), folder.cases(id)
    keep = np.ones(len(table), dtype=bool)
    if label := query.get("class", ""):
        classes = report.cohort.classes
        if not label.isdecimal() or not label.isascii() or int(label[:4]) >= len(classes):
            raise SettingsError(f"class must be a place among the {len(classes)} classes.")
        keep &= table.column("label") == classes[int(label[:4])]
    if patient := query.get("patient", ""):
        keep &= table.column("patient_id") == patient_of(folder, id, patient)
    return keep


def patient_of(folder: Folder, id: str, patient: str) -> str:
    """Name of a patient.

    Raises:
        NotThereError: the result has none of this id.
    """
    found = facts(folder, id).patients.get(patient)
    if found is None:
        raise NotThereError("This result has no patient of this address.")
    return str(found["name"])


def _keys(
    known: Facts, table: CaseTable, sort: str, of: npt.NDArray[np.intp]
) -> list[npt.NDArray[Any]]:
    """What to sort those cases by, the least important first."""
    if sort == "order":
        return [table.column("index")[of].astype(float)]
    if sort == "unsure":
        return [table.outcomes["label_confidence"][table.clean[of]].astype(float)]
    # Of slices that fall at one radius, those that were pushed furthest come first.
    keys = [known.left[of], known.smallest[of]]
    return keys if sort == "fragile" else [-key for key in keys]


def _confidence_left(report: RobustnessReport, table: CaseTable) -> npt.NDArray[np.float64]:
    at = main_budget([report])
    number = headline(report, at) if at else None
    left = table.outcomes["label_confidence"][table.clean].astype(float)
    if number is not None and at is not None:
        rows = table.outcomes.places(number.attack, at)
        left[table.case_of[rows]] = table.outcomes["label_confidence"][rows].astype(float)
    return left


def _fates(report: RobustnessReport, table: CaseTable) -> npt.NDArray[np.str_]:
    at = main_budget([report])
    number = headline(report, at)
    return table.fates(number.attack if number else CLEAN, at or NO_BUDGET)


def cases(folder: Folder, id: str, query: Mapping[str, str]) -> dict[str, Any]:
    """A part of the cases that a query asks for; see `choose`."""
    report, table, chosen = folder.result(id), folder.cases(id), choose(folder, id, query)
    start = query.get("from", "0")
    if not (start.isdecimal() and start.isascii() and len(start) < 9):
        raise SettingsError("from must be a whole number.")
    part = chosen[int(start) : int(start) + MOST]
    known = facts(folder, id)
    every = {fate: int((known.fates[chosen] == fate).sum()) for fate in FATES}
    return {
        "total": len(chosen),
        "from": int(start),
        "fates": every,
        "cases": brief(folder, report, table, known, part.tolist()),
    }


def brief(
    folder: Folder, report: RobustnessReport, table: CaseTable, known: Facts, cases: Iterable[int]
) -> list[dict[str, Any]]:
    """Cases in a line each."""
    cohort, columns, norm = folder.cohort_of(report), table.outcomes, main_norm(report)
    examples = {one.case_id for one in report.examples}
    lines = []
    for case in cases:
        row = table.clean[case]
        name = str(columns["case_id"][row])
        known.numbers[id_of("case", name)] = case
        lines.append(
            {
                "id": id_of("case", name),
                "name": name,
                "patient": str(columns["patient_id"][row]),
                "label": str(columns["label"][row]),
                "prediction": str(columns["prediction"][row]),
                "confidence": say_share(columns["confidence"][row]),
                "fate": str(known.fates[case]),
                "smallest": say_eps(float(known.smallest[case]), report, norm),
                "image": name in examples or row_in(cohort, table, case) is not None,
            }
        )
    return lines


def row_in(cohort: Cohort | None, table: CaseTable, case: int) -> int | None:
    """Row of a case in the cohort's images, if it is the cohort's."""
    if cohort is None:
        return None
    row, name = int(table.column("index")[case]), str(table.column("case_id")[case])
    return row if 0 <= row < len(cohort) and cohort.cases[row].case_id == name else None


def example_of(report: RobustnessReport, name: str) -> Example | None:
    """The example that a result keeps of a case, if it does."""
    return next((one for one in report.examples if one.case_id == name), None)


def say_share(value: object) -> str:
    """A confidence in the report's words; a dash where it is no number."""
    share = float(value) if isinstance(value, (int, float, np.floating)) else np.nan
    return percent(share) if np.isfinite(share) else "\N{EN DASH}"


def say_eps(eps: float, report: RobustnessReport, norm: str) -> str:
    """A smallest eps in words; empty where it is 0 or was not found."""
    if not 0 < eps < np.inf:
        return ""
    about = norms_of([report]).get(norm)
    levels = about is not None and about.per_pixel
    return f"{grey_levels(eps)}/255" if levels else f"{eps:.3g}"
