"""One command per verb. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from signal import SIGTERM
from typing import Annotated, Any

import typer
from msgspec import Struct

import robustmri
from robustmri.app.certificates import certify
from robustmri.app.console import main_process_output, print_table, shown_progress
from robustmri.app.imports import export, import_, list_models
from robustmri.app.inspection import inspect
from robustmri.app.lists import list_attacks, list_checks, recipes
from robustmri.app.one_case import case
from robustmri.app.options import (
    Cohort,
    Devices,
    Estimate,
    Images,
    Minutes,
    Nodes,
    On,
    Out,
    RecipeName,
    Set,
    Verbs,
    listed,
)
from robustmri.app.results import check, compare, report, schema
from robustmri.app.serve import serve
from robustmri.app.studies import ablate, contrast, cross_validate, demo, reproduce
from robustmri.app.terminal import TERMINATED, say, steady_output, stoppable
from robustmri.app.travel import bundle, run_bundle, unpack
from robustmri.core import processes
from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.core.settings import choices_of, help_of
from robustmri.data.regions import REGIONS
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.recipes import PrepareSettings
from robustmri.training.settings import TrainSettings

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
CHECK_FAILED = 3
"""Exit status of `evaluate --strict` where a check failed."""


def option(kind: type[Struct], name: str, flag: str = "", note: str = "") -> Any:
    """The option of a setting: its help and its choices stand at the field."""
    choices = choices_of(kind, name)
    said = help_of(kind, name) + (f": {', '.join(choices)}" if choices else "") + note
    return typer.Option(*([flag] if flag else []), help=f"{said[0].upper()}{said[1:]}.")


app = typer.Typer(
    name="robustmri",
    cls=Verbs,
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
        say(f"robustmri {robustmri.__version__}")
        raise typer.Exit


@app.command()
def prepare(
    source: Annotated[
        str,
        typer.Argument(
            help="DICOM, NIfTI, images with a table, class folders, arrays, the figshare release, "
            "or `phantom`."
        ),
    ],
    out: Out,
    size: Annotated[str, option(PrepareSettings, "size")] = "224",
    channels: Annotated[int | None, option(PrepareSettings, "channels")] = None,
    pad: Annotated[bool, option(PrepareSettings, "pad", "--pad/--stretch")] = True,
    split: Annotated[str, option(PrepareSettings, "split")] = "patient",
    fold: Annotated[int | None, option(PrepareSettings, "fold")] = None,
    intensity: Annotated[str, option(PrepareSettings, "intensity")] = "auto",
    columns: Annotated[str, option(PrepareSettings, "columns")] = "",
    patient_pattern: Annotated[str, option(PrepareSettings, "patient_pattern")] = "",
    slices: Annotated[str, option(PrepareSettings, "slices")] = "",
    window: Annotated[str, option(PrepareSettings, "window")] = "",
    seed: Annotated[int, option(PrepareSettings, "seed")] = 0,
) -> None:
    """Read scans into a cohort folder, and split it into train, validation and test."""
    with shown_progress() as progress:
        cohort = robustmri.prepare(
            source,
            out,
            size=size,
            channels=channels,
            pad=pad,
            split=split,
            fold=fold,
            intensity=intensity,
            columns=columns,
            patient_pattern=patient_pattern,
            slices=slices,
            window=window,
            seed=seed,
            progress=progress,
        )
    from robustmri.data.split import Split

    people = "patients" if cohort.groups == "patient" else "inferred groups"
    say(
        f"{out}: {len(cohort)} slices of {cohort.n_patients} {people}; classes "
        f"{', '.join(cohort.classes)}"
    )
    made = Split.load(out)
    say(
        f"train {len(made.train)}, validation {len(made.validation)}, test {len(made.test)} "
        f"slices. {made.note}"
    )
    for note in cohort.notes:
        say(f"note: {note}")
    for left in cohort.left_out[:10]:
        say(f"left out: {left.source}: {left.reason}")
    if len(cohort.left_out) > 10:
        say(f"left out: {len(cohort.left_out) - 10} more, listed in {out / 'cohort.json'}")


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
    estimate: Estimate = False,
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
    if estimate:
        say(robustmri.estimate_training(cohort, settings))
        return
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
    estimate: Estimate = False,
) -> None:
    """Repair a classifier by adversarial training."""
    from robustmri.recipes import change_settings, load_recipe

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
    changes = {"objective": objective} if objective else {}
    if estimate:
        chosen = change_settings(settings, changes)
        say(robustmri.estimate_training(cohort, chosen, checkpoint=checkpoint))
        return
    with shown_progress() as progress:
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
    curve: Annotated[
        str | None, option(EvaluateSettings, "curve", note='; comma-separated, "" for none')
    ] = None,
    norm: Annotated[str, option(EvaluateSettings, "norm")] = "",
    threat: Annotated[str, option(EvaluateSettings, "threat")] = "",
    corruptions: Annotated[
        str, option(EvaluateSettings, "corruptions", note="; comma-separated")
    ] = "",
    target: Annotated[str | None, option(EvaluateSettings, "target")] = None,
    region: Annotated[str, option(EvaluateSettings, "region")] = "",
    regions: Annotated[
        str, option(EvaluateSettings, "regions", note="; comma-separated, or all")
    ] = "",
    saliency: Annotated[int | None, option(EvaluateSettings, "saliency")] = None,
    detectors: Annotated[str, option(EvaluateSettings, "detectors", note="; comma-separated")] = "",
    classes: Annotated[str, option(EvaluateSettings, "classes", note="; comma-separated")] = "",
    case: Annotated[
        list[str] | None, typer.Option("--case", help="Attack this case alone; may be repeated.")
    ] = None,
    patient: Annotated[
        list[str] | None,
        typer.Option("--patient", help="Attack this patient's slices alone; may be repeated."),
    ] = None,
    limit: Annotated[int | None, option(EvaluateSettings, "limit")] = None,
    seed: Annotated[int | None, option(EvaluateSettings, "seed")] = None,
    devices: Devices = None,
    nodes: Nodes = None,
    recipe: RecipeName = "standard",
    set_: Set = None,
    estimate: Estimate = False,
    on: On = "",
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the code of attacks MODULE:NAME in --attacks.")
    ] = False,
    costs: Annotated[
        Path | None,
        typer.Option("--costs", help="CSV of what each wrong answer costs: truth,answer,cost."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--report", help="Write the page about it, too.")
    ] = None,
    images: Images = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with status 3 where a check failed.")
    ] = False,
) -> None:
    """Attack a classifier on the test slices and write down how easily it is fooled."""
    from robustmri.recipes import change_settings, load_recipe
    from robustmri.report import comparison_table
    from robustmri.report.scanner import corruption_table, threat_table

    given = {
        "attacks": attacks,
        "eps": eps,
        "curve": curve,
        "norm": norm,
        "threat": threat,
        "corruptions": corruptions,
        "target": target,
        "region": region,
        "regions": ",".join(REGIONS) if regions == "all" else regions,
        "saliency": saliency,
        "detectors": detectors,
        "classes": classes,
        "limit": limit,
        "seed": seed,
    }
    settings = load_recipe(recipe, [*_overrides("evaluate", given), *(set_ or [])]).evaluate
    # As a change: named here, they are meant, whatever the classifier offers.
    asked: dict[str, Any] = {"attacks": tuple(listed(attacks))} if attacks else {}
    asked |= {"eps": settings.eps} if eps else {}
    asked |= {"cases": tuple(case)} if case else {}
    asked |= {"patients": tuple(patient)} if patient else {}
    if estimate:
        say(robustmri.estimate_evaluation(checkpoint, cohort, change_settings(settings, asked)))
        return
    if on:
        from robustmri.app.cluster import submit_whole

        submit_whole(on, out, nodes=nodes or 1, tasks=devices or 1)
        return
    with shown_progress() as progress:
        result = robustmri.evaluate(
            checkpoint,
            cohort,
            out,
            settings=settings,
            devices=devices or 1,
            nodes=nodes or 1,
            trusted=listed(attacks) if trust else (),
            costs=costs,
            progress=progress,
            **asked,
        )
    print_table(comparison_table([result]))
    for table in (corruption_table([result]), threat_table([result])):
        if table is not None:
            say("")
            print_table(table)
    checks = [*result.split.leakage, *result.checks]
    for one in checks:
        if one.status != "pass":
            say(f"{one.status}: {one.name}: {one.detail}")
    if page is None:
        say(f"wrote {out}; see it with: robustmri report {out} --out report.html")
    else:
        say(f"wrote {out} and {robustmri.write_report([out], page, images=images)}")
    if strict and any(one.status == "fail" for one in checks):
        raise typer.Exit(CHECK_FAILED)


@app.command()
def download(out: Out) -> None:
    """Fetch the figshare brain tumour release (3064 slices, about 880 MB, CC BY 4.0)."""
    from robustmri.verbs.download import download as fetch_release

    with shown_progress() as progress:
        folder = fetch_release(out, progress=progress)
    say(f"wrote {folder}; go on with: robustmri prepare {folder} --out cohort")


app.command()(report)
app.command()(compare)
app.command()(check)
app.command()(schema)
app.command()(certify)
app.command()(demo)
app.command()(reproduce)
app.command("cross-validate")(cross_validate)
app.command()(ablate)
app.command()(contrast)
app.command("import")(import_)
app.command()(export)
app.command("models")(list_models)
app.command()(case)
app.command()(inspect)
app.command()(bundle)
app.command("run-bundle")(run_bundle)
app.command()(unpack)
app.command()(serve)
app.command()(recipes)
app.command("attacks")(list_attacks)
app.command("checks")(list_checks)


def _overrides(stage: str, given: dict[str, Any]) -> list[str]:
    """Options that were given, as overrides of a recipe."""
    return [
        f"{stage}.{name}={value}"
        for name, value in given.items()
        if value or value == 0 or (value == "" and name in ("curve", "target"))
    ]


def _print_run(run: Path) -> None:
    from robustmri.models.checkpoint import read_checkpoint
    from robustmri.training.selection import pareto_front, read_epochs

    made = read_checkpoint(run).provenance
    kept = made["kept_epoch"]
    robust = kept["validation_robust_accuracy"]
    say(
        f"{run}: kept epoch {kept['epoch']}, validation accuracy {kept['validation_accuracy']:.1%}"
        + ("" if robust is None else f", robust {robust:.1%}")
    )
    if robust is None:
        return
    rows = read_epochs(run)
    shown = {row.epoch for row in pareto_front(rows)} | {kept["epoch"]}
    say(f"{made['kept_because']} Epochs that none beats in both, and the kept one:")
    say("  epoch   clean  robust")
    for row in sorted(rows, key=lambda row: -row.validation_accuracy):
        if row.epoch in shown:
            mark = "  kept" if row.epoch == kept["epoch"] else ""
            say(f"{row.epoch:>7} {row.validation_accuracy:>7.1%} {row.robust_accuracy:>7.1%}{mark}")
    for sentence in made["alarms"]:
        say(f"warn: {sentence}")


def _shortened(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:100]} ... {name[-90:]}"


def _words_of(error: BaseException) -> str:
    """What an error says; the system's own say a number and a name."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        name = _shortened(os.fsdecode(error.filename))
        return f"{name} cannot be used ({error.strerror}). Mend that, or name another place."
    return str(error) or "there is not enough memory."


def _was_stopped(error: BaseException | None) -> bool:
    """By Ctrl-C or SIGTERM, which a module being loaded may turn into an error of its own."""
    if isinstance(error, SystemExit):
        return error.code == INTERRUPTED
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def main() -> None:
    """Entry point: known failures are one line and a non-zero exit."""
    here = (
        "robustmri"
        if processes.is_main_process()
        else f"robustmri (process {processes.process_name()})"
    )
    with steady_output(), stoppable() as signals:
        try:
            with main_process_output():
                app()
        except BaseException as error:
            if _was_stopped(error):
                if processes.is_main_process():
                    say("robustmri: stopped. The same command goes on where it was.", error=True)
                sys.exit(TERMINATED if SIGTERM in signals else INTERRUPTED)
            if not isinstance(error, (RobustMRIError, OSError, MemoryError)):
                raise
            # What a library said, in a cause that is quoted, may be many lines.
            say(f"{here}: {' '.join(_words_of(error).split())}", error=True)
            sys.exit(2 if isinstance(error, SettingsError) else 1)


if __name__ == "__main__":
    main()
