"""Folders named after their class, as re-uploads come: no masks, and patients only where a folder
or a pattern names them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from robustmri.core.errors import DataError
from robustmri.data.readers.decode import IMAGE_SUFFIXES, read_picture
from robustmri.data.readers.files import find_files, name_below, read_regular
from robustmri.data.readers.layout import (
    between_is_patient,
    folders_of,
    parse_pattern,
    patient_in,
)
from robustmri.data.readers.source import (
    LeftOut,
    RawSlice,
    find_contested,
    is_missing,
    read_each,
    readable_name,
)


@dataclass(frozen=True)
class ClassFolders:
    """Images in CLASS/ or in Training/CLASS/ and Testing/CLASS/, all of which become one cohort.

    The parts are not kept apart: they were split without regard to patients, and robustmri makes
    its own split. Where every image lies in CLASS/PATIENT/, the folder between is the patient; a
    pattern finds the patient in any path. Whatever else lies there is left out by name, so that no
    class is lost silently.
    """

    place = 40
    expects = "one folder of images for each class"
    options = ("patient_pattern",)

    root: Path
    files: tuple[Path, ...]
    passed_over: tuple[LeftOut, ...]
    pattern: str = ""

    synthetic = False

    @classmethod
    def look(cls, path: Path, patient_pattern: str = "") -> ClassFolders | None:
        """The source, if there is at least one folder of images in `path`."""
        if not path.is_dir():
            return None
        parse_pattern(patient_pattern)
        found = find_files(path)
        images = [file for file in found.files if file.suffix.lower() in IMAGE_SUFFIXES]
        kinds = ", ".join(IMAGE_SUFFIXES)
        others = [
            LeftOut(name_below(path, file), f"not an image by its name ({kinds})")
            for file in found.files
            if file.suffix.lower() not in IMAGE_SUFFIXES
        ]
        source = cls(path, tuple(images), (*others, *found.left_out), patient_pattern)
        return source if any(map(source._label, images)) else None

    @property
    def name(self) -> str:
        """Folder and kind."""
        return f"{readable_name(self.root.resolve().name)} (class folders)"

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
        yield from read_each(
            [file for file in self.files if not left[file]], self._read_file, self._relative
        )
        yield from (
            LeftOut(self._relative(file), reason) for file, reason in left.items() if reason
        )
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

    def _relative(self, file: Path) -> str:
        return name_below(self.root, file)

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
        return patient_in(self._relative(file), parse_pattern(self.pattern))

    def _read_file(self, file: Path) -> RawSlice:
        patient = self._patient(file)
        if self.patient_ids and is_missing(patient):
            raise DataError("no patient: the pattern finds none in its path")
        content = read_regular(file)
        picture = read_picture(content)
        return RawSlice(
            case_id=self._relative(file),
            label=self._label(file),
            patient_id=patient or None,
            image=picture.grey,
            mask=None,
            source=self._relative(file),
            sha256=hashlib.sha256(content).hexdigest(),
            notes=picture.notes,
        )
