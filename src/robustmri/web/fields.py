"""What a form of the page asks."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import msgspec

from robustmri.core.settings import bounds_of, choices_of, help_of
from robustmri.recipes import PrepareSettings, Recipe, list_recipes, load_recipe
from robustmri.training.settings import TrainSettings
from robustmri.web.folder import Kind

What = Literal[
    "thing",
    "things",
    "word",
    "text",
    "names",
    "line",
    "several",
    "number",
    "choice",
    "switch",
    "out",
]
"""`word` is one name, `text` names and numbers divided by commas, `names` those of classes or
columns, `line` any text in a line, `several` NAME=VALUE divided by spaces: an option for each.
"""
PHANTOM = "phantom"
"""The source of scans that needs no file."""
LONGEST_BOUNDS = 32
MODULES = re.compile(r" \(see `robustmri[^)]*\)|, a key of `robustmri[^`]*`")
"""Of what a setting says of itself: where else to look is of no use to who reads a page."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A question of a form.

    Attributes:
        name: of the answer.
        option: the command's option; empty where the answer is a word of its own.
        kind: for a thing, what it must be.
        upload: whether such a thing can be given to the page.
        choices: value to how it is called.
        empty: what it means to leave a text or number empty.
        setting: whether it belongs to those that are usually left as they are.
    """

    name: str
    label: str
    what: What
    option: str = ""
    kind: Kind = "run"
    upload: bool = False
    choices: dict[str, str] = {}
    default: str = ""
    empty: str = ""
    help: str = ""
    optional: bool = True
    setting: bool = True


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The questions of a verb, its words of their own first.

    Attributes:
        suffix: what the name of a file that it makes ends in; empty where it makes a folder.
        estimates: whether the verb can say how long it would take.
        guarded: whether it opens files from elsewhere, and is limited in memory and time.
    """

    verb: str
    title: str
    about: str
    fields: list[Field]
    suffix: str = ""
    estimates: bool = False
    guarded: bool = False


def setting_field(
    kind: type[msgspec.Struct], name: str, label: str, option: str = "", default: str = ""
) -> Field:
    """The question about a setting; its help, bounds and choices stand at the setting."""
    about = msgspec.inspect.type_info(kind)
    field = next(one for one in about.fields if one.name == name)  # type: ignore[attr-defined]
    types = repr(field.type)
    number = ("IntType" in types or "FloatType" in types) and "StrType" not in types
    choices, bounds = choices_of(kind, name), bounds_of(kind, name)
    if len(bounds) > LONGEST_BOUNDS:  # All that 64 bits hold, say.
        bounds = ""
    said = MODULES.sub("", help_of(kind, name)).replace("`", "")
    said += f"; {bounds}" if number and bounds else ""
    unset = "as usual" if kind is PrepareSettings else "as the recipe says"
    return Field(
        name=name,
        label=label,
        what="choice" if choices else "number" if number else "text",
        option=option or f"--{name.replace('_', '-')}",
        choices={"": unset, **{str(one): str(one) for one in choices}} if choices else {},
        default=default,
        empty=unset,
        help=_sentence(said),
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def out_field(default: str, made: str, option: str = "--out") -> Field:
    """What the thing that is made will be called."""
    said = f"Name of the {made}, which must be new in this folder."
    return Field(
        name="out",
        label="Call it",
        what="out",
        option=option,
        default=default,
        help=said,
        optional=False,
        setting=False,
    )


def thing_field(kind: Kind, label: str, **more: Any) -> Field:
    """Something of the folder."""
    given = {"name": kind, "optional": False, "setting": False} | more
    return Field(label=label, what="thing", kind=kind, **given)


def choice_field(name: str, label: str, choices: dict[str, str], help: str = "") -> Field:
    """The question which of some; the first one unless told otherwise."""
    return Field(
        name=name,
        label=label,
        what="choice",
        option=f"--{name.replace('_', '-')}",
        choices=choices,
        default=next(iter(choices)),
        help=help,
    )


@cache
def named_recipes() -> dict[str, Recipe]:
    """Every recipe of the package, by name."""
    return {name: load_recipe(name) for name in list_recipes()}


def recipe_field(default: str = "standard", fits: Callable[[Recipe], bool] | None = None) -> Field:
    """The question which named settings, of those that fit."""
    found = {name: one for name, one in named_recipes().items() if not fits or fits(one)}
    about = {name: f"{name}: {one.about}" for name, one in found.items()}
    said = "Named settings; what is left empty below is as the recipe says."
    field = choice_field("recipe", "Recipe", about, said)
    return msgspec.structs.replace(field, default=default, setting=False)


def other_settings(stages: str) -> Field:
    """The question about any setting of the recipe."""
    said = f"Any setting of the recipe as STAGE.NAME=VALUE, divided by spaces; stage: {stages}."
    return Field(name="other", label="Other settings", what="several", option="--set", help=said)


MACHINES = [
    setting_field(TrainSettings, "devices", "Processes or GPUs"),
    setting_field(TrainSettings, "nodes", "Machines"),
]
WITHOUT_IMAGES = Field(
    name="without",
    label="Without images and ids",
    what="switch",
    option="--no-images",
    help="Then the page may leave the hospital.",
)
