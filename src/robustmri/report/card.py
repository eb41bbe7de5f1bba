"""A model card in the layout of Hugging Face: what a report says, as the README.md of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustmri.core.files import atomic_file
from robustmri.report.coverage import map_coverage
from robustmri.report.glance import glance
from robustmri.report.redact import redact, redact_acceptance, weights_words
from robustmri.report.tables import as_markdown, comparison_table
from robustmri.report.verdict import failures, gather_checks, write_verdict
from robustmri.report.wording import budget_words, norms_of, percent, titles_of
from robustmri.results.acceptance import Acceptance, Judged
from robustmri.results.budget import CLEAN
from robustmri.results.headline import budget_of, headline, main_budget
from robustmri.results.outcomes import Outcomes, load_outcomes
from robustmri.results.schema import ModelFacts, RobustnessReport, load_result

UNKNOWN = "Not given."
LIBRARY = "robustmri"


def write_card(
    folder: Path | str,
    out: Path | str,
    *,
    acceptance: Acceptance | None = None,
    judged: Sequence[Judged] = (),
) -> Path:
    """Write the card of one result; it names no patient, no case and no file of the evaluation.

    Args:
        folder: result folder.
        out: the markdown file to write.
        acceptance: what people decided of the classifier.
        judged: its numbers, held against their minima.

    Raises:
        ResultError: the folder is missing or damaged.
        DataError: `out` is a folder, a link or a device.
    """
    text = card_of(folder, acceptance=acceptance, judged=judged)
    with atomic_file(out) as partial:
        partial.write_text(text, encoding="utf-8")
    return Path(out)


def card_of(
    folder: Path | str,
    *,
    acceptance: Acceptance | None = None,
    judged: Sequence[Judged] = (),
    library: str = LIBRARY,
    usage: str = "",
    facts: Mapping[str, str] | None = None,
) -> str:
    """The same as text; `library` opens the model that it stands beside, by the code `usage`;
    `facts` are name to what else is true of it.
    """
    outcomes = load_outcomes(folder)
    result = redact(load_result(folder), outcomes.identifiers)
    given = acceptance and redact_acceptance(acceptance, outcomes.identifiers)
    return model_card(result, outcomes, given, judged, library=library, usage=usage, facts=facts)


def bare_card(
    model: ModelFacts, facts: Mapping[str, str], *, library: str = LIBRARY, usage: str = ""
) -> str:
    """The card of a model of which nothing was measured: no figure, and it says so.

    Args:
        model: what is known of it.
        facts: name to what is true of its images and answers.
        library: that opens it.
        usage: code by which it does.
    """
    start = "a fresh network" if model.weights == "none" else weights_words(model.weights)
    told = {"Made by": model.name, "Started from": start, **facts}
    parts = {
        f"# {model.backbone}": [
            "Nothing was measured: this card holds no figure. With a result of `robustmri "
            "evaluate`, `robustmri export --result DIR` writes it anew."
        ],
        "## Model details": _told(told),
        **_usage(usage),
        "## Uses": [UNKNOWN, "", "Not a medical device."],
        "## How it was made": [f"By robustmri; weights sha256 {model.checkpoint_sha256}."],
    }
    return _join(_front(library), parts)


def model_card(
    result: RobustnessReport,
    outcomes: Outcomes,
    acceptance: Acceptance | None = None,
    judged: Sequence[Judged] = (),
    *,
    library: str = LIBRARY,
    usage: str = "",
    facts: Mapping[str, str] | None = None,
) -> str:
    """The card as text; `result` is shown as it is."""
    given = acceptance or Acceptance()
    verdict, below = write_verdict([result], [outcomes], main_budget([result]))
    reasons = failures(gather_checks([result]))
    said = (
        [
            f"No headline, for failed checks: {len(reasons)}.",
            "",
            *(f"- {reason}" for reason in reasons),
        ]
        if reasons
        else [verdict, "", below]
    )
    known = {fact.name: " ".join(fact.told[0]) for fact in glance([result])}
    known |= {**(facts or {}), "Version": given.version}
    table = as_markdown(comparison_table([result]))
    checks = [
        f"- {check.status}: {check.name}. {check.detail}"
        for check in (*result.split.leakage, *result.checks)
        if check.status != "pass"
    ]
    parts = {
        f"# {result.model.backbone}": said,
        "## Model details": _told(known),
        **_usage(usage),
        "## Uses": [given.intended_use or UNKNOWN, "", "Not a medical device."],
        "## Bias, risks and limitations": [*_limits(result), *_uncovered(result, acceptance)],
        "## Evaluation": [*result.threat, "", table],
        "## Checks": checks or ["All checks of the evaluation passed."],
        "## Acceptance criteria": _say_judged(result, given, judged),
        "## How it was measured": [
            f"By robustmri {result.provenance.get('robustmri', '')}; weights sha256 "
            f"{result.model.checkpoint_sha256}, cohort {result.cohort.fingerprint}, split "
            f"{result.split.fingerprint}."
        ],
    }
    # Where a check failed the head holds no figure.
    front = _front(library) | ({} if reasons else {"model-index": [_index(result)]})
    return _join(front, parts)


def _told(facts: Mapping[str, str]) -> list[str]:
    return [f"- **{name}:** {said}" for name, said in facts.items() if said]


def _join(front: dict[str, Any], parts: Mapping[str, Sequence[str]]) -> str:
    """The part that machines read, as YAML, whose strings are written as in JSON, and the text."""
    head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in front.items())
    body = "\n\n".join(f"{name}\n\n" + "\n".join(lines) for name, lines in parts.items())
    return f"---\n{head}---\n\n{body}\n"


def _front(library: str) -> dict[str, Any]:
    return {
        "library_name": library,
        "pipeline_tag": "image-classification",
        "tags": ["medical-imaging", "adversarial-robustness"],
    }


def _usage(code: str) -> dict[str, list[str]]:
    return {"## How to get started": ["```python", code, "```"]} if code else {}


def _index(result: RobustnessReport) -> dict[str, Any]:
    """The figures, as machines read them."""
    titles, norms = titles_of([result]), norms_of([result])
    shown = [headline(result, None), headline(result, main_budget([result]))]
    metrics: list[dict[str, Any]] = []
    for number in shown:
        if number is None or (metrics and number.attack == CLEAN):
            continue
        where = budget_words(budget_of(number), norms)
        name = titles.get(number.attack, number.attack)
        metrics.append(
            {
                "type": "accuracy",
                "name": f"Accuracy, {name[:1].lower()}{name[1:]}{f', {where}' if where else ''}",
                "value": round(number.accuracy, 4),
            }
        )
    dataset = {"name": result.cohort.name, "type": result.cohort.fingerprint}
    task = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}
    return {"name": result.model.backbone, "results": [task]}


def _limits(result: RobustnessReport) -> list[str]:
    said = [
        "- One cohort, one split, one training run: other scanners, protocols and seeds may give "
        "other numbers.",
        "- Single slices were judged, not examinations.",
    ]
    if result.cohort.synthetic:
        said.append("- The cohort is a synthetic phantom; the numbers say nothing about patients.")
    return said


def _uncovered(result: RobustnessReport, acceptance: Acceptance | None) -> list[str]:
    accepted = acceptance is not None and bool(acceptance.minimum)
    first = map_coverage([result], accepted=accepted)[0]
    missing = [one.word for one in first.words if one.state == "not covered"]
    return [f"- Not tested, in the words of {first.title}: {'; '.join(missing)}."]


def _say_judged(result: RobustnessReport, given: Acceptance, judged: Sequence[Judged]) -> list[str]:
    if not judged:
        return ["None given."]
    norms = norms_of([result])
    said = []
    for one in judged:
        where = budget_words(one.budget, norms)
        low = ", lower bound of the 95 % interval" if one.bound == "low" else ""
        said.append(
            f"- {one.title}{f', {where}' if where else ''}, by {one.unit}{low}: at least "
            f"{percent(one.least)}, measured {percent(one.measured)}: "
            f"{'met' if one.met else 'missed'}."
        )
    return [*said, "", f"Decided by {given.decided_by or 'somebody who is not named'}."]
