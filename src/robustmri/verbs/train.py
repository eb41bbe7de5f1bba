"""Train a classifier on clean slices, or repair one by adversarial training: one fit, two
objectives.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from robustmri.core import processes
from robustmri.core.errors import DataError, SettingsError
from robustmri.core.progress import Progress, silent
from robustmri.core.provenance import describe_run
from robustmri.data.cohort import Cohort
from robustmri.data.split import Split
from robustmri.recipes import change_settings, load_recipe
from robustmri.results.lineage import SCRATCH
from robustmri.verbs.run_folder import claimed_folder, join_seen, refuse_seen

if TYPE_CHECKING:
    from robustmri.models.classifier import ClassifierSpec
    from robustmri.training.settings import TrainSettings


def train(
    cohort: str | Path,
    out: str | Path,
    *,
    settings: TrainSettings | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> Path:
    """Train a classifier on a cohort; returns the run folder, which holds `checkpoint/` and
    epochs.csv.

    A run that was killed goes on from its last finished epoch; one that is finished is left as it
    is.

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
    """The same as `train` with an objective that meets attacked images; "adversarial", if
    `settings` name no other.

    It starts from `checkpoint` or, given "scratch", from a fresh network; the rest is as in
    `train`.

    Raises:
        SettingsError: the objective asked for is "standard".
    """
    if settings is None:
        settings = load_recipe("standard").harden
    chosen = change_settings(
        settings, changes if settings.attacked else {"objective": "adversarial", **changes}
    )
    if not chosen.attacked:
        raise SettingsError(
            'A repair needs attacked images, got the objective "standard": choose '
            "another, or `train`."
        )
    return _fit(
        None if str(checkpoint) == SCRATCH else Path(checkpoint), cohort, out, chosen, progress
    )


def _fit(
    start: Path | None,
    cohort: str | Path,
    out: str | Path,
    settings: TrainSettings,
    progress: Progress,
) -> Path:
    from robustmri.data.loaders import load_images, load_labels
    from robustmri.models.backbones import build_classifier
    from robustmri.models.checkpoint import check_fits, load_checkpoint, save_checkpoint
    from robustmri.training.batches import Examples, check_parts
    from robustmri.training.deadline import fitted_settings
    from robustmri.training.loggers import check_installed
    from robustmri.training.loop import fit
    from robustmri.training.objectives import check_objective, threat_of
    from robustmri.training.resume import STATE
    from robustmri.training.selection import read_epochs

    check_objective(settings)
    check_installed(settings.logger)
    scans, run = Cohort.open(cohort), Path(out)
    split = Split.load(scans.root)
    split.check(scans)
    if not split.train:
        raise DataError(
            f"{scans.root} was prepared with --split none: all its slices are for tests. Prepare "
            "it with another split to train on it."
        )
    origin, before = SCRATCH, dict[str, Any]()
    if start is not None:
        classifier, checkpoint = load_checkpoint(start)
        check_fits(checkpoint, scans.classes, scans.size, scans.channels)
        refuse_seen(start, checkpoint, scans, split, split.test)
        before = checkpoint.provenance
        settings = going_on_from(checkpoint.spec, settings)
        origin = checkpoint.identity
    elif not (run / "checkpoint").is_dir():
        # Before the folder is claimed: a name that does not exist must leave nothing behind.
        classifier = build_classifier(
            settings.backbone,
            scans.classes,
            scans.size,
            channels=scans.channels,
            weights=settings.weights,
            seed=settings.seed,
            progress=lambda done, total: progress("fetching the weights", done, total or 0),
        )
    if not (run / "checkpoint").is_dir():
        check_parts(classifier, len(split.train), settings)
        if settings.attacked:
            threat_of(settings, classifier)
    with claimed_folder(
        run,
        {
            "train": msgspec.to_builtins(settings),
            "start": origin,
            "cohort": scans.fingerprint,
            "split": split.fingerprint,
        },
        done="checkpoint",
    ):
        if (run / "checkpoint").is_dir():
            (run / STATE).unlink(missing_ok=True)
            return run
        learn, choose = (
            Examples(load_images(scans, rows), load_labels(scans, rows))
            for rows in (split.train, split.validation)
        )
        classifier, choice = fit(
            classifier, learn, choose, settings, run, repair=start is not None, progress=progress
        )
        settings = fitted_settings(run, settings)

        def finish() -> None:
            seen = join_seen(start, before, scans, (*split.train, *split.validation))
            provenance = describe_run(settings.seed) | {
                "cohort": scans.fingerprint,
                "split": split.fingerprint,
                "start": origin,
                "seen_sha256": sha256(seen).hexdigest(),
                "kept_epoch": msgspec.to_builtins(choice.row),
                "kept_because": choice.reason,
                "training_seconds": round(sum(row.seconds for row in read_epochs(run)), 1),
                "alarms": [alarm.sentence for alarm in choice.alarms],
            }
            save_checkpoint(
                classifier,
                run / "checkpoint",
                training=msgspec.to_builtins(settings),
                provenance=provenance,
                seen=seen,
            )
            (run / STATE).unlink(missing_ok=True)

        processes.on_one_process(finish)
        return run


def going_on_from(spec: ClassifierSpec, settings: TrainSettings) -> TrainSettings:
    """The settings of a run that begins with a classifier instead of a fresh network.

    Raises:
        SettingsError: it cannot be trained.
    """
    if not spec.gradients:
        raise SettingsError(
            f"{spec.backbone} only answers, it offers no gradient: it can be evaluated, not "
            "trained. Import its weights with --arch NAME, or an ONNX file of known operators."
        )
    return msgspec.structs.replace(
        settings,
        backbone=spec.backbone,
        weights="none",
        mirrored=settings.mirrored or spec.mirrored,
    )
