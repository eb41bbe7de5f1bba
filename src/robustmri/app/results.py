"""The commands on results that are there: `report` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import robustmri
from robustmri.app.console import print_table
from robustmri.app.options import Images, Out, listed
from robustmri.app.terminal import say

Names = Annotated[
    str,
    typer.Option(
        help="What the classifiers are called, one for each folder, comma-separated.",
        show_default=False,
    ),
]
Title = Annotated[str | None, typer.Option(help="Heading of the page.")]


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Result folders: one, before and after, or several.", metavar="DIR..."),
    ],
    out: Out,
    names: Names = "",
    images: Images = True,
    title: Title = None,
) -> None:
    """Write one self-contained HTML page about one or several results."""
    made = robustmri.write_report(folders, out, images=images, title=title, names=listed(names))
    say(f"wrote {made}")


def compare(
    first: Annotated[Path, typer.Argument(help="Result folder.", show_default=False)],
    second: Annotated[
        Path, typer.Argument(help="Result folder of the same slices.", show_default=False)
    ],
    out: Out,
    names: Names = "",
    images: Images = True,
    title: Title = None,
) -> None:
    """Pair two results by patient: which withstands more, by how much, for whom. HTML, and JSON
    beside it.
    """
    from robustmri.report.tables import tabulate_comparison

    made = robustmri.compare(first, second, out, names=listed(names), images=images, title=title)
    print_table(tabulate_comparison(made))
    say(f"wrote {out} and {out.with_suffix('.json')}")
