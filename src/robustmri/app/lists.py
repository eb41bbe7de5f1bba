"""The commands that say what there is: `recipes`, `attacks` and `checks`."""

from __future__ import annotations

from typing import Annotated

import typer

from robustmri.app.console import print_table
from robustmri.app.terminal import say


def recipes() -> None:
    """List the recipes that come with the package."""
    from robustmri.recipes import list_recipes, load_recipe

    for name in list_recipes():
        say(f"{name:12} {load_recipe(name).about}")


def list_attacks(
    name: Annotated[str, typer.Argument(help="One of them, for its meaning and settings.")] = "",
) -> None:
    """List the attacks with their norms and papers; or say all there is to know of one."""
    from robustmri.app.attack_table import describe_attack, tabulate_attacks

    if name:
        say(*describe_attack(name).splitlines())
    else:
        print_table(tabulate_attacks(), words=6)


def list_checks() -> None:
    """List the checks that an evaluation runs on itself."""
    from robustmri.app.check_table import tabulate_checks

    print_table(tabulate_checks(), words=3)
