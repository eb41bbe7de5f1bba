"""The commands that call others one after another: `demo`, `reproduce`, `cross-validate`,
`ablate` and `contrast`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import robustmri
from robustmri.app.console import print_table, shown_progress
from robustmri.app.options import Cohort, Images, Minutes, On, Out, RecipeName, Set, listed
from robustmri.app.terminal import say


def demo(out: Out, set_: Set = None) -> None:
    """The whole story on synthetic slices: train, attack, harden, attack again, report. Minutes."""
    with shown_progress() as progress:
        table = robustmri.demo(out, overrides=set_ or [], progress=progress)
    print_table(table)
    say(f"wrote {out / 'report.html'}; look at every case with: robustmri serve {out}")


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
                "offline (the same from scratch), auto (the largest of small, cpu and offline for "
                "--minutes) or a .toml file."
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
    say(f"wrote {out / 'report.html'} and {out / 'table.md'}")


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
    minutes: Minutes = 0.0,
    set_: Set = None,
    on: On = "",
) -> None:
    """Train, attack, harden and attack again on five patient-wise folds, and pool their test
    patients.
    """
    from robustmri.recipes import load_recipe

    settings = load_recipe(recipe, set_ or [])
    if on:
        from robustmri.app.cluster import submit_parts
        from robustmri.data.split import FOLDS

        parts = listed(only) or [str(fold + 1) for fold in range(FOLDS)]
        # Within a time, the others are run as the first was fitted.
        submit_parts(on, out, parts, first="1" if minutes else "")
        return
    given: dict[str, Any] = {"folds": listed(only)} if only else {}
    with shown_progress() as progress:
        table = robustmri.cross_validate(
            source,
            out,
            settings,
            images=images,
            minutes=minutes,
            progress=progress,
            **given,
        )
    _print_study(table, out, "folds", f"and {out / 'report.html'}")


def ablate(
    cohort: Cohort,
    out: Out,
    recipe: RecipeName = "ablation",
    only: Annotated[str, typer.Option(help="Comma-separated variants to run now.")] = "",
    minutes: Minutes = 0.0,
    set_: Set = None,
    on: On = "",
) -> None:
    """Harden by each variant of a recipe, and compare them on the validation patients."""
    from robustmri.recipes import load_recipe

    settings = load_recipe(recipe, set_ or [])
    if on:
        from robustmri.app.cluster import submit_parts

        variants = [*settings.variants]
        # The others share the standard run that the first one makes.
        submit_parts(on, out, listed(only) or variants, first=variants[0] if variants else "")
        return
    with shown_progress() as progress:
        table = robustmri.ablate(
            cohort, out, settings, only=listed(only), minutes=minutes, progress=progress
        )
    _print_study(table, out, "variants")


def contrast(
    cohort: Cohort,
    other: Annotated[
        Path, typer.Argument(help="A second cohort, for instance of photographs (CIFAR-10).")
    ],
    out: Out,
    recipe: RecipeName = "contrast",
    set_: Set = None,
) -> None:
    """Train the same network on two cohorts, and compare how little fools it."""
    from robustmri.recipes import load_recipe

    settings = load_recipe(recipe, set_ or [])
    with shown_progress() as progress:
        table = robustmri.contrast(cohort, other, out, settings, progress=progress)
    _print_study(table, out, "cohorts")


def _print_study(table: Any, out: Path, parts: str, also: str = "") -> None:
    if table is None:
        say(f"{out}: done so far; the table comes with the last of the {parts}.")
        return
    print_table(table)
    say(f"wrote {out / 'table.md'} {also}".rstrip())
