"""Several evaluations of one cohort as one: the folds of a cross-validation, each patient tested
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from robustmri.core.errors import ResultError
from robustmri.core.files import fingerprint
from robustmri.core.provenance import describe_run
from robustmri.evaluation.further import count_further
from robustmri.evaluation.metrics import count_confusions, summarise
from robustmri.evaluation.nearest_neighbour import REMEMBERED, pool_memory
from robustmri.evaluation.patients import summarise_patients
from robustmri.evaluation.recount import Counted, refuse_contradictions
from robustmri.evaluation.study_checks import check_patients
from robustmri.results.certificate import FILE, FOLDER
from robustmri.results.outcomes import columns_of, numbered, uncoded
from robustmri.results.schema import ENOUGH, AttackRun, Check, RobustnessReport, suites_of

if TYPE_CHECKING:
    import pyarrow as pa

SEVERITY = ("pass", "warn", "fail")


def pool_results(folders: Sequence[str | Path], *, title: str) -> Counted:
    """The result over all slices of several evaluations, and their tables, each as one.

    Numbers and intervals are computed anew from the tables, so a patient is the unit that is drawn
    whichever part it was tested in. A check ends as it ended in the part where it went worst, but
    for the number of patients, which is that of all parts. What is no share or mean over slices
    stays with the parts: pictures, and certificates, each of which holds for its own slices at
    once.

    Args:
        folders: result folders of the same cohort and settings, of networks trained alike on
            different splits.
        title: heading of the result.

    Raises:
        ResultError: no folder, results that do not belong together, or a slice that was tested
            twice.
    """
    import pyarrow as pa

    if not folders:
        raise ResultError(
            "Pooling needs at least one result folder. Make one with: robustmri evaluate."
        )
    counted = [refuse_contradictions(folder) for folder in folders]
    parts = [one.result for one in counted]
    written = [{name: uncoded(one) for name, one in part.tables.items()} for part in counted]
    _refuse_unlike(parts, [one["outcomes"] for one in written], folders)
    # In some parts there may have been nothing to measure, as no slice with an outline.
    tables = {
        name: pa.concat_tables([one[name] for one in written])
        for name in written[0]
        if all(name in one for one in written)
    }
    missing = sorted({name for one in written for name in one} - set(tables))
    columns, first, attacks = columns_of(tables["outcomes"]), parts[0], _merge_attacks(parts)
    seed = first.asked.seed
    split = msgspec.structs.replace(
        first.split,
        fold=first.split.fold if len(parts) == 1 else None,
        fingerprint=fingerprint([part.split.fingerprint for part in parts]),
        note=(
            f"{len(parts)} evaluations of disjoint test sets pooled, each of a network of its own."
            + _say_left_out(missing, folders)
        ),
        n_slices=len(np.unique(columns["index"])),
        n_patients=len(numbered(columns["group"])[0]),
        leakage=_merge([part.split.leakage for part in parts]),
        sets={},
    )
    model = msgspec.structs.replace(
        first.model,
        checkpoint_sha256=fingerprint([part.model.checkpoint_sha256 for part in parts]),
        split="",
    )
    result = msgspec.structs.replace(
        first,
        title=title,
        model=model,
        split=split,
        examples=[],
        settings={**first.settings, "evaluate": {**first.settings["evaluate"], "examples": []}},
        checks=[
            check_patients(columns) if check.name == ENOUGH else check
            for check in _merge([part.checks for part in parts])
        ],
        attacks=attacks,
        results=summarise(columns, suites=suites_of(attacks)),
        confusions=count_confusions(columns, first.cohort.classes),
        patients=first.patients
        and summarise_patients(columns, first.cohort.classes, costs=first.patients.costs),
        baseline=pool_memory(parts, tables[REMEMBERED]) if REMEMBERED in tables else None,
        provenance=describe_run(seed) | _latest(parts) | {"pooled": [p.provenance for p in parts]},
    )
    return Counted(msgspec.structs.replace(result, **count_further(result, tables)), tables)


def _say_left_out(missing: Sequence[str], folders: Sequence[str | Path]) -> str:
    """What the parts tell, and the whole does not."""
    said = ""
    if missing:
        names = ", ".join(name.replace("_", " ") for name in missing)
        said += f" Not every part has {names}, which is left out here."
    if any((Path(folder) / FOLDER / FILE).is_file() for folder in folders):
        said += " A certificate holds for the slices of its own part, and is shown there."
    return said


def _latest(parts: Sequence[RobustnessReport]) -> dict[str, str]:
    """When the last of them was measured: pooled once more, they give the same file."""
    known = [part.provenance.get("created") for part in parts]
    times = [time for time in known if isinstance(time, str)]
    return {"created": max(times)} if times else {}


def _merge_attacks(parts: Sequence[RobustnessReport]) -> list[AttackRun]:
    """What each attack is, and what it spent per image over all parts."""
    merged = []
    for runs in zip(*(part.attacks for part in parts), strict=True):
        slices = sum(run.slices for run in runs)

        def mean(name: str, runs: tuple[AttackRun, ...] = runs, slices: int = slices) -> float:
            spent = sum(float(getattr(run, name)) * run.slices for run in runs)
            return round(spent / max(slices, 1), 2)

        merged.append(
            msgspec.structs.replace(
                runs[0],
                slices=slices,
                gradients_per_image=mean("gradients_per_image"),
                forwards_per_image=mean("forwards_per_image"),
            )
        )
    return merged


def _refuse_unlike(
    parts: Sequence[RobustnessReport], tables: Sequence[pa.Table], folders: Sequence[str | Path]
) -> None:
    first = parts[0]
    seen: set[int] = set()
    for part, table, folder in zip(parts, tables, folders, strict=True):
        shown_apart = {"examples": ()}  # Which pictures were kept does not change a number.
        facts = {
            "cohorts": (first.cohort.fingerprint, part.cohort.fingerprint),
            "settings": tuple(
                {**one.settings.get("evaluate", {}), **shown_apart} for one in (first, part)
            ),
            "objectives": (first.model.objective, part.model.objective),
            "costs": tuple(one.patients.costs if one.patients else [] for one in (first, part)),
            "trainings": tuple(_training_of(one) for one in (first, part)),
        }
        for what, (expected, came) in facts.items():
            if expected != came:
                raise ResultError(
                    f"{folders[0]} and {folder} were measured with different {what} and cannot be "
                    "pooled. Evaluate both alike."
                )
        slices = set(table["index"].to_pylist())
        if seen & slices:
            raise ResultError(
                f"{len(seen & slices)} slices of {folder} are in another of the results too. Pool "
                "evaluations of disjoint test sets, as prepare --split folds makes them."
            )
        seen |= slices


def _training_of(part: RobustnessReport) -> dict[str, Any]:
    """What decides how a network was trained, the random numbers aside."""
    aside = ("seed", "devices", "nodes", "logger", "minutes")
    return {name: value for name, value in part.model.training.items() if name not in aside}


def _merge(parts: Sequence[Sequence[Check]]) -> list[Check]:
    """Checks by name, in the order of their first appearance; details that differ are told with the
    part.
    """
    found: dict[str, list[tuple[int, Check]]] = {}
    for number, checks in enumerate(parts, start=1):
        for check in checks:
            found.setdefault(check.name, []).append((number, check))
    merged = []
    for name, entries in found.items():
        details = dict.fromkeys(check.detail for _, check in entries)
        merged.append(
            Check(
                name=name,
                status=max((check.status for _, check in entries), key=SEVERITY.index),
                detail=" ".join(details)
                if len(details) == 1
                else " ".join(f"({number}) {check.detail}" for number, check in entries),
                case_ids=sorted({case for _, check in entries for case in check.case_ids}),
            )
        )
    return merged
