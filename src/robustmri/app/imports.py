"""The commands for a classifier that comes from elsewhere or goes there: `import`, `export`, and
`models`, which lists networks and what can be imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import robustmri
from robustmri.app.console import print_table
from robustmri.app.options import Out, listed
from robustmri.app.terminal import say
from robustmri.core.errors import SettingsError
from robustmri.core.sizes import size_words


def import_(
    model: Annotated[
        str,
        typer.Argument(
            help=(
                "File of weights, ONNX, TorchScript or .pt2; Hugging Face folder or MONAI bundle; "
                "or package.module:function. See `models`."
            ),
            show_default=False,
        ),
    ],
    out: Out,
    arch: Annotated[
        str,
        typer.Option(
            help="Network of a file of weights: one of `models`, timm:NAME, torchvision:NAME."
        ),
    ] = "",
    classes: Annotated[
        str, typer.Option(help="Comma-separated names, in the order of the network's outputs.")
    ] = "",
    size: Annotated[
        str, typer.Option(help="Pixels of its images, N or HEIGHTxWIDTH; as it says if not given.")
    ] = "",
    channels: Annotated[
        int, typer.Option(help="1 (grey) or 3 (colour); 0: as it says, or as many as it takes.")
    ] = 0,
    mean: Annotated[
        str, typer.Option(help="What its images, in [0, 1], are normalised with: 1 or 3 numbers.")
    ] = "",
    std: Annotated[str, typer.Option(help="Likewise.")] = "",
    ends_in: Annotated[
        str, typer.Option(help="logits, softmax or sigmoid; seen by its outputs if not given.")
    ] = "",
    weights: Annotated[
        str, typer.Option(help="File of weights for what package.module:function builds.")
    ] = "",
    check: Annotated[
        Path | None,
        typer.Option(help="Cohort that it is tried on, and whose order of classes it gets."),
    ] = None,
    slices: Annotated[int, typer.Option(help="How many slices of it.", min=1)] = 32,
    black_box: Annotated[
        bool, typer.Option("--black-box", help="Only ask it, by onnxruntime: no gradients.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run code and pickles of its author's, once, now.")
    ] = False,
) -> None:
    """Make a checkpoint of a classifier that was trained elsewhere, and check it on a few
    slices.
    """
    from robustmri.report.tables import Table

    given: Any = ends_in  # Checked where it is used.
    made = robustmri.import_model(
        model,
        out,
        arch=arch,
        classes=listed(classes),
        size=size,
        channels=channels,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        ends_in=given,
        weights=weights,
        check=check,
        slices=slices,
        black_box=black_box,
        trust=trust,
    )
    say(made.imported)
    colour = ", in colour or grey" if made.spec.channels == 3 else ""
    say(f"{size_words(made.spec.size)}{colour}, classes {', '.join(made.spec.classes)}")
    for sentence in made.spec.guessed:
        say(f"guessed: {sentence}")
    print_table(
        Table(["Check", "", "Found"], [[one.name, one.status, one.detail] for one in made.checks]),
        words=3,
    )
    say(f"wrote {out}; go on with: robustmri evaluate {out} COHORT --out DIR")


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint folder, or the run folder that holds it.")
    ],
    out: Out,
    to: Annotated[
        str, typer.Option(help="onnx, pt2 (torch.export), huggingface or monai.")
    ] = "onnx",
    result: Annotated[
        Path | None,
        typer.Option(
            help="Result folder of its evaluation, whose figures go into the model card.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a checkpoint for other programs, its normalisation included, with a model card."""
    say(f"wrote {robustmri.export_model(checkpoint, out, to=to, result=result)}")


def list_models() -> None:
    """List the networks that can be trained here, and what can be imported from elsewhere."""
    from robustmri.models.backbones import BACKBONES
    from robustmri.models.hub import PACKAGES
    from robustmri.models.importers.routes import ROUTES
    from robustmri.report.tables import Table

    hubs = ", ".join(f"{hub}:NAME ({package})" for hub, package in PACKAGES.items())
    say(f"networks: {', '.join(BACKBONES)}; where the package is installed: {hubs}", "")
    rows = [
        [route.what, route.becomes, "--trust" if route.trust else "", route.needs]
        for route in ROUTES
    ]
    notes = ["pip install 'robustmri[import]' brings onnx, onnxruntime and onnxscript."]
    print_table(Table(["Import", "Becomes", "", "Needs"], rows, notes), words=4)


def _numbers(flag: str, text: str) -> list[float]:
    try:
        return [float(part) for part in listed(text)]
    except ValueError as error:
        raise SettingsError(f"{flag} must be one number or three, got {text!r}.") from error
