"""The commands on results that are there: `report`, `compare`, `check`, and `schema`."""

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
Minimum = Annotated[
    list[str] | None,
    typer.Option(
        "--min",
        help="The least that a number must be, e.g. worst_case=0.5, clean=90 %, pgd@8/255=0.4.",
        metavar="NAME=VALUE",
    ),
]
CriteriaFile = Annotated[
    Path | None,
    typer.Option(
        "--criteria",
        help="TOML file: intended_use, version, decided_by, and a table min.",
        show_default=False,
    ),
]
NOT_GOOD_ENOUGH = 3
"""Exit status of `check` where something failed."""
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
    minimum: Minimum = None,
    criteria: CriteriaFile = None,
    card: Annotated[
        Path | None,
        typer.Option(
            help="Write a model card of the last one, too: the README.md of Hugging Face.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write one self-contained HTML page about one or several results."""
    from robustmri.results.acceptance import parse_minimum

    made = robustmri.write_report(
        folders,
        out,
        images=images,
        title=title,
        names=listed(names),
        criteria=criteria,
        minimum=parse_minimum(minimum or []),
        card=card,
    )
    say(f"wrote {made}" + (f" and {card}" if card else ""))


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


def check(
    result: Annotated[
        Path, typer.Argument(help="Result folder, or its robustness.json.", show_default=False)
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(help="Result folder that it must not fall behind.", show_default=False),
    ] = None,
    minimum: Minimum = None,
    criteria: CriteriaFile = None,
    margin: Annotated[
        float, typer.Option(help="Drop that is put up with, as a fraction: 0.02 is two points.")
    ] = 0.0,
    junit: Annotated[
        Path | None, typer.Option(help="Write JUnit XML, too.", show_default=False)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write JSON, too.", show_default=False)] = None,
) -> None:
    """Pass or fail a result, for continuous integration: minima, its own checks, a baseline. Ends
    with status 3 where something failed.
    """
    from robustmri.results.acceptance import parse_minimum

    gate = robustmri.check(
        result,
        baseline=baseline,
        minimum=parse_minimum(minimum or []),
        criteria=criteria,
        margin=margin,
        json=json,
        junit=junit,
    )
    for finding in gate.findings:
        say(f"{finding.status}: {finding.kind}: {finding.name}: {finding.detail}")
    failed = sum(finding.status == "fail" for finding in gate.findings)
    say("passed" if gate.passed else f"failed: {failed} of {len(gate.findings)}")
    if not gate.passed:
        raise typer.Exit(NOT_GOOD_ENOUGH)


def schema(
    name: Annotated[str, typer.Argument(help="robustness, comparison or gate.")] = "robustness",
    out: Annotated[
        Path | None, typer.Option(help="File to write; else it is printed.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON Schema of robustness.json, or of what compare and check write."""
    from robustmri.core.files import atomic_file
    from robustmri.results.json_schema import schema_text

    text = schema_text(name)
    if out is None:
        say(*text.splitlines())
        return
    with atomic_file(out) as partial:
        partial.write_text(text, encoding="utf-8")
    say(f"wrote {out}")
