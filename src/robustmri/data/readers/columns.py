"""Which column of a table is what: named with `--columns`, or guessed from common names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from robustmri.core.errors import DataError, SettingsError, did_you_mean

# The first name of a role is robustmri's own: where it stands in a header, nothing is guessed.
ROLES: dict[str, tuple[str, ...]] = {
    "image": (
        *("slice_id", "image", "filename", "file", "path", "filepath", "image_path", "image_file"),
        *("image_name", "image_id", "img", "slice", "scan", "volume", "sop_instance_uid"),
        *("series_instance_uid", "id"),
    ),
    "label": ("label", "diagnosis", "class", "dx", "category", "target", "tumor_type", "finding"),
    "patient": (
        *("patient_id", "patient", "subject", "subject_id", "participant_id", "participant"),
        *("pid", "person_id", "mrn"),
    ),
    "mask": ("mask", "mask_path", "mask_file", "segmentation", "seg", "lesion_mask"),
    "plane": ("plane", "view", "orientation"),
    "fold": ("fold",),
    "outline": ("tumor_border_xy", "outline"),
}
SURE = ("label", "patient")
"""Roles that are refused rather than guessed where two columns could be meant."""


def parse_columns(text: str) -> dict[str, str]:
    """Column of each role, as a person wrote it; "" for a role that no column has.

    Raises:
        SettingsError: not ROLE=COLUMN, or a role that does not exist.

    >>> parse_columns("image=filename, label=(0010,4000), patient=")
    {'image': 'filename', 'label': '(0010,4000)', 'patient': ''}
    """
    named: dict[str, str] = {}
    for part in re.split(r",(?![^(]*\))", text):
        if not part.strip():
            continue
        role, equals, column = (piece.strip() for piece in part.partition("="))
        if role not in ROLES:
            raise SettingsError(
                f"columns: {part.strip()!r} names no role. {did_you_mean(role, ROLES)}"
            )
        if not equals or role in named:
            raise SettingsError(
                f"columns: expected each role once as ROLE=COLUMN, got {part.strip()!r}."
            )
        named[role] = column
    return named


def refuse_columns(named: Mapping[str, str], roles: Iterable[str], what: str) -> dict[str, str]:
    """The named columns, and none for the roles that a reader takes from no table.

    Raises:
        SettingsError: one was named for such a role.

    >>> refuse_columns({"label": "dx"}, ["mask"], "DICOM files")
    {'label': 'dx', 'mask': ''}
    """
    for role in roles:
        if named.get(role):
            raise SettingsError(
                f"columns: for {what} the {role} is not read from a table, got "
                f"{role}={named[role]}. Leave it out."
            )
    return {**named, **dict.fromkeys(roles, "")}


def find_columns(header: Sequence[str], named: Mapping[str, str], where: str) -> dict[str, str]:
    """Column of each role that a table has.

    Args:
        header: its columns.
        named: what `parse_columns` gave; these are not guessed.
        where: name of the table, for the message.

    Raises:
        DataError: a named column that is not there, or two that could be the label or the patient.

    >>> find_columns(["FileName", "dx", "Subject ID", "age"], {}, "t.csv")
    {'image': 'FileName', 'label': 'dx', 'patient': 'Subject ID'}
    """
    found: dict[str, str] = {}
    for role, names in ROLES.items():
        if role in named:
            if named[role] and named[role] not in header:
                raise DataError(
                    f"{where} has no column {named[role]!r} for {role}. "
                    f"{did_you_mean(named[role], header)}"
                )
            if named[role]:
                found[role] = named[role]
            continue
        plain = {_plain(column): column for column in header if column not in named.values()}
        fitting = [plain[_plain(name)] for name in names if _plain(name) in plain]
        if len(fitting) > 1 and role in SURE and names[0] not in fitting:
            raise DataError(
                f"{where}: {' and '.join(map(repr, fitting))} could each be the {role}. Say which: "
                f"--columns {role}={fitting[0]}"
            )
        if fitting:
            found[role] = fitting[0]
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def describe_columns(header: Iterable[str], found: Mapping[str, str], named: Iterable[str]) -> str:
    """Which column was taken for what, what of it was guessed, and what was not used.

    >>> describe_columns(["file", "dx", "age"], {"image": "file", "label": "dx"}, ["label"])
    "image is 'file' (guessed), label is 'dx'; not used: age"
    """
    own = {role for role, names in ROLES.items() if found.get(role) == names[0]}
    said = ", ".join(
        f"{role} is {column!r}" + ("" if role in own or role in named else " (guessed)")
        for role, column in found.items()
    )
    rest = [column for column in header if column and column not in found.values()]
    return said + (f"; not used: {', '.join(rest)}" if rest else "")


def written_twice(texts: Iterable[str]) -> list[tuple[str, ...]]:
    """Texts that may be one number, or one name, written in several ways.

    >>> written_twice(["1", "1.0", "001", "2", "P3", "p3", "P 3", "P33"])
    [('001', '1', '1.0'), ('P 3', 'P3', 'p3')]
    """
    same: dict[int | str, set[str]] = {}
    for text in texts:
        number = re.fullmatch(r"(\d{1,30})(?:\.0+)?", text, re.ASCII)
        key = int(number[1]) if number else "".join(text.casefold().split())
        same.setdefault(key, set()).add(text)
    return [tuple(sorted(ways)) for ways in same.values() if len(ways) > 1]
