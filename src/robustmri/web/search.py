"""A search that no result has stored: one case, one patient or the whole test set, by an attack of
the reader's choice.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from robustmri.core.errors import DataError, RobustMRIError, SettingsError
from robustmri.results.schema import RobustnessReport
from robustmri.web.commands import value_of
from robustmri.web.folder import Folder, Found
from robustmri.web.forms import search_fields
from robustmri.web.views.overview import read_head
from robustmri.web.views.result import number_of, patient_of


def make_search(
    folder: Folder, body: Mapping[str, Any], taken: Iterable[str] = ()
) -> tuple[list[str], str, str]:
    """The command, the name of what it makes, and how the job is called.

    Args:
        folder: the folder.
        body: `result`, its id; `case` or `patient`, an id of it, or neither; `answers` to the
            fields.
        taken: names that are promised to others.

    Raises:
        SettingsError: an answer that is none.
        NotThereError: an id of nothing.
        DataError: the classifier or the cohort of the result is not in the folder.
    """
    id, answers = str(body.get("result")), body.get("answers")
    if not isinstance(answers, dict):
        raise SettingsError("expected a result and answers to its fields.")
    report = folder.result(id)
    fields = {field.name: field for field in search_fields(report)}
    if unknown := set(answers) - set(fields):
        raise SettingsError(f"a search has no setting {min(unknown)!r}.")
    given = {
        name: value_of(field, answers[name])
        for name, field in fields.items()
        if answers.get(name) not in ("", None)
    }
    radii = [part for part in given.get("radii", "").split(",") if part]
    for name, answer in (("attack", given.get("attack")), ("radii", radii)):
        if not answer:
            raise SettingsError(f"a search needs an answer to: {fields[name].label}.")
    run, cohort = _run_of(folder, report), _cohort_of(folder, report)
    words, said = _selection(folder, id, body)
    options = [f"--{name}={given[name]}" for name in ("norm", "region", "target") if name in given]
    options += [f"--attacks={given['attack']}", f"--eps={radii[-1]}"]
    if len(radii) > 1:
        options += [
            f"--curve={','.join(radii[:-1])}",
            f"--set=evaluate.curve_attack={given['attack']}",
        ]
    out = next_name(folder, taken, "search-")
    command = [sys.executable, "-m", "robustmri.app.cli", "evaluate", str(run.path)]
    command += [str(cohort.path), f"--out={folder.root / out}", *options, *words]
    return command, out, f"Search: {given['attack']} on {said}"


def _selection(folder: Folder, id: str, body: Mapping[str, Any]) -> tuple[list[str], str]:
    """Options for a case or a patient, and how it is called; nobody is named in a title."""
    case, patient = body.get("case"), body.get("patient")
    if case:
        number = number_of(folder, id, str(case))
        name = str(folder.cases(id).column("case_id")[number])
        picture = [f"--set=evaluate.examples={name}"] if "," not in name else []
        return [f"--case={name}", *picture], "one case"
    if patient:
        return [f"--patient={patient_of(folder, id, str(patient))}"], "one patient"
    return [], "the whole test set"


def _run_of(folder: Folder, report: RobustnessReport) -> Found:
    for found in folder.look(at_most_every=1.0).of("run"):
        try:
            head = read_head(folder, found)
        except (RobustMRIError, OSError):
            continue  # The overview says why.
        if head is not None and head.weights_sha256 == report.model.checkpoint_sha256:
            return folder.find("run", found.id)
    raise DataError(
        "The classifier of this result is not in the folder, so nothing can be asked of it."
    )


def _cohort_of(folder: Folder, report: RobustnessReport) -> Found:
    found = folder.cohort_found(report)
    if found is None:
        raise DataError("The cohort of this result is not in the folder: there are no slices.")
    return found


def next_name(folder: Folder, taken: Iterable[str], prefix: str, suffix: str = "") -> str:
    """A numbered name that nothing in the folder has, and that nobody else was promised."""
    names = [*taken, *(path.name for path in folder.root.glob(f"{prefix}*"))]
    numbers = [
        int(found[1]) for name in names if (found := re.match(rf"{prefix}([0-9]{{1,9}})", name))
    ]
    return f"{prefix}{max(numbers, default=0) + 1:04d}{suffix}"
