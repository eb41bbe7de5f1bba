"""The command for certificates: `certify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import robustmri
from robustmri.app.console import print_table, shown_progress
from robustmri.app.options import Cohort, Devices, Nodes
from robustmri.app.terminal import say
from robustmri.core.settings import help_of
from robustmri.evaluation.settings import CertifySettings


def _option(name: str) -> Any:
    said = help_of(CertifySettings, name)
    return typer.Option(help=f"{said[0].upper()}{said[1:]}.")


def certify(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint folder, or the run folder that holds it.")
    ],
    cohort: Cohort,
    out: Annotated[
        Path,
        typer.Option(
            help="Result folder that `evaluate` made of the same checkpoint; the certificate goes "
            "below it.",
            show_default=False,
        ),
    ],
    sigma: Annotated[float, _option("sigma")] = 0.25,
    samples: Annotated[int, _option("samples")] = 1000,
    alpha: Annotated[float, _option("alpha")] = 0.001,
    limit: Annotated[int, _option("limit")] = 0,
    attack_steps: Annotated[int, _option("attack_steps")] = 40,
    seed: Annotated[int, _option("seed")] = 0,
    devices: Devices = None,
    nodes: Nodes = None,
) -> None:
    """Say up to which l2 size no change alters the answers, by randomised smoothing."""
    from robustmri.report.sections.certificate import certificate_table

    with shown_progress() as progress:
        found = robustmri.certify(
            checkpoint,
            cohort,
            out,
            sigma=sigma,
            samples=samples,
            alpha=alpha,
            limit=limit,
            attack_steps=attack_steps,
            seed=seed,
            devices=devices or 1,
            nodes=nodes or 1,
            progress=progress,
        )
    print_table(certificate_table(found))
    for check in found.checks:
        if check.status != "pass":
            say(f"{check.status}: {check.name}: {check.detail}")
    say(f"wrote {out / 'certificate'}; see it with: robustmri report {out} --out report.html")
