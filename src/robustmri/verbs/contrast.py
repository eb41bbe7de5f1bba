"""Which of two cohorts is easier to attack: the same network, recipe and attack on both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from robustmri.core.errors import DataError, SettingsError
from robustmri.core.files import atomic_file, write_json
from robustmri.core.progress import Progress, part_of, silent
from robustmri.data.cohort import Cohort
from robustmri.data.split import Split
from robustmri.recipes import Recipe, require_recipe
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.reproduce import check_recipe
from robustmri.verbs.train import train

FEW = 10
"""Patients below which an interval that draws them again promises too much."""

if TYPE_CHECKING:
    from robustmri.evaluation.contrast import Ease, Median
    from robustmri.report.tables import Table


def contrast(
    cohort: str | Path,
    other: str | Path,
    out: str | Path,
    recipe: Recipe,
    *,
    progress: Progress = silent,
) -> Table:
    """Train the same network with the same recipe on two cohorts, and compare how little fools it.

    Args:
        cohort: folder made by `prepare`, of scans for instance.
        other: likewise, of photographs for instance; slices of the same size and kind.
        out: folder for a run and a result of each, contrast.json and table.md.
        recipe: its `train` and `evaluate`, the latter with an attack that looks for the smallest
            change.
        progress: told about every stage.

    Returns:
        The table: a row for each cohort.

    Raises:
        DataError: the cohorts differ in size or kind, or are one.
        SettingsError: the recipe has no attack that looks for the smallest change.
    """
    from robustmri.evaluation.contrast import compare_ease, measure_ease, read_nearest
    from robustmri.evaluation.plan import resolve_attacks
    from robustmri.report import as_markdown

    require_recipe(recipe)
    check_recipe(recipe)
    made = resolve_attacks(recipe.evaluate)
    if not any(facts.minimal and recipe.evaluate.norm in facts.norms for facts, _ in made.values()):
        raise SettingsError(
            "the recipe has no attack that looks for the smallest change in "
            f"{recipe.evaluate.norm}. Add one: fmn."
        )
    root = Path(out)
    cohorts = [Cohort.open(cohort), Cohort.open(other)]
    _refuse_unlike(*cohorts)
    nearest, eases = [], []
    for place, one in zip(("first", "second"), cohorts, strict=True):
        told, folder = part_of(one.name, progress), root / place
        train(one.root, folder, settings=recipe.train, progress=told)
        result = folder / "result"
        evaluate(folder, one.root, result, settings=recipe.evaluate, title=one.name, progress=told)
        nearest.append(read_nearest(result, recipe.evaluate.norm))
        eases.append(measure_ease(one.name, nearest[-1]))
    ratio = compare_ease(*nearest)
    table = _contrast_table(cohorts, eases, ratio, recipe)
    found = {
        "cohorts": [msgspec.to_builtins(ease) for ease in eases],
        "ratio": msgspec.to_builtins(ratio),
        "norm": recipe.evaluate.norm,
        "attacks": list(recipe.evaluate.attacks),
        "backbone": recipe.train.backbone,
        "fingerprints": [one.fingerprint for one in cohorts],
    }
    write_json(root / "contrast.json", found)
    with atomic_file(root / "table.md") as partial:
        partial.write_text(as_markdown(table), encoding="utf-8")
    return table


def _refuse_unlike(first: Cohort, second: Cohort) -> None:
    if first.fingerprint == second.fingerprint:
        raise DataError(f"Both cohorts are {first.name}: give two that differ.")
    for what in ("size", "channels"):
        one, other = (getattr(each, what, None) for each in (first, second))
        if one != other:
            raise DataError(
                f"{first.name} has a {what} of {one}, {second.name} of {other}: like is compared "
                f"with like. Prepare one of them again with --{what}."
            )


def _contrast_table(
    cohorts: list[Cohort], eases: list[Ease], ratio: Median, recipe: Recipe
) -> Table:
    from robustmri.report.tables import Table
    from robustmri.report.wording import percent

    heads = [
        "Cohort",
        "Groups",
        "Classes",
        "Training slices",
        "Right untouched",
        f"Smallest eps that fools, {recipe.evaluate.norm}, median",
    ]
    rows = [
        [
            one.name,
            f"{ease.groups} {'patients' if one.groups == 'patient' else 'inferred'}",
            str(len(one.classes)),
            str(len(Split.load(one.root).train)),
            f"{percent(ease.right / ease.searched)} of {ease.searched}",
            _interval(ease.eps),
        ]
        for one, ease in zip(cohorts, eases, strict=True)
    ]
    notes = [
        _verdict(eases, ratio),
        f"{recipe.train.backbone} from {recipe.train.weights}, {recipe.train.epochs} epochs, the "
        f"same recipe for both; {', '.join(recipe.evaluate.attacks)} on the "
        f"{recipe.evaluate.evaluated_set} slices that were named rightly untouched. Brackets: 95 % "
        "interval, by patient where there are patients, else by groups of near-duplicates. The "
        "cohorts also differ in what the table says of them: classes, slices and accuracy are part "
        "of the difference, and one training of each is not what others would be.",
    ]
    held = [f"{ease.held} of {ease.name}" for ease in eases if ease.held]
    if held:
        notes.append(f"No change was found that fools: {', '.join(held)} (counted as infinite).")
    return Table(heads, rows, notes)


def _verdict(eases: list[Ease], ratio: Median) -> str:
    first, second = (one.name for one in eases)
    fewest = min(one.groups for one in eases)
    if ratio.value is None or ratio.low is None:
        return (
            f"{first} and {second} are not compared: for half of the slices of one of them, no "
            "change was found that fools. Give the search more steps."
        )
    said = f"its median is {_interval(ratio)} times that of {second}"
    if fewest < FEW:
        return (
            f"Whether {first} is easier to fool cannot be told from {fewest} patients or groups, "
            f"fewer than {FEW}: {said}."
        )
    if ratio.high is not None and ratio.high < 1:
        return f"{first} is easier to fool: {said}."
    if ratio.low > 1:
        return f"{first} is harder to fool: {said}."
    return f"Whether {first} is easier to fool cannot be told: {said}."


def _interval(median: Median) -> str:
    value, low, high = (
        "infinite" if one is None else f"{one:.3g}"
        for one in (median.value, median.low, median.high)
    )
    return f"{value} [{low} to {high}]"
