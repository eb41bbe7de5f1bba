"""One command per verb. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import robustmri
from robustmri.app.console import main_process_output, print_table, shown_progress
from robustmri.core import processes
from robustmri.core.errors import RobustMRIError, SettingsError

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

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

Out = Annotated[Path, typer.Option(help="Where the result goes.", show_default=False)]
Cohort = Annotated[
    Path, typer.Argument(help="Cohort folder, made by `prepare`.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Replace one setting of the recipe, e.g. train.epochs=10.",
        metavar="STAGE.NAME=VALUE",
    ),
]
RecipeName = Annotated[
    str, typer.Option("--recipe", help="Named settings (see `recipes`), or a .toml file.")
]
Devices = Annotated[
    int | None, typer.Option(help="Processes or GPUs on each machine that share the work.", min=1)
]
Nodes = Annotated[
    int | None, typer.Option(help="Machines that share the work; see docs/repair.md.", min=1)
]
Images = Annotated[
    bool,
    typer.Option(
        "--images/--no-images", help="Show slices; without them the page may leave the hospital."
    ),
]

Minutes = Annotated[
    float,
    typer.Option(
        "--minutes",
        help="Time for it: fewer epochs, and slices, where they would take longer. 0: any.",
        min=0,
    ),
]


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
    size: Annotated[
        int, typer.Option(help="Height and width of the stored slices in pixels.")
    ] = 224,
    split: Annotated[
        str, typer.Option(help="patient, slice (as the poster's) or folds.")
    ] = "patient",
    fold: Annotated[int | None, typer.Option(help="Test fold, 1 to 5, with --split folds.")] = None,
    intensity: Annotated[str, typer.Option(help="minmax or percentile.")] = "minmax",
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
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
    model: Annotated[
        str,
        typer.Option(
            help="resnet18, resnet18-half, resnet50, densenet121, vit, or timm:NAME, hf:NAME."
        ),
    ] = "",
    weights: Annotated[
        str,
        typer.Option(
            help=(
                "none, imagenet, radimagenet, robust-imagenet, others of docs/repair.md, or a file."
            )
        ),
    ] = "",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of weights, order and augmentation.")
    ] = None,
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
    eps: Annotated[
        str, typer.Option(help="Radius to train against: 0.04, 8/255 or 0.04@normalised.")
    ] = "",
    objective: Annotated[
        str, typer.Option(help="adversarial, one-step, free, trades or mart (docs/repair.md).")
    ] = "",
    clean_cost: Annotated[
        float | None,
        typer.Option(
            help="Keep the most robust epoch that loses at most so many points of accuracy."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of order, augmentation and random starts.")
    ] = None,
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
    attacks: Annotated[
        str,
        typer.Option(
            help="Comma-separated: fgsm, pgd, cw-l2, others of docs/attacks.md, foolbox:NAME."
        ),
    ] = "",
    eps: Annotated[
        str, typer.Option(help="Comma-separated radii: 0.04, 8/255, 0.04@normalised.")
    ] = "",
    curve: Annotated[
        str, typer.Option(help="Comma-separated further radii, for the curve, by PGD alone.")
    ] = "",
    norm: Annotated[str, typer.Option(help="linf, l2 or l1.")] = "",
    target: Annotated[
        str, typer.Option(help="Class that the attacker wants to see; any wrong one if not given.")
    ] = "",
    region: Annotated[
        str, typer.Option(help="Where pixels may change: image, brain, lesion, outside-lesion.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(help="Test slices to attack, evenly spaced; 0: all.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the attacks and of the bootstrap.")
    ] = None,
    devices: Devices = None,
    nodes: Nodes = None,
    recipe: RecipeName = "standard",
    set_: Set = None,
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
    from robustmri.report import write_report

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
    print(f"wrote {out / 'report.html'}")


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
    given: dict[str, Any] = {"folds": _listed(only)} if only else {}
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
        table = robustmri.ablate(cohort, out, settings, only=_listed(only), progress=progress)
    _print_study(table, out, "variants")


@app.command()
def bundle(
    cohort: Cohort,
    out: Out,
    recipe: RecipeName = "poster-offline",
    have: Annotated[
        str, typer.Option(help="Comma-separated packages that the other machine has.")
    ] = "torch,torchvision,timm",
    also: Annotated[
        str, typer.Option(help="Further packages to pack, such as torchattacks to be timed beside.")
    ] = "",
    python: Annotated[
        str, typer.Option(help="Comma-separated versions of its Python; as here if not given.")
    ] = "",
    platform: Annotated[str, typer.Option(help="linux_x86_64 or linux_aarch64.")] = "linux_x86_64",
    minutes: Annotated[float, typer.Option(help="Of the run there.")] = 9.0,
    max_mib: Annotated[float, typer.Option(help="What it may weigh in MiB; 0: anything.")] = 60.0,
    grey_error: Annotated[
        int | None,
        typer.Option(help="Of 255 grey levels; as few as fit into --max-mib if not given."),
    ] = None,
    stages: Annotated[
        str, typer.Option(help="A .toml file of stages in place of the packaged one.")
    ] = "",
    set_: Set = None,
) -> None:
    """Pack all that a GPU machine without network needs: code, wheels, cohort, recipe, run.sh."""
    with shown_progress() as progress:
        made = robustmri.bundle(
            cohort,
            out,
            recipe=recipe,
            overrides=set_ or [],
            have=_listed(have),
            also=_listed(also),
            python=_listed(python),
            platform=platform,
            minutes=minutes,
            max_mib=max_mib,
            grey_error=grey_error,
            stages=stages or None,
            progress=progress,
        )
    sizes = ", ".join(f"{name} {size:.1f}" for name, size in made.mib.items() if name != "all")
    print(f"{out}: {made.mib['all']:.1f} MiB ({sizes}). {made.loss}")
    print("Copy it there, and run: sh run.sh RESULTS")


@app.command("run-bundle")
def run_bundle(
    folder: Annotated[Path, typer.Argument(help="What `bundle` made.", show_default=False)],
    out: Out,
    minutes: Annotated[float, typer.Option(help="For everything; 0: as bundled.", min=0)] = 0.0,
    only: Annotated[str, typer.Option(help="Comma-separated stages to run now.")] = "",
    work: Annotated[
        str, typer.Option(help="Folder for what stays; in the bundle if not given.")
    ] = "",
    grace: Annotated[
        float, typer.Option(help="Minutes by which a stage may be late before it is stopped.")
    ] = 0.5,
    max_files: Annotated[int, typer.Option(help="Files that may go home.", min=2)] = 8,
    part_size: Annotated[float, typer.Option(help="MiB of a part of weights.")] = 15.0,
    max_mib: Annotated[float, typer.Option(help="MiB that may go home in all.")] = 60.0,
) -> None:
    """Run the stages of a bundle; its run.sh calls this once everything is installed."""
    from robustmri.verbs.run_bundle import Limits

    limits = Limits(max_files=max_files, part_mib=part_size, max_mib=max_mib)
    with shown_progress() as progress:
        outcomes = robustmri.run_bundle(
            folder,
            out,
            minutes=minutes,
            only=_listed(only),
            work=work or None,
            limits=limits,
            grace=grace,
            progress=progress,
        )
    for one in outcomes:
        print(f"{one.name:14} {one.status:9} {one.seconds:7.1f} s  {one.detail}")
    if all(one.status in ("failed", "stopped") for one in outcomes):
        raise typer.Exit(1)


@app.command()
def unpack(
    folder: Annotated[
        Path, typer.Argument(help="Results of a bundle's run; or a bundle, for its cohort.")
    ],
    out: Out,
    cohort: Annotated[
        Path | None, typer.Option(help="The bundle's cohort, to test the networks on.")
    ] = None,
) -> None:
    """Put together what came home from a run without network; or the cohort that travelled."""
    if (folder / "bundle.json").is_file() or folder.is_file():
        made = robustmri.unpack_travelled(folder, out)
        print(f"{out}: {len(made)} slices of {made.size} px, fingerprint {made.fingerprint}")
        return
    for one in robustmri.unpack(folder, out, cohort=cohort):
        tested = "not tested; give --cohort"
        if one.accuracy is not None:
            tested = f"clean accuracy {one.accuracy:.2%} in 16 bit"
            if one.changed is not None:
                tested += f", {one.changed} of {one.slices} slices named differently than there"
        print(f"{one.run}: rounded by at most {one.largest_change:.1e}; {tested}")


@app.command()
def recipes() -> None:
    """List the recipes that come with the package."""
    from robustmri.recipes import list_recipes, load_recipe

    for name in list_recipes():
        print(f"{name:12} {load_recipe(name).about}")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


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
