"""How the answers of a form become a command."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustmri.core.errors import SettingsError, did_you_mean
from robustmri.core.files import check_name
from robustmri.web.fields import PHANTOM, Field, Form
from robustmri.web.folder import Folder, Kind

MOST_WORDS = 200
FILES = {"onnx": ".onnx", "pt2": ".pt2"}
"""Of an export: the layouts that are one file."""
TERMS = re.compile(r"[A-Za-z0-9.,/@_:+-]+")
"""Names of attacks and radii: what a comma-separated option may hold."""
NAMES = re.compile(r"[^\W_](?:[\w.,()'+= -]*[\w.)+])?")
"""Names of classes and columns: letters of any script, and spaces between them."""
WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
TERM = r"(?:[0-9.]+/[0-9.]+(?:@[a-z]+)?|[A-Za-z0-9.@_:+%-]+)"
GIVEN = re.compile(rf"[a-z][a-z0-9_.@/-]*={TERM}(?:,{TERM})*")
"""NAME=VALUE; a stroke divides numbers, so that no value is a path."""


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
            path = _path_of(folder, field.kind, given)
            options.append(f"{field.option}={path}") if field.option else words.append(path)
            if field.option == "--out":  # It goes into what is there.
                out = Path(path).relative_to(folder.root).as_posix()
        elif field.what == "things":
            if not isinstance(given, list) or len(given) > MOST_WORDS:
                raise SettingsError(f"{field.label}: expected a list.")
            words += [_path_of(folder, field.kind, one) for one in given]
        elif field.what == "out":
            out = _new_name(folder, form, given, _suffix(form, answers))
            options.append(f"{field.option}={folder.root / out}")
        elif field.what == "switch":
            options.append(field.option)
        elif field.what == "several":
            options += [f"{field.option}={one}" for one in value_of(field, given).split()]
        else:
            options.append(f"{field.option}={value_of(field, given)}")
    return [sys.executable, "-m", "robustmri.app.cli", form.verb, *words, *options], out


def _path_of(folder: Folder, kind: Kind, id: object) -> str:
    if kind == "source" and id == PHANTOM:
        return PHANTOM
    if not isinstance(id, str):
        raise SettingsError(f"expected the id of a {kind}, got {type(id).__name__}.")
    return str(folder.find(kind, id).path)


def _suffix(form: Form, answers: Mapping[str, Any]) -> str:
    """What the name of a file ends in; empty for a folder."""
    return form.suffix or FILES.get(str(answers.get("to")), "")


def _new_name(folder: Folder, form: Form, name: object, suffix: str) -> str:
    made = check_name(str(name).strip(), f"what {form.verb} makes")
    if not made.endswith(suffix):
        made += suffix
    path: Path = folder.root / made
    if len(made) > 100:
        raise SettingsError("a name may have at most 100 letters.")
    if path.exists() or path.is_symlink():
        raise SettingsError(f"{made} is in the folder already. Choose another name.")
    return made


def value_of(field: Field, given: object) -> str:
    """An answer as the text that the command gets.

    Raises:
        SettingsError: it is none.
    """
    text = str(given).strip()
    if field.what == "number" and not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise SettingsError(f"{field.label}: expected a number, got {text[:40]!r}.")
    if field.what == "choice" and text not in field.choices:
        raise SettingsError(f"{field.label}: {did_you_mean(text[:40], field.choices)}")
    if field.what == "text" and not (len(text) <= 300 and TERMS.fullmatch(text)):
        raise SettingsError(
            f"{field.label}: expected names or numbers, divided by commas, got {text[:40]!r}."
        )
    if field.what == "names" and not (len(text) <= 300 and NAMES.fullmatch(text)):
        raise SettingsError(f"{field.label}: expected names, got {text[:40]!r}.")
    if field.what == "word" and not (len(text) <= 60 and WORD.fullmatch(text)):
        raise SettingsError(f"{field.label}: expected one name, got {text[:40]!r}.")
    if field.what == "line" and not (len(text) <= 300 and text.isprintable()):
        raise SettingsError(f"{field.label}: expected a line of text, got {text[:40]!r}.")
    if field.what == "several" and not _are_given(text):
        raise SettingsError(
            f"{field.label}: expected NAME=VALUE, divided by spaces, got {text[:40]!r}. Files are "
            "not named here, and weights where the form asks for them."
        )
    return text


def _are_given(text: str) -> bool:
    words = text.split()
    known = all(GIVEN.fullmatch(word) and "weights=" not in word for word in words)
    return len(text) <= 300 and len(words) <= 40 and known
