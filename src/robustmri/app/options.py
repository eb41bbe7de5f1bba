"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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


On = Annotated[
    str,
    typer.Option(
        "--on",
        help="Submit it: slurm, or slurm:partition=gpu,time=600,gpus_per_node=1; local tries that.",
        metavar="CLUSTER",
    ),
]
Estimate = Annotated[
    bool,
    typer.Option("--estimate", help="Say how long it would take on this machine, and stop."),
]


def listed(text: str) -> list[str]:
    """The parts of a text that commas divide."""
    return [part.strip() for part in text.split(",") if part.strip()]
