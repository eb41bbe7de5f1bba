"""What a path says: the class by its first folder, the patient by a folder or a pattern."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from robustmri.core.errors import DataError, SettingsError
from robustmri.data.readers.source import is_missing, readable_name

PARTS = ("train", "training", "test", "testing", "val", "valid", "validation")


def folders_of(file: Path, root: Path) -> tuple[str, ...]:
    """Names of the folders from the class on, without the part of a data set above it.

    >>> folders_of(Path("scans/Training/glioma/p7/1.png"), Path("scans"))
    ('glioma', 'p7')
    """
    folders = file.relative_to(root).parts[:-1]
    folders = folders[1:] if folders and folders[0].lower() in PARTS else folders
    # Some systems write an accent as a letter of its own: the same name in other bytes.
    return tuple(readable_name(unicodedata.normalize("NFC", name)) for name in folders)


def folder_label(file: Path, root: Path) -> str:
    """The class folder above a file, "" where it lies in none."""
    folders = folders_of(file, root)
    return "" if not folders or is_missing(folders[0]) else folders[0]


def parse_pattern(text: str) -> re.Pattern[str] | None:
    """A pattern that finds the patient in a path; None for "".

    Raises:
        SettingsError: no regular expression, or one without a group.

    >>> patient_in("glioma/P7_012.png", parse_pattern("(P[0-9]+)_"))
    'P7'
    """
    if not text:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise SettingsError(
            f"patient_pattern {text!r} is not a regular expression ({error})."
        ) from error
    if not pattern.groups:
        raise SettingsError(
            f"patient_pattern {text!r} has no group: put the part that is the patient into "
            "parentheses."
        )
    return pattern


def patient_in(path: str, pattern: re.Pattern[str] | None) -> str:
    """What the group `patient`, or the first one, found in a path; "" where nothing was."""
    found = pattern.search(path) if pattern else None
    if not pattern or not found:
        return ""
    text = found["patient" if "patient" in pattern.groupindex else 1]
    return "" if is_missing(text) else text


def between_is_patient(paths: Iterable[tuple[str, ...]]) -> bool:
    """Whether a layout is CLASS/PATIENT/image throughout.

    Args:
        paths: what `folders_of` gave of each image.

    Raises:
        DataError: the same inner folders lie in every outer one, as classes in parts would.

    >>> between_is_patient([("glioma", "p1"), ("glioma", "p2"), ("normal", "p3")])
    True
    >>> between_is_patient([("glioma",), ("normal", "old")])
    False
    """
    inner: dict[str, set[str]] = {}
    for folders in paths:
        if len(folders) != 2:
            return False
        inner.setdefault(folders[0], set()).add(folders[1])
    names = list(inner.values())
    if len(names) > 1 and all(one == names[0] for one in names):
        raise DataError(
            f"the same folders ({', '.join(sorted(names[0])[:4])}) lie in each of "
            f"{', '.join(sorted(inner)[:4])}: if they are the classes, give a folder that holds "
            "them directly; if they are patients, say so with "
            "--patient-pattern '[^/]+/([^/]+)/[^/]+$'"
        )
    return bool(inner)
