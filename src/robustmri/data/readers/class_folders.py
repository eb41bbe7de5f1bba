"""Folders named after their class, as re-uploads come: no patient ids, no masks."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustmri.data.readers.decode import IMAGE_SUFFIXES, read_picture
from robustmri.data.readers.files import find_files, name_below, read_regular
from robustmri.data.readers.source import (
    LeftOut,
    RawSlice,
    find_contested,
    is_missing,
    read_each,
    readable_name,
)

PARTS = ("train", "training", "test", "testing", "val", "valid", "validation")


@dataclass(frozen=True)
class ClassFolders:
    """Images in CLASS/ or in Training/CLASS/ and Testing/CLASS/, all of which become one cohort.

    The parts are not kept apart: they were split without regard to patients, and robustmri makes
    its own split. Whatever else lies there is left out by name, so that no class is lost silently.
    """

    place = 40
    expects = "one folder of images for each class"

    root: Path
    files: tuple[Path, ...]
    passed_over: tuple[LeftOut, ...]

    synthetic = False
    patient_ids = False

    @classmethod
    def look(cls, path: Path) -> ClassFolders | None:
        """The source, if there is at least one folder of images in `path`."""
        if not path.is_dir():
            return None
        found = find_files(path)
        images = [file for file in found.files if file.suffix.lower() in IMAGE_SUFFIXES]
        kinds = ", ".join(IMAGE_SUFFIXES)
        others = [
            LeftOut(name_below(path, file), f"not an image by its name ({kinds})")
            for file in found.files
            if file.suffix.lower() not in IMAGE_SUFFIXES
        ]
        source = cls(path, tuple(images), (*others, *found.left_out))
        return source if any(map(source._label, images)) else None

    @property
    def name(self) -> str:
        """Folder and kind."""
        return f"{readable_name(self.root.resolve().name)} (class folders)"

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
        folders = file.relative_to(self.root).parts[:-1]
        folders = folders[1:] if folders and folders[0].lower() in PARTS else folders
        return folders[0] if len(folders) == 1 else ""

    def _label(self, file: Path) -> str:
        # Some systems write an accent as a letter of its own: the same name in other bytes.
        name = readable_name(unicodedata.normalize("NFC", self._folder(file)))
        return "" if is_missing(name) else name

    def _read_file(self, file: Path) -> RawSlice:
        content = read_regular(file)
        picture = read_picture(content)
        return RawSlice(
            case_id=self._relative(file),
            label=self._label(file),
            patient_id=None,
            image=picture.grey,
            mask=None,
            source=self._relative(file),
            sha256=hashlib.sha256(content).hexdigest(),
            notes=picture.notes,
        )
