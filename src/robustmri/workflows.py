"""The verbs: each reads files, writes one artefact whole or not at all, and can be run again or resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from robustmri import processes
from robustmri.data.cohort import Cohort, write_cohort
from robustmri.data.readers import open_source
from robustmri.data.split import Split, make_split
from robustmri.errors import CheckpointError, DataError, SettingsError
from robustmri.progress import Progress, silent
from robustmri.provenance import atomic_file, describe_run, read_json, write_json
from robustmri.recipes import PrepareSettings, change_settings, load_recipe
from robustmri.results import ModelFacts, RobustnessReport, load_result, save_result

if TYPE_CHECKING:
    from robustmri.evaluation.settings import EvaluateSettings
    from robustmri.training.settings import TrainSettings

SCRATCH = "scratch"
"""In place of a checkpoint: harden a fresh network."""
TRAINED = {
    "standard": "Standard training", "adversarial": "Adversarial training", "free": "Free adversarial training",
    "one-step": "One-step adversarial training", "trades": "TRADES", "mart": "MART",
}  # fmt: skip
"""How a report names a classifier, by the objective of its training."""


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    settings: PrepareSettings | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> Cohort:
    """Read scans and write a cohort folder with its split.

    Args:
        source: a figshare release, a folder of images with a CSV, class folders, or "phantom".
        out: folder to make.
        settings: size, intensity rule, split, fold, shares of train, validation and test, and seed.
        progress: told about the slices read.
        changes: single settings, such as `size=96`.

    Raises:
        DataError: the source cannot be read as a whole, or cannot be split.
    """
    settings = change_settings(settings or PrepareSettings(), changes)

    def split(cohort: Cohort) -> Split:
        return make_split(cohort, settings.split, seed=settings.seed, fold=settings.fold, fractions=settings.fractions)

    return write_cohort(
        open_source(source), out, size=settings.size, intensity=settings.intensity, split=split,
        progress=lambda done, total: progress("reading", done, total or 0),
    )  # fmt: skip


def train(
    cohort: str | Path,
    out: str | Path,
    *,
    settings: TrainSettings | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> Path:
    """Train a classifier on a cohort; returns the run folder, which holds `checkpoint/` and epochs.csv.

    A run that was killed goes on from its last finished epoch; one that is finished is left as it is.

    Args:
        cohort: folder made by `prepare`.
        out: run folder.
        settings: see `TrainSettings`.
        progress: told about the steps.
        changes: single settings, such as `epochs=10`.
    """
    from robustmri.training.settings import TrainSettings

    chosen = change_settings(settings or TrainSettings(), changes)
    return _fit(None, cohort, out, chosen, progress)


def harden(
    checkpoint: str | Path,
    cohort: str | Path,
    out: str | Path,
    *,
    settings: TrainSettings | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> Path:
    """The same as `train` with an objective that meets attacked images; "adversarial", if `settings` name no other.

    It starts from `checkpoint` or, given "scratch", from a fresh network; the rest is as in `train`.

    Raises:
        SettingsError: the objective asked for is "standard".
    """
    if settings is None:
        settings = load_recipe("standard").harden
    chosen = change_settings(settings, changes if settings.attacked else {"objective": "adversarial", **changes})
    if not chosen.attacked:
        raise SettingsError('A repair needs attacked images, got the objective "standard": choose another, or `train`.')
    return _fit(None if str(checkpoint) == SCRATCH else Path(checkpoint), cohort, out, chosen, progress)


def _fit(start: Path | None, cohort: str | Path, out: str | Path, settings: TrainSettings, progress: Progress) -> Path:
    from robustmri.data.loaders import load_images, load_labels
    from robustmri.models.backbones import build_classifier
    from robustmri.models.checkpoint import check_fits, load_checkpoint, save_checkpoint
    from robustmri.training.batches import Examples
    from robustmri.training.ledger import check_installed
    from robustmri.training.loop import fit
    from robustmri.training.state import STATE

    check_installed(settings.logger)
    scans, run = Cohort.open(cohort), Path(out)
    split = Split.load(scans.root)
    split.check(scans)
    origin = SCRATCH
    if start is not None:
        classifier, checkpoint = load_checkpoint(start)
        check_fits(checkpoint, scans.classes, scans.size)
        _refuse_seen(checkpoint.provenance, split)
        settings = msgspec.structs.replace(settings, backbone=checkpoint.spec.backbone, weights="none")
        origin = checkpoint.weights_sha256
    elif not (run / "checkpoint").is_dir():
        # Before the folder is claimed: a name that does not exist must leave nothing behind.
        classifier = build_classifier(
            settings.backbone, scans.classes, scans.size, weights=settings.weights, seed=settings.seed,
            progress=lambda done, total: progress("fetching the weights", done, total or 0),
        )  # fmt: skip
    _claim(
        run / "settings.json",
        {
            "train": msgspec.to_builtins(settings),
            "start": origin,
            "cohort": scans.fingerprint,
            "split": split.fingerprint,
        },
    )
    if (run / "checkpoint").is_dir():
        (run / STATE).unlink(missing_ok=True)
        return run
    learn, choose = (
        Examples(load_images(scans, rows), load_labels(scans, rows)) for rows in (split.train, split.validation)
    )
    classifier, choice = fit(classifier, learn, choose, settings, run, repair=start is not None, progress=progress)
    provenance = describe_run(settings.seed) | {
        "cohort": scans.fingerprint,
        "split": split.fingerprint,
        "start": origin,
        "kept_epoch": msgspec.to_builtins(choice.row),
        "kept_because": choice.reason,
        "alarms": [alarm.sentence for alarm in choice.alarms],
    }

    def finish() -> None:
        save_checkpoint(classifier, run / "checkpoint", training=msgspec.to_builtins(settings), provenance=provenance)
        (run / STATE).unlink(missing_ok=True)

    processes.on_one_process(finish)
    return run


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run, or make sure that the run that is there has the same."""
    settings = msgspec.json.decode(msgspec.json.encode(settings))
    if not path.exists():
        # A kill in the middle of this very write may have left a partial file, or a process beside this one come first.
        known = (there == path or there.suffix == ".partial" for there in path.parent.glob("*"))
        if all(known):
            write_json(path, settings)
            return
        if not path.exists():  # Still: what else is there may be of a process beside this one.
            raise DataError(f"{path.parent} is not empty and holds no run. Choose another --out.")
    before, settings = _decisive(read_json(path)), _decisive(settings)
    if before != settings:
        names = [name for name in settings if before.get(name) != settings[name]]
        inner = [
            f"{name}.{key}"
            for name in names
            if isinstance(settings[name], dict) and isinstance(before.get(name), dict)
            for key in settings[name]
            if settings[name][key] != before[name].get(key)
        ]
        raise SettingsError(
            f"{path.parent} holds a run with other settings (they differ in {', '.join(inner or names)}). Choose "
            "another --out, or remove it."
        )


def _decisive(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those of a training that say who computes and who is told."""
    return {
        stage: {name: value for name, value in inner.items() if name not in ("devices", "nodes", "logger")}
        if isinstance(inner, dict)
        else inner
        for stage, inner in settings.items()
    }


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
    """Attack a checkpoint on the test slices of a cohort; writes robustness.json, outcomes.parquet and examples.npz.

    Args:
        checkpoint: checkpoint folder, or the run folder that holds it.
        cohort: folder made by `prepare`; the test set is that of its split.json.
        out: result folder; a killed evaluation goes on with the shards that are missing.
        settings: see `EvaluateSettings`.
        title: heading of the result.
        devices: processes or GPUs on each machine that share the work; the outcomes do not depend on how many.
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
    from robustmri.training.launch import meet

    settings = change_settings(settings or EvaluateSettings(), changes)
    scans, folder = Cohort.open(cohort), Path(out)
    split = Split.load(scans.root)
    split.check(scans)
    classifier, stored = load_checkpoint(checkpoint)
    check_fits(stored, scans.classes, scans.size)
    _refuse_seen(stored.provenance, split)
    check_answerable(settings, classifier, scans, split)
    named_slices(scans, settings)
    _claim(
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
    device = meet(devices, nodes)
    evaluated = run_attacks(
        classifier, scans, split, settings, folder, identity=stored.weights_sha256, device=device, progress=progress
    )
    evaluated = replace(evaluated, outcomes=with_worst_case(evaluated.outcomes))

    def write() -> None:
        with atomic_file(folder / "outcomes.parquet") as partial:
            pq.write_table(evaluated.outcomes, partial)
        objective = str(stored.training.get("objective", "unknown"))
        name = TRAINED.get(objective, "Given checkpoint")
        result = summarise_evaluation(
            evaluated, classifier, scans, split, settings,
            title=title or f"Robustness of {stored.spec.backbone} on {scans.name}",
            model=ModelFacts(
                name=name, backbone=stored.spec.backbone, objective=objective, weights=stored.spec.weights,
                checkpoint_sha256=stored.weights_sha256, training=dict(stored.training),
            ),
            examples=write_examples(classifier, scans, split, settings, folder),
            provenance=describe_run(settings.seed) | {"checkpoint": stored.provenance},
        )  # fmt: skip
        save_result(result, folder)
        clear_shards(folder)

    processes.wait_for_all()  # Until nobody reads shards any more.
    processes.on_one_process(write)
    return load_result(folder)


def _refuse_seen(provenance: dict[str, Any], split: Split) -> None:
    """Refuse test slices that another split of the same cohort may have trained on."""
    if provenance.get("cohort") == split.cohort_fingerprint and provenance.get("split") != split.fingerprint:
        raise CheckpointError(
            "this checkpoint was trained on another split of this cohort, so it has seen some of these test slices. "
            "Train it on this split, or evaluate it on the cohort folder that it was trained on."
        )


def pool(folders: Sequence[str | Path], out: str | Path, *, title: str) -> RobustnessReport:
    """Several evaluations of disjoint test sets as one, such as those of five folds; written anew each time.

    Args:
        folders: result folders of one cohort, evaluated alike.
        out: result folder for robustness.json and outcomes.parquet; there are no pictures.
        title: heading of the result.
    """
    import pyarrow.parquet as pq

    from robustmri.evaluation.pool import pool_results

    result, outcomes = pool_results(folders, title=title)
    with atomic_file(Path(out) / "outcomes.parquet") as partial:
        pq.write_table(outcomes, partial)
    save_result(result, out)
    return result


def report(folders: Sequence[str | Path], out: str | Path, *, images: bool = True, title: str | None = None) -> Path:
    """Write one self-contained HTML page about one or several evaluations of the same test slices."""
    from robustmri.report import write_report

    return write_report(folders, out, images=images, title=title)


def download(out: str | Path, *, progress: Progress = silent) -> Path:
    """Fetch the figshare release (about 880 MB) into a folder that `prepare` reads."""
    from robustmri.data.figshare import download_release

    return download_release(out, progress=lambda name, done, total: progress(name, done, total or 0))
