"""Whether a result is good enough to go on with: a gate for continuous integration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustmri.core.errors import ResultError, SettingsError
from robustmri.core.provenance import describe_run
from robustmri.results.schema import Status, load_result

if TYPE_CHECKING:
    from robustmri.results.acceptance import Judged
    from robustmri.results.comparison import Comparison, Paired
    from robustmri.results.gate import Finding, Gate
    from robustmri.results.outcomes import Outcomes
    from robustmri.results.schema import NormFacts, RobustnessReport


def check(
    report: str | Path,
    *,
    baseline: str | Path | None = None,
    minimum: Mapping[str, float] | None = None,
    criteria: str | Path | None = None,
    margin: float = 0.0,
    json: str | Path | None = None,
    junit: str | Path | None = None,
) -> Gate:
    """Hold a result against minima, its own checks, and another result.

    It fails where a number is below its minimum, where one of the result's own checks failed, or
    where it dropped: where the 95 % interval of the difference to the baseline, on the same slices
    and by patient, lies beyond the margin. What is written names no patient and no case.

    Args:
        report: result folder, or the robustness.json in it.
        baseline: likewise, of the classifier that it must not fall behind.
        minimum: name of a number to the least that it must be, such as {"worst_case": 0.5}; see
            `robustmri.evaluation.criteria.judge`.
        criteria: TOML file with minima, and who decided them; see
            `robustmri.results.acceptance.read_acceptance`.
        margin: drop that is put up with, as a fraction: 0.02 is two points.
        json: file to write the findings to.
        junit: likewise, as JUnit XML.

    Raises:
        ResultError: a result is missing, damaged or contradicts itself, has no such number, or
            shares no slice with the baseline.
        SettingsError: a minimum or a margin that is none.
    """
    from robustmri.evaluation.criteria import judge
    from robustmri.report.redact import origin_of
    from robustmri.results.acceptance import join_acceptance
    from robustmri.results.gate import Gate, save_gate, save_junit

    if not 0 <= margin < 1:
        raise SettingsError(
            f"The margin is a fraction from 0 to 1, 0.02 for two points; got {margin}."
        )
    accepted = join_acceptance(criteria, minimum)
    result, outcomes = _open(report)
    findings = [_say_minimum(one, result) for one in judge(result, accepted.minimum)]
    findings += _own_checks(result, outcomes)
    old = ""
    if baseline is not None:
        before, theirs = _open(baseline)
        if outcomes is None or theirs is None:
            raise ResultError(
                "A comparison with a baseline needs outcomes.parquet beside both robustness.json: "
                "name the result folders."
            )
        old = before.model.checkpoint_sha256
        findings += _compare([before, result], [theirs, outcomes], margin)
    gate = Gate(
        passed=all(finding.status != "fail" for finding in findings),
        findings=findings,
        checkpoint_sha256=result.model.checkpoint_sha256,
        baseline_sha256=old,
        decided_by=accepted.decided_by,
        provenance=origin_of(describe_run()),
    )
    if json is not None:
        save_gate(gate, json)
    if junit is not None:
        save_junit(gate, junit)
    return gate


def _open(report: str | Path) -> tuple[RobustnessReport, Outcomes | None]:
    """A result, and the outcomes that its numbers follow from; None where it stands alone."""
    from robustmri.evaluation.recount import refuse_contradictions
    from robustmri.results.outcomes import columns_of

    path = Path(report)
    if path.is_file() and path.name != "robustness.json":
        raise ResultError(f"{path} is no result. Name the folder, or the robustness.json in it.")
    alone = path.is_file()
    folder = path.parent if alone else path
    if alone and not (folder / "outcomes.parquet").is_file():
        return load_result(folder), None
    counted = refuse_contradictions(folder)
    return counted.result, columns_of(counted.tables["outcomes"])


def _say_minimum(judged: Judged, result: RobustnessReport) -> Finding:
    from robustmri.report.wording import budget_words, norms_of, percent
    from robustmri.results.gate import Finding

    where = budget_words(judged.budget, norms_of([result]))
    what = "lower bound of the 95 % interval" if judged.bound == "low" else "accuracy"
    return Finding(
        kind="criterion",
        name=judged.name,
        status="pass" if judged.met else "fail",
        detail=f"{judged.title}{f', {where}' if where else ''}, {what} by {judged.unit}: "
        f"{percent(judged.measured)}, must be at least {percent(judged.least)}.",
    )


def _own_checks(result: RobustnessReport, outcomes: Outcomes | None) -> list[Finding]:
    """The checks that the evaluation ran on itself, without names of cases."""
    from robustmri.report.redact import redact
    from robustmri.results.gate import Finding

    shown = redact(result, () if outcomes is None else outcomes.identifiers)
    findings = [
        Finding(kind="check", name=check.name, status=check.status, detail=check.detail)
        for check in (*shown.split.leakage, *shown.checks)
    ]
    detail = (
        "There is no outcomes.parquet beside robustness.json: its numbers are taken as told."
        if outcomes is None
        else "Every number follows from the outcomes."
    )
    status: Status = "warn" if outcomes is None else "pass"
    return [*findings, Finding(kind="check", name="Counted again", status=status, detail=detail)]


def _compare(
    results: Sequence[RobustnessReport], outcomes: Sequence[Outcomes], margin: float
) -> list[Finding]:
    from robustmri.evaluation.paired import compare_results
    from robustmri.report.wording import norms_of, words_of
    from robustmri.results.gate import Finding

    names, norms = ("the baseline", "this result"), norms_of(results)
    made = compare_results(results, outcomes, names, words=words_of(results))
    failed = [
        check.name
        for check in (*results[0].split.leakage, *results[0].checks)
        if check.status == "fail"
    ]
    findings = [
        Finding(
            kind="baseline",
            name="What is compared",
            status="pass" if len(made.scope) == 1 else "warn",
            detail=" ".join(made.scope),
        )
    ]
    if failed:
        detail = f"Of the baseline's own checks failed: {', '.join(failed)}."
        findings.append(
            Finding(kind="baseline", name="The baseline's checks", status="warn", detail=detail)
        )
    return findings + [_say_drop(number, margin, norms) for number in _watched(made)]


def _watched(made: Comparison) -> list[Paired]:
    """Untouched slices, and the headline.

    Raises:
        ResultError: the two met no attack within the same budget.
    """
    if made.headline is None:
        raise ResultError(
            "The result and its baseline met no attack within the same budget, so a drop would not "
            "show. Evaluate both with the same --eps."
        )
    return [made.clean, made.headline]


def _say_drop(number: Paired, margin: float, norms: Mapping[str, NormFacts]) -> Finding:
    from robustmri.report.wording import bounds, budget_words, percent, points
    from robustmri.results.gate import Finding

    dropped = number.high < -margin
    if dropped:
        told = "a drop beyond the margin"
    elif number.low >= -margin:
        told = "a drop beyond the margin is ruled out"
    else:
        told = "no drop beyond the margin is shown, and none ruled out"
    where = budget_words(number.budget, norms)
    return Finding(
        kind="baseline",
        name=f"{number.title}{f', {where}' if where else ''}",
        status="fail" if dropped else "pass",
        detail=f"{percent(number.second)} against {percent(number.first)}, "
        f"{points(number.difference)} points (95 % interval {bounds(number.low, number.high)}, "
        f"{number.n_patients} patients); margin {100 * margin:g} points: {told}.",
    )
