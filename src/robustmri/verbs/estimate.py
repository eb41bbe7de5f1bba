"""How long a training or an evaluation would take on this machine, measured before it starts;
nothing is written.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from robustmri.core.progress import duration
from robustmri.data.cohort import Cohort
from robustmri.data.split import Split
from robustmri.results.lineage import SCRATCH

if TYPE_CHECKING:
    from robustmri.evaluation.settings import EvaluateSettings
    from robustmri.training.settings import TrainSettings


def estimate_training(
    cohort: str | Path, settings: TrainSettings, *, checkpoint: str | Path = SCRATCH
) -> str:
    """The time of `train`, or of `harden` from a checkpoint, in words.

    Args:
        cohort: folder made by `prepare`.
        settings: of the run.
        checkpoint: what is repaired; "scratch" for a fresh network.

    Raises:
        DataError: no cohort, or one without slices to train on.
        CheckpointError: no checkpoint.
        SettingsError: a classifier that cannot be trained.
    """
    from robustmri.core.errors import DataError
    from robustmri.data.loaders import load_images, load_labels
    from robustmri.models.backbones import build_classifier
    from robustmri.models.checkpoint import check_fits, load_checkpoint
    from robustmri.training.batches import Examples, check_parts
    from robustmri.training.loop import expected_time
    from robustmri.training.objectives import check_objective
    from robustmri.verbs.train import going_on_from

    check_objective(settings)
    scans = Cohort.open(cohort)
    split = Split.load(scans.root)
    if not split.train:
        raise DataError(f"{scans.root} has no slices to train on: it was split for tests alone.")
    if str(checkpoint) == SCRATCH:
        # Its weights do not matter, and are not fetched.
        classifier = build_classifier(
            settings.backbone, scans.classes, scans.size, channels=scans.channels
        )
    else:
        classifier, stored = load_checkpoint(checkpoint)
        check_fits(stored, scans.classes, scans.size, scans.channels)
        settings = going_on_from(stored.spec, settings)
    check_parts(classifier, len(split.train), settings)
    parts = [
        Examples(load_images(scans, rows), load_labels(scans, rows))
        for rows in (split.train, split.validation)
    ]
    return str(expected_time(classifier, parts[0], parts[1], settings))


def estimate_evaluation(
    checkpoint: str | Path, cohort: str | Path, settings: EvaluateSettings
) -> str:
    """The most that `evaluate` would take, in words: what no attack fools costs all its steps.

    Args:
        checkpoint: checkpoint folder, or the run folder that holds it.
        cohort: folder made by `prepare`.
        settings: of the evaluation.

    Raises:
        DataError: no cohort.
        CheckpointError: no checkpoint.
        SettingsError: an attack that cannot be run.
    """
    from robustmri.evaluation.expected import plan_evaluation
    from robustmri.evaluation.plan import make_plan
    from robustmri.models.checkpoint import check_fits, load_checkpoint
    from robustmri.training.launch import join_processes
    from robustmri.verbs.evaluate import without_gradients

    scans = Cohort.open(cohort)
    classifier, stored = load_checkpoint(checkpoint)
    scans = scans.with_classes(stored.spec.classes, settings.class_names)
    check_fits(stored, scans.classes, scans.size, scans.channels)
    if not classifier.spec.gradients:
        settings = without_gradients(settings)
    plan = make_plan(settings, classifier, scans, Split.load(scans.root))
    expected = plan_evaluation(classifier, plan, math.inf, join_processes())
    said = f"at most {duration(expected.seconds)} on this machine; less where slices fall early"
    beside = [name for name in ("regions", "detectors", "saliency") if getattr(settings, name)]
    return said + (f"; {', '.join(beside)} on top of it" if beside else "")
