"""From the outcomes of every slice to one `RobustnessReport`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from robustmri.attacks import Cascade, make_attack
from robustmri.data.cohort import Cohort
from robustmri.data.leakage import check_leakage
from robustmri.data.regions import REGIONS
from robustmri.data.split import Split
from robustmri.evaluation.evaluate import Evaluated, threat_for
from robustmri.evaluation.metrics import count_confusions, summarise, worst_case
from robustmri.evaluation.sanity import run_checks, shorten_ids
from robustmri.evaluation.settings import EvaluateSettings, jobs_of
from robustmri.models.classifier import Classifier
from robustmri.results.schema import (
    Check,
    CohortFacts,
    Example,
    ModelFacts,
    RobustnessReport,
    SplitFacts,
)

if TYPE_CHECKING:
    import pyarrow as pa


def columns_of(table: pa.Table) -> dict[str, Any]:
    """Columns as numpy arrays; strings as objects."""
    return {name: table[name].to_numpy() for name in table.column_names}


def with_worst_case(outcomes: pa.Table) -> pa.Table:
    """The table with the rows of "worst" below it: for each image and radius the worst that any
    attack did.
    """
    import pyarrow as pa

    worst = worst_case(columns_of(outcomes))
    return pa.concat_tables([outcomes, pa.table(worst, schema=outcomes.schema)])


def summarise_evaluation(
    evaluated: Evaluated,
    classifier: Classifier,
    cohort: Cohort,
    split: Split,
    settings: EvaluateSettings,
    *,
    title: str,
    model: ModelFacts,
    examples: list[Example],
    provenance: dict[str, Any],
) -> RobustnessReport:
    """Numbers with intervals, checks, and what is needed to understand both."""
    outcomes = columns_of(evaluated.outcomes)
    leakage = [
        Check(
            name=found.name, status=found.status, detail=found.detail, case_ids=list(found.case_ids)
        )
        for found in check_leakage(cohort, split)
    ]
    checks = run_checks(
        outcomes,
        split_kind=split.kind,
        groups=cohort.groups,
        # All other objectives train on projected steps along a gradient.
        training_attack=None if model.objective in ("standard", "unknown") else "pgd",
        selected_on="validation" if model.training else "",
        evaluated_set=settings.evaluated_set,
        zero_gradient_share=evaluated.zero_gradient_share,
        region=settings.region,
        limited=any(settings.limits),
    )
    return RobustnessReport(
        title=title,
        model=model,
        cohort=CohortFacts(
            name=cohort.name,
            synthetic=cohort.synthetic,
            classes=list(cohort.classes),
            size=cohort.size,
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
            n_patients=len(np.unique(outcomes["group"].astype(str))),
            leakage=[shorten_ids(check) for check in leakage],
        ),
        threat=describe_threat(settings, classifier),
        attacks=evaluated.costs,
        results=summarise(outcomes, suites=suites_of(settings), seed=settings.seed),
        checks=[shorten_ids(check) for check in checks],
        confusions=count_confusions(outcomes, cohort.classes),
        examples=examples,
        settings={"evaluate": _plain(settings)},
        provenance=provenance,
    )


def suites_of(settings: EvaluateSettings) -> dict[str, list[str]]:
    """Members of each suite among the attacks, in their order, without those that do not know the
    norm.
    """
    made = {name: make_attack(name, **settings.options.get(name, {})) for name in settings.attacks}
    return {
        name: [
            member
            for member in suite.members
            if member not in suite.left_out.get(settings.norm, ())
        ]
        for name, suite in made.items()
        if isinstance(suite, Cascade)
    }


def _plain(settings: EvaluateSettings) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(settings))


def describe_threat(settings: EvaluateSettings, classifier: Classifier) -> list[str]:
    """What the attacker may do, knows and wants, in sentences."""
    std = classifier.spec.std
    size = classifier.spec.size
    sentences = []
    for eps in dict.fromkeys(eps for job in jobs_of(settings) for eps in job.radii):
        image = eps.in_image_units(std)
        said = f"eps = {eps.value:g} " + (
            "of the [0, 1] range" if eps.units == "image" else "after normalisation"
        )
        if settings.norm == "linf":
            sentences.append(
                f"No pixel changes by more than {said}: {image:.4g} of the [0, 1] range, "
                f"{255 * image:.1f} of 255 grey levels, {image / std:.3g} after normalisation (std "
                f"{std:g})."
            )
        elif settings.norm == "l1":
            sentences.append(
                f"The changes of all {size} x {size} pixels together, each without its sign, sum "
                f"to at most {said}: {image:.4g} in units of the [0, 1] range, as much as "
                f"{image:.4g} pixels from black to white."
            )
        else:
            sentences.append(
                f"The change of all {size} x {size} pixels together has a Euclidean length of at "
                f"most {said}: {image:.4g} in units of the [0, 1] range, as much as "
                f"{255 * image / size:.2f} of 255 grey levels on every pixel."
            )
    goal = f"to make it say {settings.target!r}" if settings.target else "any wrong class"
    sentences.append(
        f"Goal of the attacker: {goal}. {REGIONS[settings.region]}; grey values stay within [0, 1]."
    )
    sentences.append(
        "Knowledge: white box, the attacker has the network and its weights (NIST AI 100-2: "
        "evasion)."
    )
    if any(settings.limits):
        seconds, gradients, forwards = settings.limits
        most = ((gradients, "gradients"), (forwards, "forwards"), (seconds, "seconds on average"))
        said = ", ".join(f"{limit:g} {what}" for limit, what in most if limit)
        sentences.append(f"Budget of the attacker: at most {said} for each image.")
    for job in jobs_of(settings):
        threat = threat_for(job, settings, classifier)
        if threat.eps == float("inf"):
            sentences.append(
                f"{job.attack} has no radius: it looks for the nearest image that fools, in "
                f"{threat.norm}."
            )
    return sentences
