"""What each ingredient of a repair is worth, on validation patients. It resumes run by run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from robustmri.core.errors import SettingsError, did_you_mean
from robustmri.core.files import atomic_file, write_json
from robustmri.core.progress import Progress, part_of, silent
from robustmri.recipes import Recipe, change_settings, require_recipe
from robustmri.results.lineage import SCRATCH
from robustmri.threat.eps import parse_eps
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.on_time import share_equally
from robustmri.verbs.reproduce import check_recipe
from robustmri.verbs.train import harden, train

if TYPE_CHECKING:
    from robustmri.evaluation.ablation import Share, Worth
    from robustmri.evaluation.settings import EvaluateSettings
    from robustmri.report.tables import Table


def ablate(
    cohort: str | Path,
    out: str | Path,
    recipe: Recipe,
    *,
    only: Collection[str] = (),
    minutes: float = 0.0,
    progress: Progress = silent,
) -> Table | None:
    """Harden by each variant of a recipe with each of its seeds, and compare them on the validation
    patients.

    The test patients are not looked at: what is chosen here can be reported on them.

    Args:
        cohort: folder made by `prepare`.
        out: folder for standard/, a folder for each variant and seed, ablation.json and table.md.
        recipe: with `variants`; the first is what the others are compared with.
        only: variants to run now, so that several machines can share the work; none: all. Let the
            first be done before others join: they share its standard run.
        minutes: time for all runs, of which each training gets an equal part; 0: as long as it
            takes.
        progress: told about every run.

    Returns:
        The table; None while runs are missing.

    Raises:
        SettingsError: a recipe without variants, an unknown variant, or one whose settings do not
            fit.
    """
    from robustmri.evaluation.ablation import compare
    from robustmri.report import as_markdown
    from robustmri.training.objectives import check_objective
    from robustmri.training.selection import read_epochs

    require_recipe(recipe)
    if not recipe.variants:
        raise SettingsError(
            "This recipe has no variants to compare. Write [variants.NAME] tables, as ablation "
            "does."
        )
    unknown = sorted(set(only) - set(recipe.variants))
    if unknown:
        raise SettingsError(
            f"There is no variant {unknown[0]!r}. {did_you_mean(unknown[0], recipe.variants)}"
        )
    root = Path(out)
    recipe = msgspec.structs.replace(
        recipe,
        evaluate=msgspec.structs.replace(
            recipe.evaluate, evaluated_set="validation", examples_per_class=0
        ),
    )
    check_recipe(recipe)
    _refuse_incomparable(recipe.evaluate)
    if minutes:
        recipe = share_equally(root, Path(cohort), recipe, minutes)
    settings = {
        name: change_settings(recipe.harden, one.harden) for name, one in recipe.variants.items()
    }
    for one in settings.values():
        check_objective(one)
    runs = {
        name: [root / name / f"seed-{seed}" for seed in recipe.seeds] for name in recipe.variants
    }
    for place, seed in enumerate(recipe.seeds):
        for name, variant in recipe.variants.items():
            if only and name not in only:
                continue
            told, run, start = part_of(f"{name}, seed {seed}", progress), runs[name][place], SCRATCH
            if variant.start != SCRATCH:
                start = str(root / "standard" / f"seed-{seed}")
                train(
                    cohort,
                    start,
                    settings=msgspec.structs.replace(recipe.train, seed=seed),
                    progress=told,
                )
            harden(
                start,
                cohort,
                run,
                settings=msgspec.structs.replace(settings[name], seed=seed),
                progress=told,
            )
            evaluate(
                run,
                cohort,
                run / "validation",
                settings=recipe.evaluate,
                title=variant.about,
                progress=told,
            )
    results = {name: [run / "validation" for run in own] for name, own in runs.items()}
    if not all(
        (folder / "robustness.json").is_file() for own in results.values() for folder in own
    ):
        return None
    seconds = {
        name: [sum(row.seconds for row in read_epochs(run)) for run in own]
        for name, own in runs.items()
    }
    worth = compare(results, seconds)
    write_json(root / "ablation.json", [msgspec.to_builtins(one) for one in worth])
    table = _worth_table(worth, recipe)
    with atomic_file(root / "table.md") as partial:
        partial.write_text(as_markdown(table), encoding="utf-8")
    return table


def _worth_table(worth: Sequence[Worth], recipe: Recipe) -> Table:
    from robustmri.report.tables import Table
    from robustmri.report.wording import change, percent

    def cell(share: Share) -> str:
        return percent(share.accuracy) + (
            "" if share.change is None else f" ({change(share.change[:3])})"
        )

    written = {
        str(parse_eps(text)): text for text in (*recipe.evaluate.eps, *recipe.evaluate.curve)
    }
    rows = [
        [
            one.name,
            recipe.variants[one.name].about,
            *map(cell, (one.clean, *one.robust.values())),
            f"{one.seconds / 60:.1f}",
        ]
        for one in worth
    ]
    heads = [
        "Variant",
        "What differs",
        "Clean",
        *(f"Worst case, {written.get(eps, eps)}" for eps in worth[0].robust),
        "Minutes",
    ]
    seeds = f"{worth[0].runs} seeds" if worth[0].runs > 1 else f"seed {recipe.seeds[0]}"
    notes = [
        f"Validation patients, {seeds}; worst case over {', '.join(recipe.evaluate.attacks)}. In "
        f"parentheses: points against {worth[0].name}, slice by slice, with the 95 % interval by "
        "patient. The kept epoch was chosen on the same slices, so the figures compare variants "
        "and are no result. The intervals draw patients, not trainings: what another seed would "
        "change is not in them."
    ]
    return Table(heads, rows, notes)


def _refuse_incomparable(settings: EvaluateSettings) -> None:
    """Variants are compared on the same slices, untouched and in the worst case."""
    from robustmri.evaluation.plan import resolve_attacks

    if settings.target:
        raise SettingsError(
            "ablate compares variants on slices that are attacked alike, and an attack with a "
            f"target leaves those of its class out, got target={settings.target!r}. Leave it empty."
        )
    if not settings.curve and all(facts.minimal for facts, _ in resolve_attacks(settings).values()):
        raise SettingsError(
            "ablate compares worst cases, which attacks without a radius have none of, got "
            f"{', '.join(settings.attacks)}. Add one within eps, such as pgd."
        )
