"""The command for a single slice: `case`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import robustmri
from robustmri.app.options import Out
from robustmri.app.terminal import say


def case(
    image: Annotated[
        Path, typer.Argument(help="File of one slice: an image, or DICOM.", show_default=False)
    ],
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint folder, or the run folder that holds it.", show_default=False
        ),
    ],
    out: Out,
    norm: Annotated[str, typer.Option(help="linf, l2 or l1.")] = "linf",
    intensity: Annotated[
        str,
        typer.Option(
            help="minmax, percentile or full, as the classifier's cohort was prepared; auto: "
            "minmax for grey, full for colour."
        ),
    ] = "auto",
    pad: Annotated[
        bool, typer.Option("--pad/--stretch", help="Likewise, for another aspect ratio.")
    ] = True,
    window: Annotated[
        str, typer.Option(help="Likewise, for DICOM: file clips to the window that it carries.")
    ] = "",
    mask: Annotated[
        Path | None, typer.Option(help="Image of the same size, not black where the lesion is.")
    ] = None,
    result: Annotated[
        Path | None,
        typer.Option(
            help="Result of the same classifier, to say how many slices are more fragile."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the attacks.", min=0)] = 0,
) -> None:
    """Say how little it takes to change the answer about one slice, and to what."""
    facts = robustmri.case(
        image,
        checkpoint,
        out,
        norm=norm,
        intensity=intensity,
        pad=pad,
        window=window,
        mask=mask,
        result=result,
        seed=seed,
    )
    say(f"{image.name}: {facts.answer} ({facts.probabilities[facts.answer]:.1%})")
    if facts.smallest_eps is None:
        say(f"no change was found that alters the answer ({', '.join(facts.attacks)})")
    else:
        grey = f", {facts.grey_levels:.2f} of 255 grey levels" if facts.grey_levels else ""
        say(
            f"a change of {facts.smallest_eps:.4g} ({facts.norm}{grey}) makes it "
            f"{facts.nearest} ({facts.nearest_probabilities[facts.nearest]:.1%})"
        )
    if facts.share_in_lesion is not None:
        say(
            f"{facts.share_in_lesion:.0%} of the change's energy lies in the lesion, which has "
            f"{facts.lesion_share:.1%} of the pixels"
        )
    if facts.more_fragile is not None:
        say(f"{facts.more_fragile:.0%} of {facts.compared_with} slices take a smaller change")
    say(f"wrote {out}")
