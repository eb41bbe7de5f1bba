"""One command per verb. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct

import robustmri
from robustmri.app.console import main_process_output, print_table, shown_progress
from robustmri.app.options import (
    Cohort,
    Devices,
    Images,
    Minutes,
    Nodes,
    Out,
    RecipeName,
    Set,
    listed,
)
from robustmri.app.serve import serve
from robustmri.app.travel import bundle, run_bundle, unpack
from robustmri.core import processes
from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.core.settings import choices_of, help_of
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.recipes import PrepareSettings
from robustmri.training.settings import TrainSettings

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def option(kind: type[Struct], name: str, flag: str = "", note: str = "") -> Any:
    """The option of a setting: its help and its choices stand at the field."""
    choices = choices_of(kind, name)
    said = help_of(kind, name) + (f": {', '.join(choices)}" if choices else "") + note
    return typer.Option(*([flag] if flag else []), help=f"{said[0].upper()}{said[1:]}.")


app = typer.Typer(
    name="robustmri",
    help=(
        "Measure how easily a medical-image classifier is fooled, repair it, and report both, "
        "patient by patient."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)
    ] = False,
) -> None:
    if version:
        print(f"robustmri {robustmri.__version__}")
        raise typer.Exit


@app.command()
def prepare(
    source: Annotated[
        str,
        typer.Argument(help="figshare release, images with a CSV, class folders, or `phantom`."),
    ],
    out: Out,
    size: Annotated[int, option(PrepareSettings, "size")] = 224,
    split: Annotated[str, option(PrepareSettings, "split")] = "patient",
    fold: Annotated[int | None, option(PrepareSettings, "fold")] = None,
    intensity: Annotated[str, option(PrepareSettings, "intensity")] = "minmax",
    seed: Annotated[int, option(PrepareSettings, "seed")] = 0,
) -> None:
    """Read scans into a cohort folder, and split it into train, validation and test."""
    with shown_progress() as progress:
        cohort = robustmri.prepare(
            source,
            out,
            size=size,
            split=split,
            fold=fold,
            intensity=intensity,
            seed=seed,
            progress=progress,
        )
    from robustmri.data.split import Split

    people = "patients" if cohort.groups == "patient" else "inferred groups"
    print(
        f"{out}: {len(cohort)} slices of {cohort.n_patients} {people}; classes "
        f"{', '.join(cohort.classes)}"
    )
    made = Split.load(out)
    print(
        f"train {len(made.train)}, validation {len(made.validation)}, test {len(made.test)} "
        f"slices. {made.note}"
    )
    for left in cohort.left_out[:10]:
        print(f"left out: {left.source}: {left.reason}")
    if len(cohort.left_out) > 10:
        print(f"left out: {len(cohort.left_out) - 10} more, listed in {out / 'cohort.json'}")


@app.command()
def train(
    cohort: Cohort,
    out: Out,
    model: Annotated[str, option(TrainSettings, "backbone", "--model")] = "",
    weights: Annotated[str, option(TrainSettings, "weights")] = "",
    epochs: Annotated[int | None, option(TrainSettings, "epochs")] = None,
    seed: Annotated[int | None, option(TrainSettings, "seed")] = None,
    minutes: Minutes = 0.0,
    devices: Devices = None,
    nodes: Nodes = None,
    recipe: RecipeName = "standard",
    set_: Set = None,
) -> None:
    """Train a classifier on clean slices."""
    from robustmri.recipes import load_recipe

    given = {
        "backbone": model,
        "weights": weights,
        "epochs": epochs,
        "seed": seed,
        "minutes": minutes or None,
        "devices": devices,
        "nodes": nodes,
    }
    settings = load_recipe(recipe, [*_overrides("train", given), *(set_ or [])]).train
    with shown_progress() as progress:
        run = robustmri.train(cohort, out, settings=settings, progress=progress)
    _print_run(run)


@app.command()
def harden(
    checkpoint: Annotated[
        str, typer.Argument(help="Checkpoint or run folder; `scratch` for a fresh network.")
    ],
    cohort: Cohort,
    out: Out,
    eps: Annotated[str, option(TrainSettings, "eps")] = "",
    objective: Annotated[str, option(TrainSettings, "objective")] = "",
    clean_cost: Annotated[float | None, option(TrainSettings, "clean_cost")] = None,
    epochs: Annotated[int | None, option(TrainSettings, "epochs")] = None,
    seed: Annotated[int | None, option(TrainSettings, "seed")] = None,
    minutes: Minutes = 0.0,
    devices: Devices = None,
    nodes: Nodes = None,
    recipe: RecipeName = "standard",
    set_: Set = None,
) -> None:
    """Repair a classifier by adversarial training."""
    from robustmri.recipes import load_recipe

    given = {
        "eps": eps,
        "clean_cost": clean_cost,
        "epochs": epochs,
        "seed": seed,
        "minutes": minutes or None,
        "devices": devices,
        "nodes": nodes,
    }
    settings = load_recipe(recipe, [*_overrides("harden", given), *(set_ or [])]).harden
    with shown_progress() as progress:
        changes = {"objective": objective} if objective else {}
        run = robustmri.harden(
            checkpoint, cohort, out, settings=settings, progress=progress, **changes
        )
    _print_run(run)


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint folder, or the run folder that holds it.")
    ],
    cohort: Cohort,
    out: Out,
    attacks: Annotated[str, option(EvaluateSettings, "attacks", note="; comma-separated")] = "",
    eps: Annotated[str, option(EvaluateSettings, "eps", note="; comma-separated")] = "",
    curve: Annotated[str, option(EvaluateSettings, "curve", note="; comma-separated")] = "",
    norm: Annotated[str, option(EvaluateSettings, "norm")] = "",
    target: Annotated[str, option(EvaluateSettings, "target")] = "",
    region: Annotated[str, option(EvaluateSettings, "region")] = "",
    limit: Annotated[int | None, option(EvaluateSettings, "limit")] = None,
    seed: Annotated[int | None, option(EvaluateSettings, "seed")] = None,
    devices: Devices = None,
    nodes: Nodes = None,
    recipe: RecipeName = "standard",
    set_: Set = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the code of attacks MODULE:NAME in --attacks.")
    ] = False,
) -> None:
    """Attack a classifier on the test slices and write down how easily it is fooled."""
    from robustmri.recipes import load_recipe
    from robustmri.report import comparison_table

    given = {
        "attacks": attacks,
        "eps": eps,
        "curve": curve,
        "norm": norm,
        "target": target,
        "region": region,
        "limit": limit,
        "seed": seed,
    }
    settings = load_recipe(recipe, [*_overrides("evaluate", given), *(set_ or [])]).evaluate
    with shown_progress() as progress:
        result = robustmri.evaluate(
            checkpoint,
            cohort,
            out,
            settings=settings,
            devices=devices or 1,
            nodes=nodes or 1,
            trusted=listed(attacks) if trust else (),
            progress=progress,
        )
    print_table(comparison_table([result]))
    for check in (*result.split.leakage, *result.checks):
        if check.status != "pass":
            print(f"{check.status}: {check.name}: {check.detail}")
    print(f"wrote {out}; see it with: robustmri report {out} --out report.html")


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Result folders: one, or before and after.", metavar="DIR..."),
    ],
    out: Out,
    images: Images = True,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
) -> None:
    """Write one self-contained HTML page about one or several results."""
    from robustmri.verbs.report import write_report

    print(f"wrote {write_report(folders, out, images=images, title=title)}")


@app.command()
def download(out: Out) -> None:
    """Fetch the figshare brain tumour release (3064 slices, about 880 MB, CC BY 4.0)."""
    from robustmri.verbs.download import download as fetch_release

    with shown_progress() as progress:
        folder = fetch_release(out, progress=progress)
    print(f"wrote {folder}; go on with: robustmri prepare {folder} --out cohort")


@app.command()
def demo(out: Out, set_: Set = None) -> None:
    """The whole story on synthetic slices: train, attack, harden, attack again, report. Minutes."""
    with shown_progress() as progress:
        table = robustmri.demo(out, overrides=set_ or [], progress=progress)
    print_table(table)
    print(f"wrote {out / 'report.html'}; look at every case with: robustmri serve {out}")


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="poster")],
    data: Annotated[
        str, typer.Option(help="The figshare release, or another source with patient ids.")
    ],
    out: Out,
    preset: Annotated[
        str,
        typer.Option(
            help=(
                "cpu (ResNet-18, 96 px), small (half as wide, 64 px), gpu (ResNet-50, 224 px), "
                "offline (the same from scratch) or a .toml file."
            )
        ),
    ] = "cpu",
    images: Images = True,
    minutes: Minutes = 0.0,
    set_: Set = None,
) -> None:
    """A published protocol from beginning to end, published figures beside measured ones."""
    with shown_progress() as progress:
        table = robustmri.reproduce(
            name,
            data,
            out,
            preset=preset,
            images=images,
            minutes=minutes,
            overrides=set_ or [],
            progress=progress,
        )
    print_table(table)
    print(f"wrote {out / 'report.html'} and {out / 'table.md'}")


@app.command("cross-validate")
def cross_validate(
    source: Annotated[
        str, typer.Argument(help="Scans with patient ids, as for `prepare`.", show_default=False)
    ],
    out: Out,
    recipe: RecipeName = "standard",
    only: Annotated[
        str, typer.Option(help="Comma-separated folds to run now; the last one pools all five.")
    ] = "",
    images: Images = True,
    set_: Set = None,
) -> None:
    """Train, attack, harden and attack again on five patient-wise folds, and pool their test
    patients.
    """
    from robustmri.recipes import load_recipe

    settings = load_recipe(recipe, set_ or [])
    given: dict[str, Any] = {"folds": listed(only)} if only else {}
    with shown_progress() as progress:
        table = robustmri.cross_validate(
            source, out, settings, images=images, progress=progress, **given
        )
    _print_study(table, out, "folds", f"and {out / 'report.html'}")


@app.command()
def ablate(
    cohort: Cohort,
    out: Out,
    recipe: RecipeName = "ablation",
    only: Annotated[str, typer.Option(help="Comma-separated variants to run now.")] = "",
    set_: Set = None,
) -> None:
    """Harden by each variant of a recipe, and compare them on the validation patients."""
    from robustmri.recipes import load_recipe

    settings = load_recipe(recipe, set_ or [])
    with shown_progress() as progress:
        table = robustmri.ablate(cohort, out, settings, only=listed(only), progress=progress)
    _print_study(table, out, "variants")


app.command()(bundle)
app.command("run-bundle")(run_bundle)
app.command()(unpack)
app.command()(serve)


@app.command()
def recipes() -> None:
    """List the recipes that come with the package."""
    from robustmri.recipes import list_recipes, load_recipe

    for name in list_recipes():
        print(f"{name:12} {load_recipe(name).about}")


@app.command("attacks")
def list_attacks(
    name: Annotated[str, typer.Argument(help="One of them, for its meaning and settings.")] = "",
) -> None:
    """List the attacks with their norms and papers; or say all there is to know of one."""
    from robustmri.app.attack_table import describe_attack, tabulate_attacks

    if name:
        print(describe_attack(name))
    else:
        print_table(tabulate_attacks(), words=6)


def _print_study(table: Any, out: Path, parts: str, also: str = "") -> None:
    if table is None:
        print(f"{out}: done so far; the table comes with the last of the {parts}.")
        return
    print_table(table)
    print(f"wrote {out / 'table.md'} {also}".rstrip())


def _overrides(stage: str, given: dict[str, Any]) -> list[str]:
    """Options that were given, as overrides of a recipe."""
    return [f"{stage}.{name}={value}" for name, value in given.items() if value not in ("", None)]


def _print_run(run: Path) -> None:
    from robustmri.models.checkpoint import read_checkpoint
    from robustmri.training.selection import pareto_front, read_epochs

    made = read_checkpoint(run).provenance
    kept = made["kept_epoch"]
    robust = kept["validation_robust_accuracy"]
    print(
        f"{run}: kept epoch {kept['epoch']}, validation accuracy {kept['validation_accuracy']:.1%}"
        + ("" if robust is None else f", robust {robust:.1%}")
    )
    if robust is None:
        return
    print(f"{made['kept_because']} Epochs that none beats in both:\n  epoch   clean  robust")
    for row in pareto_front(read_epochs(run)):
        mark = "  kept" if row.epoch == kept["epoch"] else ""
        print(f"{row.epoch:>7} {row.validation_accuracy:>7.1%} {row.robust_accuracy:>7.1%}{mark}")
    for sentence in made["alarms"]:
        print(f"warn: {sentence}")


def main() -> None:
    """Entry point: known failures are one line and a non-zero exit."""
    here = (
        "robustmri"
        if processes.is_main_process()
        else f"robustmri (process {processes.process_name()})"
    )
    try:
        with main_process_output():
            app()
    except (RobustMRIError, OSError) as error:
        # What a library said, in a cause that is quoted, may be many lines.
        print(f"{here}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    except SystemExit as end:
        if end.code == INTERRUPTED and processes.is_main_process():
            print("robustmri: stopped. The same command goes on where it was.", file=sys.stderr)
        raise


if __name__ == "__main__":
    main()
