"""The whole story in one call: every verb after another, and a published protocol measured
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from robustmri.core import processes
from robustmri.core.errors import SettingsError
from robustmri.core.files import atomic_file, fingerprint, read_json, write_struct
from robustmri.core.progress import Progress, silent
from robustmri.data.cohort import Cohort, is_cohort
from robustmri.data.intensity import AUTO, rule_for
from robustmri.data.sources import is_phantom
from robustmri.data.split import Split, make_split
from robustmri.recipes import PrepareSettings, Recipe, load_recipe, load_toml
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.on_time import (
    FILE,
    Stopwatch,
    fit_evaluation,
    fit_training,
    refuse_unmeasured,
)
from robustmri.verbs.prepare import READING, prepare
from robustmri.verbs.preset import choose_preset
from robustmri.verbs.report import write_report
from robustmri.verbs.train import harden, train

if TYPE_CHECKING:
    from robustmri.report.tables import Published, Table

PREPARED = "prepared.json"


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What the cohort of a story was made from, as far as the cohort does not say it.

    Attributes:
        source: the word `phantom` with its settings, or the last part of a path.
        place: fingerprint of the whole path, whose folders may name persons.
    """

    source: str
    place: str
    columns: str
    patient_pattern: str
    slices: str
    window: str
    fractions: tuple[float, float, float]


def protocol(
    source: str | Path,
    out: str | Path,
    recipe: Recipe,
    *,
    published: Sequence[Published] = (),
    title: str,
    images: bool = True,
    minutes: float = 0.0,
    watch: Stopwatch | None = None,
    progress: Progress = silent,
) -> Table:
    """The whole story: prepare, train, attack, harden, attack again, report. Stages that are done
    are not repeated.

    Args:
        source: scans, or a cohort folder that was prepared as the recipe says, which is then used
            where it is.
        out: folder for cohort/, standard/, before/, hardened/, after/ and report.html.
        recipe: settings of every stage.
        published: figures to stand beside the measured ones.
        title: heading of the report.
        images: whether the report shows slices.
        minutes: time for everything: the trainings get as many of their epochs, and the evaluations
            as many of the test slices, as fit on the machine at hand; 0: as long as it takes.
        watch: of these minutes, where it runs already.
        progress: told about every stage.

    Returns:
        The table of before and after.
    """
    from robustmri.report import as_markdown, comparison_table

    def stage(name: str) -> Progress:
        return lambda task, done, total, note="": progress(name, done, total, note)

    check_recipe(recipe)
    root, watch = Path(out), watch or Stopwatch(minutes)
    if minutes and not (root / FILE).exists():
        refuse_unmeasured(recipe)
    wanted = _of_cohort(source, recipe.prepare)
    fits = (
        is_cohort(source)
        and not _differences(Path(source), wanted)
        and _divided_alike(Path(source), wanted)
    )
    cohort = Path(source) if fits else root / "cohort"
    asked = _asked(source, recipe.prepare)
    if not cohort.is_dir():
        prepare(source, cohort, settings=recipe.prepare, progress=stage("1/6 prepare"))
        processes.on_one_process(lambda: write_struct(root / PREPARED, asked))
    elif not fits:
        _refuse_other(root, asked)
    _refuse_differing(cohort, _differences(cohort, wanted))
    if minutes:
        recipe = fit_evaluation(root, cohort, recipe, watch)
        recipe = fit_training(root, recipe, watch, "train")
    train(cohort, root / "standard", settings=recipe.train, progress=stage("2/6 train"))
    before = evaluate(
        root / "standard",
        cohort,
        root / "before",
        settings=recipe.evaluate,
        title=title,
        progress=stage("3/6 attack"),
    )
    if minutes:
        recipe = fit_training(root, recipe, watch, "harden")
    harden(
        root / "standard",
        cohort,
        root / "hardened",
        settings=recipe.harden,
        progress=stage("4/6 harden"),
    )
    after = evaluate(
        root / "hardened",
        cohort,
        root / "after",
        title=title,
        settings=msgspec.structs.replace(
            recipe.evaluate, examples=tuple(shown.case_id for shown in before.examples)
        ),
        progress=stage("5/6 attack again"),
    )
    progress("6/6 report", 0, 1)
    folders = [root / "before", root / "after"]
    write_report(folders, root / "report.html", images=images, title=title, published=published)
    table = comparison_table([before, after], published)
    with atomic_file(root / "table.md") as partial:
        partial.write_text(as_markdown(table), encoding="utf-8")
    progress("6/6 report", 1, 1)
    return table


def check_recipe(recipe: Recipe) -> None:
    """Refuse, before hours are spent, what training or evaluation would refuse later.

    Raises:
        SettingsError: an attack or an objective that cannot be used as the recipe has it.
    """
    from robustmri.evaluation.plan import resolve_attacks
    from robustmri.training.objectives import check_objective

    resolve_attacks(recipe.evaluate)
    for settings in (recipe.train, recipe.harden):
        check_objective(settings)


def _asked(source: str | Path, wanted: PrepareSettings) -> Prepared:
    path = str(source if is_phantom(source) else Path(source).resolve())
    return Prepared(
        source=path if is_phantom(source) else Path(path).name,
        place=fingerprint(path),
        **{name: getattr(wanted, name) for name in (*READING, "fractions")},
    )


def _refuse_other(root: Path, asked: Prepared) -> None:
    """The cohort of a story must have been made from the same scans; of stories of earlier versions
    nothing is known.
    """
    path = root / PREPARED
    if not path.is_file():
        return
    there: Prepared = read_json(path, Prepared, again="Start again in another --out.")
    if there.place != asked.place:
        raise SettingsError(
            f"{root / 'cohort'} was prepared from {there.source}, and not from this "
            f"{asked.source}. Choose another --out; or, if they are the same scans in another "
            f"place, remove {path}."
        )
    fields = Prepared.__struct_fields__
    differ = [name for name in fields if getattr(there, name) != getattr(asked, name)]
    _refuse_differing(root / "cohort", differ)


def _refuse_differing(folder: Path, differ: list[str]) -> None:
    """A cohort that was prepared before must be the one that the recipe asks for."""
    if differ:
        raise SettingsError(
            f"{folder} was prepared with other settings (they differ in {', '.join(differ)}). "
            "Choose another --out, or remove it."
        )


def _of_cohort(source: str | Path, wanted: PrepareSettings) -> PrepareSettings:
    """The settings with what a cohort as source has settled, where they say nothing else."""
    if not is_cohort(source):
        return wanted
    cohort = Cohort.open(source)
    return msgspec.structs.replace(
        wanted,
        intensity=cohort.intensity if wanted.intensity == AUTO else wanted.intensity,
        pad=wanted.pad and cohort.pad,
    )


def _differences(folder: Path, wanted: PrepareSettings) -> list[str]:
    """Settings that a cohort was prepared with otherwise."""
    cohort, split = Cohort.open(folder), Split.load(folder)
    there: dict[str, Any] = {
        "size": cohort.size,
        "intensity": cohort.intensity,
        "pad": cohort.pad,
        "split": split.kind,
        "seed": split.seed,
    }
    asked = {name: getattr(wanted, name) for name in there}
    if wanted.intensity == AUTO:
        asked["intensity"] = rule_for(cohort.channels)
    if wanted.channels is not None:
        there["channels"], asked["channels"] = cohort.channels, wanted.channels
    if split.kind == "folds":
        there, asked = there | {"fold": split.fold}, asked | {"fold": wanted.fold or 1}
    return [name for name in there if there[name] != asked[name]]


def _divided_alike(folder: Path, wanted: PrepareSettings) -> bool:
    """Whether the same split, made now with the shares that are wanted, has the same sets: a split
    does not say which shares it was made with.
    """
    cohort, split = Cohort.open(folder), Split.load(folder)
    again = make_split(
        cohort, split.kind, seed=split.seed, fold=split.fold, fractions=wanted.fractions
    )
    return again.fingerprint == split.fingerprint


def demo(out: str | Path, *, overrides: Iterable[str] = (), progress: Progress = silent) -> Table:
    """The whole story on the phantom cohort, in minutes."""
    recipe = load_recipe("demo", overrides)
    return protocol(
        recipe.source, out, recipe, title="robustmri demo on phantoms", progress=progress
    )


def reproduce(
    name: str,
    source: str | Path,
    out: str | Path,
    *,
    preset: str = "cpu",
    images: bool = True,
    minutes: float = 0.0,
    overrides: Iterable[str] = (),
    progress: Progress = silent,
) -> Table:
    """The poster's protocol on real slices, published figures beside measured ones.

    Args:
        name: "poster".
        source: the figshare release, or any source with patient ids.
        out: folder, see `protocol`.
        preset: "cpu" (ResNet-18 at 96 px), "small" (half as wide, at 64 px), "gpu" (ResNet-50 at
            224 px), "offline" (the same from scratch), "auto" (the largest of small, cpu and
            offline that `minutes` are enough for), or the path of a recipe.
        images: whether the report shows slices.
        minutes: see `protocol`.
        overrides: single settings, such as "harden.epochs=10".
        progress: told about every stage.
    """
    if name != "poster":
        raise SettingsError(f"There is no protocol {name!r}. Choices: poster.")
    overrides, reason, watch = list(overrides), "", Stopwatch(minutes)
    if preset == "auto":
        chosen, reason = choose_preset(source, out, minutes, overrides)
        recipe = load_recipe(chosen, overrides)
    else:
        recipe = load_recipe(preset if preset.endswith(".toml") else f"poster-{preset}", overrides)
    table = protocol(
        source,
        out,
        recipe,
        published=published_figures(),
        title="The poster, measured again",
        images=images,
        minutes=minutes,
        watch=watch,
        progress=progress,
    )
    notes = [*table.notes, *(f"Left open by the poster: {note}" for note in published_notes())]
    if reason:
        notes.append(f"Chosen for this machine: {reason}")
    return msgspec.structs.replace(table, notes=notes)


def published_figures() -> list[Published]:
    """The poster's accuracies."""
    from robustmri.report.tables import Published

    stored = load_toml("published")
    return [
        Published(what="accuracy", source=stored["source"], **figure)
        for figure in stored["figures"]
    ]


def published_notes() -> list[str]:
    """What the poster leaves open, a sentence each."""
    return list(load_toml("published")["notes"])
