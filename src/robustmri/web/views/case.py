"""One case: its picture, and what became of it under every attack and eps."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.sizes import sides
from robustmri.data.cohort import Cohort
from robustmri.report.pictures import trace_outline
from robustmri.report.wording import budget_words, titles_of
from robustmri.results.budget import CLEAN, NO_BUDGET, TITLES, WORST, Budget
from robustmri.results.cases import CaseTable
from robustmri.results.headline import budget_of, headline, main_budget
from robustmri.results.schema import Example, RobustnessReport
from robustmri.web.folder import Folder, NotThereError, id_of
from robustmri.web.forms import search_fields
from robustmri.web.views.attacks import explain_attacks
from robustmri.web.views.result import (
    beside,
    brief,
    choose,
    example_of,
    facts,
    number_of,
    row_in,
    say_share,
)
from robustmri.web.views.searches import Search, renamed, searches_of


class Answer(msgspec.Struct, frozen=True):
    """What the classifier says of a case under one attack and eps."""

    attack: str
    title: str
    radius: str
    eps: float | None
    on_curve: bool
    prediction: str
    right: bool
    confidence: str
    label_confidence: float | None
    label_words: str
    per_pixel: bool


def case(folder: Folder, id: str, case_id: str, query: Mapping[str, str]) -> dict[str, Any]:
    """All that is known of a case, and its neighbours in the list that the query asks for."""
    report, table, known = folder.result(id), folder.cases(id), facts(folder, id)
    number = number_of(folder, id, case_id)
    at = main_budget([report])
    main = headline(report, at)
    said = brief(folder, report, table, known, [number])[0]
    chosen = query.get("beside", "")
    listed = choose(folder, id, query)
    place = np.flatnonzero(listed == number)
    smallest, left = known.smallest[number], known.left[number]
    stands = (known.smallest > smallest) | ((known.smallest == smallest) & (known.left > left))
    cohort = folder.cohort_of(report)
    searches = [*searches_of(folder, report, said["name"])]
    picture = _pictured(id, report, said["name"], searches)
    return {
        **said,
        "result": id,
        "result_name": folder.find("result", id).name,
        "model": report.model.name,
        "synthetic": report.cohort.synthetic,
        "plane": str(table.column("plane")[number]) if "plane" in table.outcomes else "",
        "clean_right": bool(table.right[number]),
        "answers": [*answers(report, table, number), *_searched(searches)],
        "about": explain_attacks(report),
        "search": search_fields(report),
        "main_attack": main.attack if main else CLEAN,
        "main_eps": at.eps_image if at else None,
        "per_pixel": bool(at and report.norms[at.norm].per_pixel),
        "classes": len(report.cohort.classes),
        "less_fragile": int(stands.sum()),
        "of": len(table),
        "height": sides(report.cohort.size)[0],
        "width": sides(report.cohort.size)[1],
        "channels": report.cohort.channels,
        "change": picture,
        "outline": _outline(cohort, table, number),
        "neighbours": _neighbours(table, listed, place),
        "patient_id": id_of("patient", said["patient"]),
        "slices": _slices(report, cohort, table, number),
        "cohort_here": cohort is not None,
        "beside": _beside(folder, chosen, said["name"]) if chosen else None,
        "others": beside(folder, id),
    }


def _searched(searches: list[Search]) -> list[Answer]:
    """What the searches found, without what every result says of a case."""
    return [
        renamed(answer, search)
        for search in searches
        for answer in answers(search.report, search.table, search.number)
        if answer.attack not in (CLEAN, WORST)
    ]


def _pictured(
    id: str, report: RobustnessReport, name: str, searches: list[Search]
) -> dict[str, Any] | None:
    """The attacked picture of a case: the result's own, or that of the latest search."""
    for result, made in ((id, report), *((one.found.id, one.report) for one in searches[::-1])):
        if example := example_of(made, name):
            return {"result": result, **_describe(made, example)}
    return None


def answers(report: RobustnessReport, table: CaseTable, number: int) -> list[Answer]:
    """Of one case, in the order of the table: untouched first, then by attack and eps."""
    titles, at, columns = titles_of([report]), main_budget([report]), table.outcomes
    found = []
    for row in table.rows(number):
        attack, finite = str(columns["attack"][row]), bool(np.isfinite(columns["eps"][row]))
        where = NO_BUDGET
        if attack != CLEAN:
            where = Budget(
                str(columns["norm"][row]),
                float(columns["eps"][row]) if finite else None,
                str(columns["eps_units"][row]),
                float(columns["eps_image"][row]) if finite else None,
                str(columns["target"][row]),
            )
        same_axis = at is not None and (where.norm, where.eps_units, where.target) == (
            at.norm,
            at.eps_units,
            at.target,
        )
        left = float(columns["label_confidence"][row])
        found.append(
            Answer(
                attack=attack,
                title=titles.get(attack, attack),
                radius=budget_words(where, report.norms) or ("nearest image" if where.norm else ""),
                eps=0.0 if attack == CLEAN else where.eps_image,
                on_curve=attack == CLEAN or (same_axis and finite),
                prediction=str(columns["prediction"][row]),
                right=str(columns["prediction"][row]) == str(columns["label"][row]),
                confidence=say_share(columns["confidence"][row]),
                label_confidence=left if np.isfinite(left) else None,
                label_words=say_share(left),
                per_pixel=where.norm in report.norms and report.norms[where.norm].per_pixel,
            )
        )
    last = [CLEAN, *(run.attack for run in report.attacks), WORST]

    def rank(one: Answer) -> tuple[Any, ...]:
        place = last.index(one.attack) if one.attack in last else len(last)
        return place, one.eps is None, one.eps or 0.0

    return sorted(found, key=rank)


def _neighbours(
    table: CaseTable, listed: npt.NDArray[np.intp], place: npt.NDArray[np.intp]
) -> dict[str, Any]:
    def at(position: int) -> str | None:
        if not 0 <= position < len(listed):
            return None
        return id_of("case", str(table.column("case_id")[listed[position]]))

    if not len(place):
        return {"place": None, "total": len(listed), "before": None, "after": at(0)}
    here = int(place[0])
    return {
        "place": here + 1,
        "total": len(listed),
        "before": at(here - 1),
        "after": at(here + 1),
    }


def _slices(
    report: RobustnessReport, cohort: Cohort | None, table: CaseTable, number: int
) -> list[dict[str, Any]]:
    """The slices of the case's patient that have a picture, in the order of the cohort."""
    examples = {one.case_id for one in report.examples}
    patients = table.column("patient_id")
    same = np.flatnonzero(patients == patients[number])
    same = same[np.argsort(table.column("index")[same].astype(int), kind="stable")]
    names = table.column("case_id")
    return [
        {"id": id_of("case", str(names[k])), "name": str(names[k])}
        for k in same.tolist()
        if names[k] in examples or row_in(cohort, table, k) is not None
    ]


def _beside(folder: Folder, other: str, name: str) -> dict[str, Any]:
    """The same case in another result."""
    report, table = folder.result(other), folder.cases(other)
    case_id = id_of("case", name)
    number = number_of(folder, other, case_id)
    return {
        **brief(folder, report, table, facts(folder, other), [number])[0],
        "result": other,
        "result_name": folder.find("result", other).name,
        "model": report.model.name,
        "answers": answers(report, table, number),
    }


def _describe(report: RobustnessReport, example: Example) -> dict[str, Any]:
    number = next(
        (one for one in report.results if (one.attack, one.eps) == (example.attack, example.eps)),
        None,
    )
    at = budget_of(number) if number else NO_BUDGET
    titles = TITLES | titles_of([report])
    return {
        "attack": titles.get(example.attack, example.attack),
        "radius": budget_words(at, report.norms),
        "eps": at.eps_image,
        "prediction": example.prediction,
        "right": example.prediction == example.label,
        "confidence": say_share(example.confidence),
        "levels": round(255 * example.distance_linf, 1),
    }


def _outline(cohort: Cohort | None, table: CaseTable, number: int) -> str:
    """Border of the lesion as an SVG path in pixels; empty where none is known."""
    row = row_in(cohort, table, number)
    if cohort is None or row is None:
        return ""
    masks = cohort.masks([row])
    return trace_outline(masks[0]) if masks is not None else ""


def pixels(folder: Folder, id: str, case_id: str) -> npt.NDArray[np.uint16]:
    """The slice, shape (h, w), or (h, w, 3) in colour; 0 to 65535 stands for [0, 1].

    Raises:
        NotThereError: the cohort is not in the folder, and the case is no example.
    """
    report, table = folder.result(id), folder.cases(id)
    number = number_of(folder, id, case_id)
    cohort = folder.cohort_of(report)
    row = row_in(cohort, table, number)
    if cohort is not None and row is not None:
        return np.asarray(folder.pixels(cohort)[row], dtype="<u2")
    example = example_of(report, str(table.column("case_id")[number]))
    arrays = folder.examples(id) if example else None
    if example is None or arrays is None:
        raise NotThereError(
            "The cohort of this result is not in the folder, so there is no picture."
        )
    return np.asarray(arrays["clean"][example.position], dtype="<u2")


def change(folder: Folder, id: str, case_id: str) -> npt.NDArray[np.float32]:
    """What the attack of an example added to the slice, in its shape, in image units.

    Raises:
        NotThereError: the case is no example.
    """
    report, table = folder.result(id), folder.cases(id)
    number = number_of(folder, id, case_id)
    example = example_of(report, str(table.column("case_id")[number]))
    arrays = folder.examples(id) if example else None
    if example is None or arrays is None:
        raise NotThereError("The result keeps no attacked picture of this case.")
    clean = arrays["clean"][example.position].astype(np.float64) / 65535
    attacked = np.clip(arrays["attacked"][example.position].astype(np.float64), 0, 1)
    return np.asarray(attacked - clean, dtype="<f4")


def thumbnail(folder: Folder, id: str, case_id: str, side: int = 128) -> bytes:
    """The slice as a small PNG."""
    from PIL import Image

    picture = Image.fromarray((pixels(folder, id, case_id) >> 8).astype(np.uint8))
    picture.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
