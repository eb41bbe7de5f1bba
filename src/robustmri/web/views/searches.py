"""What further searches found out about a case: evaluations of slices that were named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from robustmri.core.errors import RobustMRIError
from robustmri.results.cases import CaseTable, load_cases
from robustmri.results.schema import RobustnessReport
from robustmri.web.folder import Folder, Found
from robustmri.web.views.overview import is_chosen


class Search(NamedTuple):
    """A search that holds a case: where it is, its result, its table, and the case's number in
    it.
    """

    found: Found
    report: RobustnessReport
    table: CaseTable
    number: int


def searches_of(folder: Folder, report: RobustnessReport, name: str) -> Iterator[Search]:
    """Those of the same classifier and cohort that hold the case of that name, the oldest first."""
    same = (report.model.checkpoint_sha256, report.cohort.fingerprint)
    for found, other in folder.results():
        if not is_chosen(other):
            continue
        if (other.model.checkpoint_sha256, other.cohort.fingerprint) != same:
            continue
        try:
            path = folder.find("result", found.id).path
            table = folder.keep("search", path, lambda: load_cases(path))  # noqa: B023
        except RobustMRIError:
            continue  # The overview says why.
        for number, other_name in enumerate(table.column("case_id")):
            if str(other_name) == name:
                yield Search(found, other, table, number)


def renamed(answer: Any, search: Search) -> Any:
    """An answer of a search among those of its case: under a name of its own."""
    return msgspec.structs.replace(
        answer,
        attack=f"{answer.attack}@{search.found.id}",
        title=f"{answer.title} ({search.found.name})",
    )
