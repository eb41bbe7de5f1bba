"""Everything in the folder at a glance."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

import robustmri
from robustmri.core.errors import RobustMRIError
from robustmri.core.files import read_json
from robustmri.core.sizes import size_option
from robustmri.report.wording import budget_words, interval, norms_of, people, percent, titles_of
from robustmri.results.headline import headline, main_budget
from robustmri.results.schema import Result, RobustnessReport
from robustmri.web.folder import Folder, Found
from robustmri.web.views.answer import read_answer, said_eps


class Said(msgspec.Struct, frozen=True):
    """A number with its interval, to be drawn and to be read."""

    value: float
    low: float
    high: float
    words: str
    interval: str


def say(number: Result | None) -> Said | None:
    """A number of a result, in the report's words."""
    if number is None:
        return None
    return Said(
        number.accuracy, number.ci_low, number.ci_high, percent(number.accuracy), interval(number)
    )


def overview(folder: Folder) -> dict[str, Any]:
    """Results, runs, cohorts, reports, and what cannot be shown."""
    contents = folder.look()
    left_out = dict(contents.left_out)
    shown: dict[str, list[dict[str, Any]]] = {}
    describe = {
        "result": _result,
        "run": _run,
        "cohort": _cohort,
        "report": _report,
        "answer": _answer,
    }
    for kind, function in describe.items():
        shown[kind] = []
        for found in contents.found.values():
            if found.kind != kind:
                continue
            try:
                facts = function(folder, found)
            except (RobustMRIError, OSError, msgspec.MsgspecError) as error:
                left_out[found.name] = folder.say(error)
                continue
            shown[kind].append({"id": found.id, "name": found.name, **facts})
        shown[kind].sort(key=lambda one: (one["when"], one["name"]))
    return {
        "folder": folder.root.name,
        "version": robustmri.__version__,
        "results": shown["result"],
        "runs": shown["run"],
        "cohorts": shown["cohort"],
        "reports": shown["report"],
        "answers": shown["answer"],
        "left_out": [{"name": name, "why": why} for name, why in sorted(left_out.items())],
    }


def _result(folder: Folder, found: Found) -> dict[str, Any]:
    report = folder.result(found.id)
    line: dict[str, Any] = folder.keep("line", found.path, lambda: describe_result(report))
    return line


def describe_result(result: RobustnessReport) -> dict[str, Any]:
    """A result in a line."""
    at = main_budget([result])
    worst = headline(result, at) if at else None
    by = worst.attack if worst and worst.attack != "worst" else ""  # Not the worst of several.
    checks = [*result.split.leakage, *result.checks]
    return {
        "when": str(result.provenance.get("created", "")),
        "title": result.title,
        "model": result.model.name,
        "backbone": result.model.backbone,
        "cohort": result.cohort.name,
        "synthetic": result.cohort.synthetic,
        "test": f"{result.split.n_slices} {result.split.evaluated_set} slices of "
        f"{result.split.n_patients} {people(result.cohort)}",
        "clean": say(headline(result, None)),
        "worst": say(worst),
        "worst_of": titles_of([result]).get(by, by),
        "radius": budget_words(at, norms_of([result])) if at else "",
        "failed": [check.name for check in checks if check.status == "fail"],
        "warned": [check.name for check in checks if check.status == "warn"],
        "checks": len(checks),
        "chosen": is_chosen(result),
    }


def test_set(result: RobustnessReport) -> tuple[str, str, str, int]:
    """What results of the same test slices have in common."""
    split = result.split
    return result.cohort.fingerprint, split.fingerprint, split.evaluated_set, split.n_slices


def is_chosen(result: RobustnessReport) -> bool:
    """Whether its slices were named in place of the whole set: a search."""
    return bool(result.asked.cases or result.asked.patients)


class _Kept(msgspec.Struct):
    epoch: int
    validation_accuracy: float
    validation_robust_accuracy: float | None = None


class _Origin(msgspec.Struct):
    created: str = ""
    cohort: str = ""
    kept_epoch: _Kept | None = None
    alarms: list[str] = []


class _Spec(msgspec.Struct):
    backbone: str
    classes: list[str]
    size: int | tuple[int, int]
    guessed: list[str] = []


class _Checked(msgspec.Struct):
    name: str
    status: str
    detail: str


class Head(msgspec.Struct):
    """What the workbench shows of a checkpoint's classifier.json."""

    spec: _Spec
    weights_sha256: str = ""
    training: dict[str, Any] = {}
    imported: str = ""
    checks: list[_Checked] = []
    provenance: _Origin = msgspec.field(default_factory=_Origin)


def read_head(folder: Folder, run: Found) -> Head | None:
    """What the checkpoint of a run says of itself; None where there is none so far."""
    checkpoint = run.path / "checkpoint"
    head = (checkpoint if checkpoint.is_dir() else run.path) / "classifier.json"
    if not head.is_file():
        return None
    made: Head = folder.keep(
        "head", head, lambda: read_json(head, Head, again="Train or import it again.")
    )
    return made


def _run(folder: Folder, found: Found) -> dict[str, Any]:
    made = read_head(folder, found)
    if made is None:
        return {"when": _time_of(found.path), "finished": False}
    kept = made.provenance.kept_epoch
    robust = kept.validation_robust_accuracy if kept else None
    return {
        "when": made.provenance.created,
        "finished": True,
        "backbone": made.spec.backbone,
        "objective": str(made.training.get("objective", "")),
        "classes": made.spec.classes,
        "size": size_option(made.spec.size),
        "epoch": kept.epoch if kept else None,
        "clean": percent(kept.validation_accuracy) if kept else "",
        "robust": percent(robust) if robust is not None else "",
        "alarms": made.provenance.alarms,
        "imported": made.imported,
        "guessed": made.spec.guessed,
        "checks": made.checks,
    }


def _cohort(folder: Folder, found: Found) -> dict[str, Any]:
    cohort = folder.cohort(found.id)
    return {
        "when": _time_of(found.path / "cohort.json"),
        "title": cohort.name,
        "slices": len(cohort),
        "patients": cohort.n_patients,
        "people": "patients" if cohort.groups == "patient" else "inferred groups",
        "classes": list(cohort.classes),
        "size": size_option(cohort.size),
        "synthetic": cohort.synthetic,
        "left_out": len(cohort.left_out),
    }


def _answer(folder: Folder, found: Found) -> dict[str, Any]:
    written = read_answer(folder, found.id)
    return {
        "when": written.provenance.created,
        "answer": written.case.answer,
        "nearest": written.case.nearest,
        "eps": said_eps(written.case),
        "backbone": written.classifier.backbone,
    }


def _report(folder: Folder, found: Found) -> dict[str, Any]:
    return {"when": _time_of(found.path)}


def _time_of(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).isoformat(timespec="seconds")
