"""Which network, at which size, is worth training on this machine in the time that there is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from robustmri.core import processes
from robustmri.core.errors import SettingsError
from robustmri.core.files import read_json, write_json
from robustmri.core.progress import duration
from robustmri.core.sizes import Size, parse_size, sides
from robustmri.data.cohort import Cohort, is_cohort
from robustmri.recipes import Recipe, load_recipe
from robustmri.verbs.on_time import EVALUATION, LAST

if TYPE_CHECKING:
    from robustmri.training.settings import TrainSettings

CANDIDATES = ("poster-small", "poster-cpu", "poster-offline")
"""The smallest network first; all start from scratch, for weights may not be at hand."""
ENOUGH = 2 / 3
"""Share of a recipe's epochs without which its network is too large for the time."""
LOOKED_AT = 64
"""Slices, of random pixels, on which the cost of an epoch is measured."""
FILE = "preset.json"


class _Chosen(msgspec.Struct):
    preset: str
    reason: str


def choose_preset(
    source: str | Path, out: str | Path, minutes: float, overrides: Iterable[str] = ()
) -> tuple[str, str]:
    """The largest of `CANDIDATES` of whose epochs two thirds fit into the trainings' share of the
    time, or the smallest.

    A few batches of each are timed on this machine, the smallest first, until one does not fit;
    what was chosen is kept in `out`, so that a resumed run stays with it.

    Args:
        source: scans, or a cohort; its number of files is taken for that of slices.
        out: folder of the story.
        minutes: for everything.
        overrides: single settings of the recipe.

    Returns:
        Name of the recipe, and why, in a sentence with the measured times.

    Raises:
        SettingsError: no time was named.
    """
    from robustmri.data.sources import open_source

    if not minutes:
        raise SettingsError("--preset auto needs a time to choose for: add --minutes 45.")
    kept = Path(out) / FILE
    if kept.is_file():
        stored: _Chosen = read_json(kept, _Chosen, again="Start again in another --out.")
        return stored.preset, stored.reason
    slices = len(Cohort.open(source)) if is_cohort(source) else len(open_source(source))
    wanted = 60 * minutes * (1 - LAST) * (1 - 1.5 * EVALUATION)
    tried: dict[str, float] = {}
    for name in CANDIDATES:
        tried[name] = _seconds_of(load_recipe(name, overrides), slices)
        if ENOUGH * tried[name] > wanted:
            break
    fit = [name for name, needed in tried.items() if ENOUGH * needed <= wanted]
    name = fit[-1] if fit else CANDIDATES[0]
    measured = ", ".join(f"{one} {duration(needed)}" for one, needed in tried.items())
    reason = (
        f"{name}: of {duration(60 * minutes)} about {duration(wanted)} are for training; measured "
        f"here, all epochs would take: {measured}."
    )
    if not fit:
        reason += " That is too much; fewer epochs are run."
    processes.on_one_process(lambda: write_json(kept, {"preset": name, "reason": reason}))
    return name, reason


def _seconds_of(recipe: Recipe, slices: int) -> float:
    """Of both trainings, without the time that a recipe may be limited to."""
    share = recipe.prepare.fractions[0] if recipe.prepare.split != "folds" else 0.65
    return sum(
        _seconds_per_slice(stage, parse_size(recipe.prepare.size)) * slices * share
        for stage in (recipe.train, recipe.harden)
    )


def _seconds_per_slice(settings: TrainSettings, size: Size) -> float:
    """Of all epochs together, its part of the validations included."""
    import torch

    from robustmri.models.backbones import build_classifier
    from robustmri.training.batches import Examples
    from robustmri.training.loop import expected_time

    generator = torch.Generator().manual_seed(0)
    images = torch.rand(LOOKED_AT, 1, *sides(size), generator=generator)
    labels = torch.arange(LOOKED_AT) % 3
    classifier = build_classifier(settings.backbone, ("a", "b", "c"), size)
    unlimited = msgspec.structs.replace(settings, minutes=0.0)
    few = Examples(images[:8], labels[:8])
    found = expected_time(classifier, Examples(images, labels), few, unlimited)
    return found.seconds / LOOKED_AT
