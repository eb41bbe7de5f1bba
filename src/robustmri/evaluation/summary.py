"""From the outcomes of every slice to one `RobustnessReport`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from robustmri.data.cohort import Cohort
from robustmri.data.leakage import ONE_SET, Finding, check_leakage
from robustmri.data.regions import REGIONS
from robustmri.data.split import SETS, Split
from robustmri.evaluation.evaluate import Evaluated
from robustmri.evaluation.masking_checks import Probed
from robustmri.evaluation.metrics import count_confusions, summarise, worst_case
from robustmri.evaluation.patients import summarise_patients
from robustmri.evaluation.plan import Plan
from robustmri.evaluation.sanity import run_checks, shorten_ids
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.evaluation.study_checks import check_physics
from robustmri.models.classifier import Classifier
from robustmri.results.budget import CORRUPTION
from robustmri.results.outcomes import Outcomes, columns_of, numbered
from robustmri.results.patients import Cost
from robustmri.results.schema import (
    Check,
    CohortFacts,
    Example,
    ModelFacts,
    NormFacts,
    RobustnessReport,
    SplitFacts,
    suites_of,
)
from robustmri.threat.norms import NORMS, find_norm
from robustmri.threat.physical_transforms import TRANSFORMS

if TYPE_CHECKING:
    import pyarrow as pa


def with_worst_case(outcomes: pa.Table) -> pa.Table:
    """The table with the rows of "worst" below it: for each image and radius the worst that any
    attack did.
    """
    import pyarrow as pa

    worst = worst_case(columns_of(outcomes))
    columns = {name: list(one) if one.ndim > 1 else one for name, one in worst.items()}
    return pa.concat_tables([outcomes, pa.table(columns, schema=outcomes.schema)])


def _divides(leakage: Sequence[Check]) -> bool:
    return any(one.name == ONE_SET and one.status == "fail" for one in leakage)


def summarise_evaluation(
    evaluated: Evaluated,
    classifier: Classifier,
    cohort: Cohort,
    split: Split,
    plan: Plan,
    *,
    title: str,
    model: ModelFacts,
    training_attack: str | None,
    examples: list[Example],
    provenance: dict[str, Any],
    seen: Finding | None = None,
    probed: Probed | None = None,
    costs: Sequence[Cost] = (),
) -> RobustnessReport:
    """Numbers with intervals, checks, and what is needed to understand both.

    `training_attack` is the attack that made the training examples, None where there were none;
    `seen` is what is known of test slices among those that were trained on, `probed` what the
    classifier did when it was asked further, `costs` what each wrong answer costs, if anybody said.
    """
    settings, outcomes = plan.settings, columns_of(evaluated.outcomes)
    leakage = [
        Check(
            name=found.name, status=found.status, detail=found.detail, case_ids=list(found.case_ids)
        )
        for found in (*check_leakage(cohort, split), *([seen] if seen else []))
    ]
    # Checks of attacks judge what the evaluation is about: a norm, or the threat in its place.
    about = {"", settings.threat} if settings.threat else {"", *NORMS}
    checks = run_checks(
        _rows_in(outcomes, about, inside=True),
        split_kind=split.kind,
        groups=cohort.groups,
        training_attack=training_attack,
        trained=bool(model.training),
        divided=split.kind == "folds" and _divides(leakage),
        evaluated_set=settings.evaluated_set,
        zero_gradient_share=evaluated.zero_gradient_share,
        region=settings.region,
        limited=any(settings.limits),
        chosen=settings.chosen,
        # Over few parameters the loss has many hills: one long step may find the highest.
        iterative=set()
        if settings.threat
        else {run.attack for run in evaluated.attacks if run.iterative},
        knowledge={}
        if classifier.spec.gradients
        else {run.title: run.knowledge for run in evaluated.attacks if not run.norm},
        per_pixel={name for name, norm in NORMS.items() if norm.per_pixel},
        probed=probed,
        classes=cohort.classes,
    )
    physics = check_physics(_rows_in(outcomes, {"", *NORMS}, inside=False))
    checks += [physics] if physics else []
    return RobustnessReport(
        title=title,
        model=model,
        cohort=CohortFacts(
            name=cohort.name,
            synthetic=cohort.synthetic,
            classes=list(cohort.classes),
            size=cohort.size,
            channels=cohort.channels,
            intensity=cohort.intensity,
            groups=cohort.groups,
            fingerprint=cohort.fingerprint,
            n_cases=len(cohort),
            n_patients=cohort.n_patients,
            left_out=len(cohort.left_out),
        ),
        split=SplitFacts(
            kind=split.kind,
            seed=split.seed,
            fold=split.fold,
            note=split.note,
            fingerprint=split.fingerprint,
            evaluated_set=settings.evaluated_set,
            n_slices=len(np.unique(outcomes["index"])),
            n_patients=len(numbered(outcomes["group"])[0]),
            leakage=[shorten_ids(check) for check in leakage],
            sets={
                name: (len(rows), len({cohort.cases[row].group for row in rows}))
                for name in SETS
                if (rows := getattr(split, name))
            },
        ),
        threat=describe_threat(plan, classifier, cohort.shape),
        norms=describe_norms(plan),
        attacks=evaluated.attacks,
        results=summarise(outcomes, suites=suites_of(evaluated.attacks)),
        checks=[shorten_ids(check) for check in checks],
        confusions=count_confusions(outcomes, cohort.classes),
        patients=summarise_patients(outcomes, cohort.classes, costs=costs),
        examples=examples,
        settings={"evaluate": _plain(settings)},
        provenance=provenance,
    )


def _rows_in(outcomes: Outcomes, norms: Collection[str], *, inside: bool) -> Outcomes:
    keep = np.isin(outcomes["norm"].astype(str), sorted(norms)) == inside
    return Outcomes({name: column[keep] for name, column in outcomes.items()})


def describe_norms(plan: Plan) -> dict[str, NormFacts]:
    """What the report must know of each norm, and of what stands in its place."""
    used = {trial.norm for trial in plan.attacks}
    found = {
        name: NormFacts(title=norm.title, meaning=norm.meaning, per_pixel=norm.per_pixel)
        for name, norm in NORMS.items()
        if name in used
    }
    found |= {
        name: NormFacts(
            title=one.title, meaning=one.meaning, per_pixel=False, kind="physical", unit=one.unit
        )
        for name, one in TRANSFORMS.items()
        if name in used
    }
    if CORRUPTION in used:
        found[CORRUPTION] = NormFacts(
            title=CORRUPTION, meaning="severity", per_pixel=False, kind="corruption", unit="of 5"
        )
    return found


def _plain(settings: EvaluateSettings) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(settings))


def describe_threat(plan: Plan, classifier: Classifier, shape: tuple[int, int, int]) -> list[str]:
    """What the attacker may do, knows and wants, in sentences."""
    settings, std = plan.settings, plan.std
    sentences = []
    in_norm = [trial for trial in plan.attacks if not trial.physical and not trial.corruption]
    for eps in dict.fromkeys(eps for trial in in_norm for eps in trial.radii):
        image = eps.in_image_units(std)
        said = f"eps = {eps.value:g} " + (
            "of the [0, 1] range" if eps.units == "image" else "after normalisation"
        )
        sentences.append(find_norm(settings.norm).explain(said, image, std, shape))
    physical = dict.fromkeys(trial.physical for trial in plan.attacks if trial.physical)
    sentences += [one.transform.explain(one.amount) for one in physical]
    corrupted = [trial.facts.title.lower() for trial in plan.attacks if trial.corruption]
    if corrupted:
        sentences.append(
            f"Besides, without an attacker: {', '.join(corrupted)}, at five severities each."
        )
    goal = f"to make it say {settings.target!r}" if settings.target else "any wrong class"
    sentences.append(
        f"Goal of the attacker: {goal}. {REGIONS[settings.region]}; "
        f"{'grey values' if shape[0] == 1 else 'colours'} stay within [0, 1]."
    )
    sentences.append(
        "Knowledge: white box, the attacker has the network and its weights (NIST AI 100-2: "
        "evasion)."
        if classifier.spec.gradients
        else "Knowledge: black box, the attacker can only ask for answers (NIST AI 100-2: evasion)."
    )
    if any(settings.limits):
        seconds, gradients, forwards = settings.limits
        most = ((gradients, "gradients"), (forwards, "forwards"), (seconds, "seconds on average"))
        said = ", ".join(f"{limit:g} {what}" for limit, what in most if limit)
        sentences.append(f"Budget of the attacker: at most {said} for each image.")
    sentences += [
        f"{trial.facts.name} has no radius: it looks for the nearest image that fools, in "
        f"{trial.threat.norm}."
        for trial in plan.attacks
        if trial.facts.minimal
    ]
    return sentences
