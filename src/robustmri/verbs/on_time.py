"""So many minutes for a whole story: shared between its trainings and its evaluations, and kept for
a resumed one.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import msgspec

from robustmri.core import processes
from robustmri.core.errors import SettingsError
from robustmri.core.files import read_json, write_json
from robustmri.data.cohort import Cohort
from robustmri.data.split import Split
from robustmri.recipes import Recipe
from robustmri.training.settings import TrainSettings

FILE = "time.json"
EVALUATION = 0.3
"""Largest share of the time for attacking the hardened network, were every slice to stand to the
end.
"""
BEFORE = 0.5
"""What attacking the undefended one takes of that, about: most of its slices fall early."""
TRAIN = 0.3
"""Share of what is left for training; the rest is for hardening."""
LAST = 0.04
"""Share kept for the report and for whatever was not foreseen."""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """How the time is shared, as it is kept; minutes of a training that is not planned yet are
    None.
    """

    limit: Annotated[int, msgspec.Meta(ge=0)]
    of_slices: int
    max_seconds: Annotated[float, msgspec.Meta(ge=0)]
    evaluation_minutes: Annotated[float, msgspec.Meta(ge=0)]
    train: float | None = None
    harden: float | None = None


class Stopwatch:
    """Time that is left.

    Args:
        minutes: in all.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._began = time.monotonic()

    @property
    def left(self) -> float:
        """Minutes, without the share that is kept for the end."""
        return self.minutes * (1 - LAST) - (time.monotonic() - self._began) / 60


def refuse_unmeasured(recipe: Recipe) -> None:
    """Refuse a time for what an evaluation is asked besides its attacks.

    Raises:
        SettingsError: regions, detectors or saliency.
    """
    beside = [
        name for name in ("regions", "detectors", "saliency") if getattr(recipe.evaluate, name)
    ]
    if beside:
        raise SettingsError(
            f"the time of {', '.join(beside)} is not measured beforehand, so none can be kept with "
            "them. Leave them out, and evaluate once more afterwards."
        )


def fit_evaluation(root: Path, cohort: Path, recipe: Recipe, watch: Stopwatch) -> Recipe:
    """The recipe with as many test slices as can be attacked in the evaluations' share, measured
    before anything.
    """
    plan = _read(root)
    if "limit" not in plan:
        refuse_unmeasured(recipe)
        plan |= _plan_evaluation(cohort, recipe, EVALUATION * watch.left)
        _write(root, plan)
    limit, seconds = plan["limit"], plan["max_seconds"]
    return msgspec.structs.replace(
        recipe, evaluate=msgspec.structs.replace(recipe.evaluate, limit=limit, max_seconds=seconds)
    )


def fit_training(root: Path, recipe: Recipe, watch: Stopwatch, stage: str) -> Recipe:
    """The recipe with minutes for "train" or for "harden", of those that are left beside the
    evaluations.
    """
    plan = _read(root)
    if stage not in plan:
        after = plan["evaluation_minutes"]
        left = watch.left - after - (BEFORE * after if stage == "train" else 0.0)
        plan[stage] = round(max(left * (TRAIN if stage == "train" else 1.0), 0.01), 3)
        _write(root, plan)
    settings = msgspec.structs.replace(getattr(recipe, stage), minutes=plan[stage])
    return msgspec.structs.replace(recipe, **{stage: settings})


def as_fitted(root: Path, recipe: Recipe) -> Recipe:
    """The recipe as the story in that folder was run on its time: epochs, slices and all, so that
    others can be run alike, however long they take.

    Raises:
        SettingsError: that story is not at its end.
    """
    from robustmri.models.checkpoint import read_checkpoint

    plan, stages = _read(root), {"train": root / "standard", "harden": root / "hardened"}
    if "limit" not in plan or not all((run / "checkpoint").is_dir() for run in stages.values()):
        raise SettingsError(
            f"{root} was not run to its end with --minutes, and the others take its epochs and "
            "slices. Run it first."
        )
    fitted = {
        stage: msgspec.structs.replace(
            msgspec.convert(read_checkpoint(run).training, TrainSettings), minutes=0.0
        )
        for stage, run in stages.items()
    }
    evaluated = msgspec.structs.replace(
        recipe.evaluate, limit=plan["limit"], max_seconds=plan["max_seconds"]
    )
    return msgspec.structs.replace(recipe, evaluate=evaluated, **fitted)


def share_equally(root: Path, cohort: Path, recipe: Recipe, minutes: float) -> Recipe:
    """The recipe of a study with as many slices as fit into the evaluations' share, and for each
    training an equal part of the rest, so that variants compare at equal cost.
    """
    runs = len(recipe.variants) * len(recipe.seeds)
    begun = any(variant.start == "standard" for variant in recipe.variants.values())
    trainings = runs + (len(recipe.seeds) if begun else 0)
    recipe = fit_evaluation(root, cohort, recipe, Stopwatch(minutes / runs))
    evaluations = runs * _read(root)["evaluation_minutes"]
    each = round(max((minutes * (1 - LAST) - evaluations) / trainings, 0.01), 3)
    return msgspec.structs.replace(
        recipe,
        train=msgspec.structs.replace(recipe.train, minutes=each),
        harden=msgspec.structs.replace(recipe.harden, minutes=each),
    )


def _plan_evaluation(cohort: Path, recipe: Recipe, minutes: float) -> dict[str, Any]:
    from robustmri.evaluation.expected import plan_evaluation
    from robustmri.evaluation.plan import make_plan
    from robustmri.models.backbones import build_classifier
    from robustmri.training.launch import join_processes

    scans = Cohort.open(cohort)
    classifier = build_classifier(
        recipe.train.backbone, scans.classes, scans.size, channels=scans.channels
    ).answering(mirrored=_is_mirrored(recipe))
    whole = make_plan(recipe.evaluate, classifier, scans, Split.load(cohort))
    device = join_processes(recipe.train.devices, recipe.train.nodes)
    plan = plan_evaluation(classifier, whole, 60 * minutes, device)
    return {
        # All that the recipe asks for, or as many as fit.
        "limit": plan.limit or recipe.evaluate.limit,
        "of_slices": len(whole.trials[0].rows),
        "max_seconds": round(plan.max_seconds, 3),
        "evaluation_minutes": round(plan.seconds / 60, 3),
    }


def _is_mirrored(recipe: Recipe) -> bool:
    """Whether a repaired network is asked twice, about each image and its mirror image."""
    changes = [variant.harden.get("mirrored") for variant in recipe.variants.values()]
    return recipe.harden.mirrored or any(change is True for change in changes)


def _read(root: Path) -> dict[str, Any]:
    processes.wait_for_all()
    path = root / FILE
    if not path.exists():
        return {}
    plan: Planned = read_json(path, Planned, again="Start again in another --out.")
    return {name: value for name, value in msgspec.to_builtins(plan).items() if value is not None}


def _write(root: Path, plan: dict[str, Any]) -> None:
    """One process's measurements hold for all."""
    processes.on_one_process(lambda: write_json(root / FILE, plan))
    plan |= _read(root)
