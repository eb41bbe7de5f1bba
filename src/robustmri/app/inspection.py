"""The command that looks for leakage before anything is trained: `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import robustmri
from robustmri.app.console import print_table, shown_progress
from robustmri.app.options import Images
from robustmri.app.terminal import say

LEAKAGE = 4
"""Exit status of `inspect --strict` where leakage was found."""
MOST_IDS = 10


def inspect(
    cohorts: Annotated[
        list[Path], typer.Argument(help="Cohort folders, made by `prepare`.", metavar="COHORT...")
    ],
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the page about it, too.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write it as JSON, too.")] = None,
    images: Images = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with status 4 where leakage was found.")
    ] = False,
) -> None:
    """Look for leakage within and across cohorts: patients, ids, copies, classes, odd slices."""
    from robustmri.report.inspection import tabulate_findings

    with shown_progress() as progress:
        found = robustmri.inspect(
            cohorts, report=report, json=json, images=images, progress=progress
        )
    print_table(tabulate_findings(found), words=3)
    if images:
        for one, other in found.alike_ids[:MOST_IDS]:
            say(f"alike: {one} and {other}")
    for path in (report, json):
        if path is not None:
            say(f"wrote {path}")
    if strict and found.leaks:
        raise typer.Exit(LEAKAGE)
