"""Attack a classifier on the test slices of a cohort, and write down what happened."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from robustmri.core import processes
from robustmri.core.errors import SettingsError
from robustmri.core.files import atomic_file
from robustmri.core.progress import Progress, silent
from robustmri.core.provenance import describe_run
from robustmri.core.sizes import sides
from robustmri.data.cohort import Cohort
from robustmri.data.split import Split
from robustmri.recipes import change_settings, list_recipes, load_recipe
from robustmri.results.outcomes import columns_of
from robustmri.results.schema import (
    Check,
    ModelFacts,
    RobustnessReport,
    hash_files,
    load_result,
    save_result,
)
from robustmri.verbs.run_folder import claimed_folder, refuse_seen

if TYPE_CHECKING:
    from robustmri.evaluation.settings import EvaluateSettings
    from robustmri.models.checkpoint import Checkpoint
    from robustmri.models.classifier import Classifier


def evaluate(
    checkpoint: str | Path | Classifier,
    cohort: str | Path,
    out: str | Path,
    *,
    settings: EvaluateSettings | None = None,
    title: str = "",
    devices: int = 1,
    nodes: int = 1,
    trusted: Collection[str] = (),
    costs: str | Path | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> RobustnessReport:
    """Attack a checkpoint on the test slices of a cohort; writes robustness.json, outcomes.parquet
    and examples.npz.

    Args:
        checkpoint: checkpoint folder, or the run folder that holds it; or a `Classifier`, such as
            a `BlackBox`.
        cohort: folder made by `prepare`; the test set is that of its split.json.
        out: result folder; a killed evaluation goes on with the shards that are missing.
        settings: see `EvaluateSettings`. The attacks of a recipe that were not asked for by name
            give way to attacks by queries where the classifier offers no gradient.
        title: heading of the result.
        devices: processes or GPUs on each machine that share the work; the outcomes do not depend
            on how many.
        nodes: machines.
        trusted: attacks "MODULE:NAME" whose module may be imported; that runs its code.
        costs: CSV with the columns truth, answer, cost and, if you like, consequence: what each
            wrong answer costs.
        progress: told about the shards.
        changes: single settings, such as `eps=("0.04", "8/255")`.
    """
    import pyarrow.parquet as pq

    from robustmri.evaluation.confined import confined_plans, run_confined
    from robustmri.evaluation.costs import read_costs
    from robustmri.evaluation.detection import detection_plan, run_detection
    from robustmri.evaluation.evaluate import run_attacks
    from robustmri.evaluation.examples import named_slices, write_examples
    from robustmri.evaluation.further import summarise_further
    from robustmri.evaluation.metrics import worst_budgets
    from robustmri.evaluation.nearest_neighbour import (
        REMEMBERED,
        remember_slices,
        summarise_memory,
    )
    from robustmri.evaluation.plan import evaluated_slices, make_plan
    from robustmri.evaluation.probes import probe_classifier, refuse_unanswering
    from robustmri.evaluation.saliency import check_explainable, explain_slices, write_maps
    from robustmri.evaluation.settings import EvaluateSettings
    from robustmri.evaluation.shards import clear_shards
    from robustmri.evaluation.summary import summarise_evaluation, with_worst_case
    from robustmri.models.checkpoint import check_fits
    from robustmri.models.optimised import full_float32
    from robustmri.training.launch import join_processes
    from robustmri.training.objectives import OBJECTIVES

    settings = change_settings(settings or EvaluateSettings(), changes)
    if settings.threat and "eps" not in changes:
        _refuse_usual_eps(settings)
    scans, folder = Cohort.open(cohort), Path(out)
    split = Split.load(scans.root)
    split.check(scans)
    classifier, stored = _open(checkpoint)
    if not classifier.spec.gradients and "attacks" not in changes:
        settings = without_gradients(settings)
    scans = scans.with_classes(stored.spec.classes, settings.class_names)
    check_fits(stored, scans.classes, scans.size, scans.channels)
    priced = read_costs(costs, scans.classes) if costs is not None else ()
    seen = refuse_seen(
        checkpoint if isinstance(checkpoint, (str, Path)) else None,
        stored,
        scans,
        split,
        evaluated_slices(split, settings, scans),
    )
    plan = make_plan(settings, classifier, scans, split, trusted=trusted)
    confined = confined_plans(settings, classifier, scans, split)
    guarded = detection_plan(settings, classifier, scans, split)
    check_explainable(classifier, scans, plan)
    named_slices(scans, settings)
    refuse_unanswering(classifier)
    with claimed_folder(
        folder,
        {
            "evaluate": msgspec.to_builtins(settings),
            "checkpoint": stored.identity,
            "cohort": scans.fingerprint,
            "split": split.fingerprint,
            **({"costs": msgspec.to_builtins(priced)} if priced else {}),
        },
        done="robustness.json",
    ):
        if (folder / "robustness.json").exists():
            clear_shards(folder)
            return load_result(folder)
        device = join_processes(devices, nodes)
        given = classifier, scans, split
        run: dict[str, Any] = {"identity": stored.identity, "device": device, "progress": progress}
        with full_float32():
            evaluated = run_attacks(*given, settings, folder, plan=plan, **run)
            evaluated = replace(evaluated, outcomes=with_worst_case(evaluated.outcomes))
            tables = {"outcomes": evaluated.outcomes}
            if confined:
                tables["regions"] = run_confined(confined, *given, folder, **run)
            if guarded:
                tables["detection"] = run_detection(guarded, *given, folder, **run)

        def write() -> None:
            if settings.saliency:
                with full_float32():
                    tables["saliency"] = explain_slices(classifier, scans, plan)
            rows, baseline = list(plan.trials[0].rows), None
            remembered = remember_slices(scans, split, rows, norm=settings.norm)
            if remembered is not None:
                tables[REMEMBERED] = remembered
                baseline = summarise_memory(
                    remembered,
                    worst_budgets(columns_of(evaluated.outcomes)),
                    norm=settings.norm,
                    known=[len(split.train)],
                )
            for name, table in tables.items():
                with atomic_file(folder / f"{name}.parquet") as partial:
                    pq.write_table(table, partial)
            method = OBJECTIVES.get(_objective_of(stored))
            with full_float32():
                outcomes = columns_of(evaluated.outcomes)
                examples = write_examples(classifier, scans, plan, outcomes, folder)
                if settings.saliency:
                    write_maps(classifier, scans, examples, folder)
                probed = probe_classifier(
                    classifier,
                    scans,
                    plan,
                    outcomes,
                    validation=split.validation,
                    noted=_noted_accuracy(stored.provenance, split),
                )
            result = summarise_evaluation(
                evaluated,
                classifier,
                scans,
                split,
                plan,
                title=title or f"Robustness of {stored.spec.backbone} on {scans.name}",
                model=describe_model(stored, method.title if method else ""),
                training_attack=method.attack if method else None,
                seen=seen,
                probed=probed,
                costs=priced,
                examples=examples,
                provenance=describe_run(settings.seed) | {"checkpoint": stored.provenance},
            )
            names = [f"{name}.parquet" for name in tables]
            written = hash_files(folder, (*names, "examples.npz", "saliency.npz"))
            pixels = math.prod(sides(scans.size)) * scans.channels
            told = summarise_further(tables, seed=settings.seed, pixels=pixels)
            save_result(
                msgspec.structs.replace(result, files=written, baseline=baseline, **told), folder
            )
            clear_shards(folder)

        processes.wait_for_all()  # Until nobody reads shards any more.
        processes.on_one_process(write)
        return load_result(folder)


def describe_model(stored: Checkpoint, method: str = "") -> ModelFacts:
    """What a result says of a checkpoint; `method` is the title of the objective that made it."""
    spec = stored.spec
    # An import says in words what it was made from, and its name once more in its weights.
    source = re.sub(r" \(sha256 [0-9a-f]+\)$", "", spec.weights)
    named = stored.imported.startswith(f"{source}: ")
    return ModelFacts(
        name=method or "Given checkpoint",
        backbone=spec.backbone,
        objective=_objective_of(stored),
        weights=spec.weights,
        checkpoint_sha256=stored.weights_sha256,
        training=dict(stored.training),
        identity=stored.identity,
        source=source if named else "",
        route=stored.imported[len(source) + 2 :] if named else stored.imported,
        guessed=list(spec.guessed),
        checks=[
            Check(name=one.name, status=one.status, detail=one.detail) for one in stored.checks
        ],
        checked_on=str(stored.provenance.get("checked_on", "")),
        black_box=not spec.gradients,
        split=str(stored.provenance.get("split", "")),
    )


def _objective_of(stored: Checkpoint) -> str:
    return str(stored.training.get("objective", "unknown"))


def _open(checkpoint: str | Path | Classifier) -> tuple[Classifier, Checkpoint]:
    from robustmri.models.checkpoint import describe_classifier, load_checkpoint
    from robustmri.models.classifier import Classifier

    if not isinstance(checkpoint, Classifier):
        return load_checkpoint(checkpoint)
    # The user's own stays as it is, its flags too.
    return copy.deepcopy(checkpoint).eval(), describe_classifier(checkpoint)


def _noted_accuracy(provenance: dict[str, Any], split: Split) -> float | None:
    """Accuracy on this split's validation slices when the checkpoint was kept, if it says so."""
    kept = provenance.get("kept_epoch")
    noted = kept.get("validation_accuracy") if isinstance(kept, dict) else None
    same = provenance.get("split") == split.fingerprint
    return float(noted) if same and isinstance(noted, (int, float)) else None


def _refuse_usual_eps(settings: EvaluateSettings) -> None:
    """A physical threat has a unit of its own: an eps meant for pixels says nothing."""
    from robustmri.evaluation.settings import EvaluateSettings
    from robustmri.threat.physical_transforms import find_transform

    transform = find_transform(settings.threat)
    if settings.eps in {load_recipe(name).evaluate.eps for name in list_recipes()} | {
        EvaluateSettings().eps
    }:
        raise SettingsError(
            f"threat {settings.threat} needs an eps of its own ({transform.meaning}), say --eps "
            f"{transform.usual:g}: {', '.join(settings.eps)} is meant for pixels."
        )


def without_gradients(settings: EvaluateSettings) -> EvaluateSettings:
    """What a recipe attacks with, where nobody has asked for it by name, by queries instead."""
    from robustmri.evaluation.plan import with_query_attacks
    from robustmri.evaluation.settings import EvaluateSettings

    usual = {load_recipe(name).evaluate.attacks for name in list_recipes()}
    known = settings.attacks in usual | {EvaluateSettings().attacks}
    return with_query_attacks(settings) if known else settings
