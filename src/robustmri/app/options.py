"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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


class Verbs(TyperGroup):
    """Commands of which an option that counts once is refused twice, where the parser takes the
    last, and an empty one, which would count as not given.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command, its name and its words."""
        name, command, words = super().resolve_command(ctx, args)
        if command is not None:
            single = {
                flag: option
                for option in command.params
                if not getattr(option, "multiple", True) and not getattr(option, "is_flag", True)
                for flag in option.opts
            }
            options = words[: words.index("--")] if "--" in words else words
            given = []
            for word, after in zip(options, [*options[1:], "?"], strict=False):
                flag, equals, value = word.partition("=")
                if flag not in single:
                    continue
                given.append(single[flag].opts[0])
                if single[flag].default == "" and not (value if equals else after).strip(" ,"):
                    ctx.fail(
                        f"{flag} is empty. Give it a value, or leave it out; a variable of the "
                        "shell may not be set."
                    )
            for flag in given:
                if given.count(flag) > 1:
                    ctx.fail(
                        f"{flag} is given {given.count(flag)} times, and only one would count. "
                        "Give it once; a list is written with commas, as in --eps 4/255,0.04."
                    )
        return name, command, words


def listed(text: str) -> list[str]:
    """The parts of a text that commas divide."""
    return [part.strip() for part in text.split(",") if part.strip()]
