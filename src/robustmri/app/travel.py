"""The commands for a machine that no network reaches: `bundle`, `run-bundle` and `unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import robustmri
from robustmri.app.console import shown_progress
from robustmri.app.options import Cohort, Out, RecipeName, Set, listed
from robustmri.app.terminal import say
from robustmri.core.sizes import size_words


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
            have=listed(have),
            also=listed(also),
            python=listed(python),
            platform=platform,
            minutes=minutes,
            max_mib=max_mib,
            grey_error=grey_error,
            stages=stages or None,
            progress=progress,
        )
    sizes = ", ".join(f"{name} {size:.1f}" for name, size in made.mib.items() if name != "all")
    say(f"{out}: {made.mib['all']:.1f} MiB ({sizes}). {made.loss}")
    say("Copy it there, and run: sh run.sh RESULTS")


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
            only=listed(only),
            work=work or None,
            limits=limits,
            grace=grace,
            progress=progress,
        )
    for one in outcomes:
        say(f"{one.name:14} {one.status:9} {one.seconds:7.1f} s  {one.detail}")
    if all(one.status in ("failed", "stopped") for one in outcomes):
        raise typer.Exit(1)


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
        say(f"{out}: {len(made)} slices of {size_words(made.size)}, fingerprint {made.fingerprint}")
        return
    for one in robustmri.unpack(folder, out, cohort=cohort):
        tested = "not tested; give --cohort"
        if one.accuracy is not None:
            tested = f"clean accuracy {one.accuracy:.2%} in 16 bit"
            if one.changed is not None:
                tested += f", {one.changed} of {one.slices} slices named differently than there"
        say(f"{one.run}: rounded by at most {one.largest_change:.1e}; {tested}")
