"""What a path says: the class by its first folder, the patient by a folder or a pattern; and what
readers of such folders share.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from robustmri.core.errors import DataError, SettingsError
from robustmri.data.readers.files import find_files, name_below, read_regular
from robustmri.data.readers.source import (
    Array,
    LeftOut,
    RawSlice,
    find_contested,
    is_missing,
    read_each,
    readable_name,
)

Folders = TypeVar("Folders", bound="FoldersOfClasses")

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
        DataError: an inner folder lies in several outer ones, as classes in parts would, patients
            that are numbered anew in each class, or a patient of two classes.

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
    counts = Counter(name for names in inner.values() for name in names)
    shared = {name for name, count in counts.items() if count > 1}
    if shared:
        outer = sorted(name for name, names in inner.items() if names & shared)
        raise DataError(
            f"the same folders ({', '.join(sorted(shared)[:4])}) lie in each of "
            f"{', '.join(outer[:4])}: if they are the classes, give a folder that holds them "
            "directly; if they are patients, say so with --patient-pattern: '[^/]+/([^/]+)/[^/]+$' "
            "where the same folder is the same person, '([^/]+/[^/]+)/[^/]+$' where they are "
            "numbered anew in each class"
        )
    return bool(inner)


@dataclass(frozen=True)
class FoldersOfClasses:
    """Files in CLASS/ or in Training/CLASS/ and Testing/CLASS/, all of which become one cohort.

    The parts are not kept apart: they were split without regard to patients, and robustmri makes
    its own split. Where every file lies in CLASS/PATIENT/, the folder between is the patient; a
    pattern finds the patient in any path. Whatever else lies there is left out by name, so that no
    class is lost silently. A reader adds how it looks, and how it decodes a file.
    """

    root: Path
    files: tuple[Path, ...]
    passed_over: tuple[LeftOut, ...]
    pattern: str = ""

    synthetic = False
    options = ("patient_pattern",)

    @classmethod
    def find(
        cls: type[Folders], path: Path, is_wanted: Callable[[Path], bool], reason: str, pattern: str
    ) -> Folders | None:
        """The source, if there is at least one wanted file in a class folder; `reason` is why the
        others are left out.
        """
        parse_pattern(pattern)
        found = find_files(path)
        files = tuple(file for file in found.files if is_wanted(file))
        others = [
            LeftOut(name_below(path, file), reason) for file in found.files if not is_wanted(file)
        ]
        source = cls(path, files, (*others, *found.left_out), pattern)
        return source if any(map(source._label, files)) else None

    def decode(self, content: bytes) -> tuple[Array, tuple[str, ...]]:
        """Pixels of a file, and what was done to them."""
        raise NotImplementedError

    @cached_property
    def patient_ids(self) -> bool:
        """Whether the paths have them."""
        return bool(self.pattern) or self._between

    @cached_property
    def _between(self) -> bool:
        return not self.pattern and between_is_patient(
            folders_of(file, self.root) for file in self.files
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the paths were taken for."""
        return ("the folder between class and slice is the patient (a guess)",) * self._between

    def __len__(self) -> int:
        return len(self.files) + len(self.passed_over)

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Slices in the order of their names, then what is left out without being tried."""
        rivals = find_contested((file, str(file.with_suffix(""))) for file in self.files)
        left = {file: self._reason(file, rivals) for file in self.files}
        name, tried = partial(name_below, self.root), [one for one in self.files if not left[one]]
        yield from read_each(tried, self._read_file, name)
        yield from (LeftOut(name(file), reason) for file, reason in left.items() if reason)
        yield from self.passed_over

    def _reason(self, file: Path, rivals: dict[Path, list[Path]]) -> str:
        """Why a file is not even tried; empty if it is."""
        if not self._folder(file):
            return "lies in no class folder: the label is unknown"
        if not self._label(file):
            return f"the folder {self._folder(file)!r} names no class"
        if file in rivals:
            others = ", ".join(readable_name(rival.name) for rival in rivals[file])
            return f"{others} has the same name: a slice and its mask, or one slice twice?"
        return ""

    def _folder(self, file: Path) -> str:
        folders = folders_of(file, self.root)
        deep = len(folders) == 1 or (folders and (self.pattern or self._between))
        return folders[0] if deep else ""

    def _label(self, file: Path) -> str:
        name = self._folder(file)
        return "" if is_missing(name) else name

    def _patient(self, file: Path) -> str:
        if self._between:
            return folders_of(file, self.root)[1]
        return patient_in(name_below(self.root, file), parse_pattern(self.pattern))

    def _read_file(self, file: Path) -> RawSlice:
        patient = self._patient(file)
        if self.patient_ids and is_missing(patient):
            raise DataError("no patient: the pattern finds none in its path")
        content = read_regular(file)
        image, notes = self.decode(content)
        return RawSlice(
            case_id=name_below(self.root, file),
            label=self._label(file),
            patient_id=patient or None,
            image=image,
            mask=None,
            source=name_below(self.root, file),
            sha256=hashlib.sha256(content).hexdigest(),
            notes=notes,
        )
