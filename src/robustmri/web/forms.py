"""What can be asked for in the page: a form a verb, and how its answers become a command."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

from robustmri.core.errors import SettingsError, did_you_mean
from robustmri.core.files import check_name
from robustmri.core.settings import choices_of, help_of
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.recipes import PrepareSettings, list_recipes, load_recipe
from robustmri.training.settings import TrainSettings
from robustmri.web.folder import Folder, Kind

What = Literal["thing", "things", "text", "number", "choice", "switch", "out"]
PHANTOM = "phantom"
MOST_WORDS = 200
TERMS = re.compile(r"[A-Za-z0-9.,/@_:+-]+")
"""Names of attacks and radii: what a comma-separated option may hold."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A question of a form.

    Attributes:
        name: of the answer.
        option: the command's option; empty where the answer is a word of its own.
        kind: for a thing, what it must be.
        choices: value to how it is called.
    """

    name: str
    label: str
    what: What
    option: str = ""
    kind: Kind = "run"
    choices: dict[str, str] = {}
    default: str = ""
    help: str = ""
    optional: bool = True


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The questions of a verb, its words of their own first."""

    verb: str
    title: str
    about: str
    fields: list[Field]


def _setting(kind: type[msgspec.Struct], name: str, label: str, option: str = "") -> Field:
    hint = msgspec.inspect.type_info(kind)
    choices = choices_of(kind, name)
    whole = next(field for field in hint.fields if field.name == name)  # type: ignore[attr-defined]
    number = "IntType" in repr(whole.type) or "FloatType" in repr(whole.type)
    return Field(
        name=name,
        label=label,
        what="choice" if choices else "number" if number else "text",
        option=option or f"--{name.replace('_', '-')}",
        choices={"": "as the recipe says", **{str(one): str(one) for one in choices}}
        if choices
        else {},
        help=f"{help_of(kind, name)[:1].upper()}{help_of(kind, name)[1:]}.",
    )


def _out(default: str, made: str) -> Field:
    said = f"Name of the {made}, which must be new in this folder."
    return Field(
        name="out", label="Call it", what="out", option="--out", default=default, help=said,
        optional=False,
    )  # fmt: skip


def _thing(kind: Kind, label: str, name: str = "") -> Field:
    return Field(name=name or kind, label=label, what="thing", kind=kind, optional=False)


@cache
def make_forms() -> dict[str, Form]:
    """By verb, in the order of the work."""
    recipe = Field(
        name="recipe",
        label="Recipe",
        what="choice",
        option="--recipe",
        choices={name: f"{name}: {load_recipe(name).about}" for name in list_recipes()},
        default="standard",
        help="Named settings; what is left empty below is as the recipe says.",
    )
    train = [_setting(TrainSettings, "epochs", "Epochs"), _setting(TrainSettings, "seed", "Seed")]
    minutes = Field(
        name="minutes",
        label="Minutes",
        what="number",
        option="--minutes",
        help="Time for it: fewer epochs where they would take longer. Empty: any.",
    )
    size = Field(
        name="size", label="Pixels", what="number", option="--size", default="96",
        help=f"{help_of(PrepareSettings, 'size').capitalize()}.",
    )  # fmt: skip
    forms = [
        Form(
            verb="prepare",
            title="Prepare",
            about="Read scans into a cohort, and split it into train, validation and test.",
            fields=[_thing("source", "Scans"), _out("cohort", "cohort"), size],
        ),
        Form(
            verb="train",
            title="Train",
            about="Train a classifier on clean slices.",
            fields=[
                _thing("cohort", "Cohort"),
                _out("standard", "run"),
                recipe,
                _setting(TrainSettings, "backbone", "Network", "--model"),
                *train,
                minutes,
            ],
        ),
        Form(
            verb="harden",
            title="Harden",
            about="Repair a classifier by adversarial training.",
            fields=[
                _thing("run", "Run to repair"),
                _thing("cohort", "Cohort"),
                _out("hardened", "run"),
                recipe,
                _setting(TrainSettings, "eps", "Radius eps"),
                _setting(TrainSettings, "objective", "Objective"),
                _setting(TrainSettings, "clean_cost", "Clean cost"),
                *train,
                minutes,
            ],
        ),
        Form(
            verb="evaluate",
            title="Evaluate",
            about="Attack a classifier on the test slices, and write down what each one survives.",
            fields=[
                _thing("run", "Run to attack"),
                _thing("cohort", "Cohort"),
                _out("result", "result"),
                recipe,
                _setting(EvaluateSettings, "attacks", "Attacks"),
                _setting(EvaluateSettings, "eps", "Radii eps"),
                _setting(EvaluateSettings, "curve", "Radii of the curve"),
                _setting(EvaluateSettings, "norm", "Norm"),
                _setting(EvaluateSettings, "region", "Region"),
                _setting(EvaluateSettings, "limit", "Slices at most"),
                _setting(EvaluateSettings, "seed", "Seed"),
            ],
        ),
        Form(
            verb="report",
            title="Report",
            about="Write one page about a result, or about before and after, to print or to send.",
            fields=[
                Field(
                    name="results",
                    label="Results, the one before repair first",
                    what="things",
                    kind="result",
                    optional=False,
                ),
                _out("report.html", "page"),
                Field(
                    name="without",
                    label="Without images and ids",
                    what="switch",
                    option="--no-images",
                    help="Then the page may leave the hospital.",
                ),
            ],
        ),
    ]
    return {form.verb: form for form in forms}


def make_command(folder: Folder, form: Form, answers: Mapping[str, Any]) -> tuple[list[str], str]:
    """The command that the answers ask for, and the name of what it makes.

    Things are named by their ids and become paths in the folder; everything else becomes
    `--option=value`, so that no answer can pass for an option.

    Raises:
        SettingsError: an answer that is missing, unknown or of another form.
        NotThereError: an id of nothing.
    """
    if unknown := set(answers) - {field.name for field in form.fields}:
        known = did_you_mean(min(unknown), [field.name for field in form.fields])
        raise SettingsError(f"{form.verb} has no setting {min(unknown)!r}. {known}")
    words, options, out = [], [], ""
    for field in form.fields:
        given = answers.get(field.name, "")
        if given in ("", None, [], False):
            if not field.optional:
                raise SettingsError(f"{form.verb} needs an answer to: {field.label}.")
            continue
        if field.what == "thing":
            words.append(_path_of(folder, field.kind, given))
        elif field.what == "things":
            if not isinstance(given, list) or len(given) > MOST_WORDS:
                raise SettingsError(f"{field.label}: expected a list of results.")
            words += [_path_of(folder, field.kind, one) for one in given]
        elif field.what == "out":
            out = _new_name(folder, form, given)
            options.append(f"{field.option}={folder.root / out}")
        elif field.what == "switch":
            options.append(field.option)
        else:
            options.append(f"{field.option}={_value(field, given)}")
    return [sys.executable, "-m", "robustmri.app.cli", form.verb, *words, *options], out


def _path_of(folder: Folder, kind: Kind, id: object) -> str:
    if kind == "source" and id == PHANTOM:
        return PHANTOM
    if not isinstance(id, str):
        raise SettingsError(f"expected the id of a {kind}, got {type(id).__name__}.")
    return str(folder.find(kind, id).path)


def _new_name(folder: Folder, form: Form, name: object) -> str:
    made = check_name(str(name).strip(), f"what {form.verb} makes")
    if form.verb == "report" and not made.endswith(".html"):
        made += ".html"
    path: Path = folder.root / made
    if len(made) > 100:
        raise SettingsError("a name may have at most 100 letters.")
    if path.exists() or path.is_symlink():
        raise SettingsError(f"{made} is in the folder already. Choose another name.")
    return made


def _value(field: Field, given: object) -> str:
    text = str(given).strip()
    if field.what == "number" and not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise SettingsError(f"{field.label}: expected a number, got {text[:40]!r}.")
    if field.what == "choice" and text not in field.choices:
        raise SettingsError(f"{field.label}: {did_you_mean(text[:40], field.choices)}")
    if field.what == "text" and not (len(text) <= 300 and TERMS.fullmatch(text)):
        raise SettingsError(
            f"{field.label}: expected names or numbers, divided by commas, got {text[:40]!r}."
        )
    return text
