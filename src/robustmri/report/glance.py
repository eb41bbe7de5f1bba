"""For whom a report speaks: which model, from where, tested on whom, asked how, and what was
guessed of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from robustmri.core.progress import duration
from robustmri.core.sizes import size_words
from robustmri.report.redact import WITHHELD
from robustmri.report.wording import people
from robustmri.results.lineage import SCRATCH, start_of
from robustmri.results.schema import Check, RobustnessReport

DIGITS = 12
"""Of a hash, as it is shown."""


class Fact(msgspec.Struct, frozen=True):
    """A line of the glance: for each result its sentences, or one for all where they agree."""

    name: str
    told: list[list[str]]


def glance(results: Sequence[RobustnessReport]) -> list[Fact]:
    """The facts in the order in which they are shown; what none of the results has is left out."""
    facts = []
    for name, tell in FACTS.items():
        told = [tell(report) for report in results]
        if any(told):
            same = all(one == told[0] for one in told)
            facts.append(Fact(name, told[:1] if same else told))
    return facts


def tell_model(report: RobustnessReport) -> list[str]:
    """Network, training, and the hash that it is known by."""
    model = report.model
    named = [model.backbone, model.name if model.training else "", model.source]
    told = ", ".join(name for name in named if name not in ("", WITHHELD))
    return [f"{told}; sha256 {model.checkpoint_sha256[:DIGITS]}"]


def tell_origin(report: RobustnessReport) -> list[str]:
    """Trained here or imported, and from what."""
    model, start = report.model, start_of(report)
    if model.route or model.source:
        route = f": {model.route}" if model.route not in ("", WITHHELD) else "."
        return [f"Not trained here; imported{route}"]
    if not model.training:
        return ["Not trained here. How it came about is not in the result."]
    began = f"the network {start[:DIGITS]}"
    if start == SCRATCH:
        began = "a fresh network" if model.weights == "none" else f"weights {model.weights}"
    return [f"Trained here{f', from {began}' if start else ''}{_tell_time(report)}."]


def _tell_time(report: RobustnessReport) -> str:
    checkpoint = report.provenance.get("checkpoint")
    seconds = checkpoint.get("training_seconds") if isinstance(checkpoint, dict) else None
    return f", in {duration(seconds)}" if isinstance(seconds, (int, float)) else ""


def tell_training(report: RobustnessReport) -> list[str]:
    """What its weights and its epoch were learnt from, where that happened here."""
    sets, who = report.split.sets, people(report.cohort)
    if report.model.split != report.split.fingerprint or "train" not in sets:
        return []
    slices, patients = sets["train"]
    said = f"{slices} slices of {patients} {who}"
    if "validation" in sets:
        slices, patients = sets["validation"]
        said += f"; {slices} of {patients} {who} to choose the epoch"
    return [said + "."]


def tell_test(report: RobustnessReport) -> list[str]:
    """On whom, and whether these are strangers to it."""
    split, cohort = report.split, report.cohort
    who = people(cohort)
    kind = {
        "none": "External validation: no slice of this cohort was there to train on",
        "slice": "Split by slice: patients are on both sides",
    }.get(split.kind, f"No patient is in two sets (split by {split.kind})")
    if split.kind != "none" and not report.model.training:
        kind += ", as far as this cohort goes: what it was trained on is not known here"
    synthetic = "synthetic " if cohort.synthetic else ""
    return [
        f"{split.n_slices} {synthetic}{split.evaluated_set} slices of {split.n_patients} {who}, "
        f"{size_words(cohort.size)}{' in colour' if cohort.channels == 3 else ''}, from "
        f"{cohort.name}. {kind}."
    ]


def tell_questions(report: RobustnessReport) -> list[str]:
    """What the attacker was given."""
    titles = [run.title for run in report.attacks if run.knowledge in ("scores", "decisions")]
    asked = f" ({', '.join(dict.fromkeys(titles))})" if titles else ""
    if not report.attacks:
        return ["No attack was run."]
    if is_black_box(report):
        return [f"Black box: it offers no gradient, so only attacks by queries were run{asked}."]
    if all(run.knowledge != "gradients" for run in report.attacks):
        return [f"It offers gradients, but only attacks without them were run{asked}."]
    return ["White box: attacks follow its gradients."]


def is_black_box(report: RobustnessReport) -> bool:
    """Whether the classifier offers no gradient; older results say so in the threat alone."""
    return report.model.black_box or any("black box" in said for said in report.threat)


def tell_guesses(report: RobustnessReport) -> list[str]:
    """What the file did not say, and how the import was checked."""
    model = report.model
    imported = bool(model.source or model.route)
    if not imported and not model.guessed:
        return []
    guessed = [one for one in model.guessed if one != WITHHELD]
    hidden = len(model.guessed) - len(guessed)
    said = [f"Guessed at import: {one}" for one in guessed]
    said += [f"Guessed at import: {hidden}, not told in this copy."] if hidden else []
    said = said or ["Nothing was guessed at import."]
    if not imported:
        return said
    return [*said, *_tell_checks(model.checks, model.checked_on, report.cohort.fingerprint)]


def _tell_checks(checks: Sequence[Check], on: str, cohort: str) -> list[str]:
    if not checks:
        return ["The import was not checked."]
    passed = sum(check.status == "pass" for check in checks)
    where = (
        "on synthetic slices: neither its accuracy nor the order of its classes could be"
        if not on
        else "on labelled slices of this cohort"
        if on == cohort
        else "on labelled slices of another cohort"
    )
    said = [f"Checked at import {where}; {passed} of {len(checks)} checks passed."]
    return said + [
        f"{check.status}: {check.name}. {check.detail}"
        for check in checks
        if check.status != "pass"
    ]


FACTS = {
    "Model": tell_model,
    "Origin": tell_origin,
    "Trained on": tell_training,
    "Tested on": tell_test,
    "Attacker": tell_questions,
    "Guessed": tell_guesses,
}
