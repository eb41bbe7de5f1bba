"""Attack a classifier on the test slices of a cohort, and write down what happened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from robustmri.core import processes
from robustmri.core.files import atomic_file
from robustmri.core.progress import Progress, silent
from robustmri.core.provenance import describe_run
from robustmri.data.cohort import Cohort
from robustmri.data.split import Split
from robustmri.recipes import change_settings
from robustmri.results.schema import ModelFacts, RobustnessReport, load_result, save_result
from robustmri.verbs.claim import claim_folder, refuse_seen

if TYPE_CHECKING:
    from robustmri.evaluation.settings import EvaluateSettings

TRAINED = {
    "standard": "Standard training",
    "adversarial": "Adversarial training",
    "free": "Free adversarial training",
    "one-step": "One-step adversarial training",
    "trades": "TRADES",
    "mart": "MART",
}
"""How a report names a classifier, by the objective of its training."""


def evaluate(
    checkpoint: str | Path,
    cohort: str | Path,
    out: str | Path,
    *,
    settings: EvaluateSettings | None = None,
    title: str = "",
    devices: int = 1,
    nodes: int = 1,
    progress: Progress = silent,
    **changes: Any,
) -> RobustnessReport:
    """Attack a checkpoint on the test slices of a cohort; writes robustness.json, outcomes.parquet
    and examples.npz.

    Args:
        checkpoint: checkpoint folder, or the run folder that holds it.
        cohort: folder made by `prepare`; the test set is that of its split.json.
        out: result folder; a killed evaluation goes on with the shards that are missing.
        settings: see `EvaluateSettings`.
        title: heading of the result.
        devices: processes or GPUs on each machine that share the work; the outcomes do not depend
            on how many.
        nodes: machines.
        progress: told about the shards.
        changes: single settings, such as `eps=("0.04", "8/255")`.
    """
    import pyarrow.parquet as pq

    from robustmri.evaluation.evaluate import check_answerable, clear_shards, run_attacks
    from robustmri.evaluation.examples import named_slices, write_examples
    from robustmri.evaluation.settings import EvaluateSettings
    from robustmri.evaluation.summary import summarise_evaluation, with_worst_case
    from robustmri.models.checkpoint import check_fits, load_checkpoint
    from robustmri.models.optimised import full_float32
    from robustmri.training.launch import join_processes

    settings = change_settings(settings or EvaluateSettings(), changes)
    scans, folder = Cohort.open(cohort), Path(out)
    split = Split.load(scans.root)
    split.check(scans)
    classifier, stored = load_checkpoint(checkpoint)
    check_fits(stored, scans.classes, scans.size)
    refuse_seen(stored.provenance, split)
    check_answerable(settings, classifier, scans, split)
    named_slices(scans, settings)
    claim_folder(
        folder / "settings.json",
        {
            "evaluate": msgspec.to_builtins(settings),
            "checkpoint": stored.weights_sha256,
            "cohort": scans.fingerprint,
            "split": split.fingerprint,
        },
    )
    if (folder / "robustness.json").exists():
        return load_result(folder)
    device = join_processes(devices, nodes)
    with full_float32():
        evaluated = run_attacks(
            classifier,
            scans,
            split,
            settings,
            folder,
            identity=stored.weights_sha256,
            device=device,
            progress=progress,
        )
    evaluated = replace(evaluated, outcomes=with_worst_case(evaluated.outcomes))

    def write() -> None:
        with atomic_file(folder / "outcomes.parquet") as partial:
            pq.write_table(evaluated.outcomes, partial)
        objective = str(stored.training.get("objective", "unknown"))
        name = TRAINED.get(objective, "Given checkpoint")
        with full_float32():
            examples = write_examples(classifier, scans, split, settings, folder)
        result = summarise_evaluation(
            evaluated,
            classifier,
            scans,
            split,
            settings,
            title=title or f"Robustness of {stored.spec.backbone} on {scans.name}",
            model=ModelFacts(
                name=name,
                backbone=stored.spec.backbone,
                objective=objective,
                weights=stored.spec.weights,
                checkpoint_sha256=stored.weights_sha256,
                training=dict(stored.training),
            ),
            examples=examples,
            provenance=describe_run(settings.seed) | {"checkpoint": stored.provenance},
        )
        save_result(result, folder)
        clear_shards(folder)

    processes.wait_for_all()  # Until nobody reads shards any more.
    processes.on_one_process(write)
    return load_result(folder)
