"""Folders named after their class, as re-uploads come: no patient ids, no masks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustmri.data.readers.decode import IMAGE_SUFFIXES, decode_image
from robustmri.data.readers.source import LeftOut, RawSlice, natural_order, read_each

PARTS = ("train", "training", "test", "testing", "val", "valid", "validation")


@dataclass(frozen=True)
class ClassFolders:
    """Images in CLASS/ or in Training/CLASS/ and Testing/CLASS/, all of which become one cohort.

    The parts are not kept apart: they were split without regard to patients, and robustmri makes
    its own split.
    """

    place = 40
    expects = "one folder of images for each class"

    root: Path
    files: tuple[Path, ...]

    synthetic = False
    patient_ids = False

    @classmethod
    def look(cls, path: Path) -> ClassFolders | None:
        """The source, if there is at least one folder of images in `path`."""
        if not path.is_dir():
            return None
        images = (
            file
            for file in path.rglob("*")
            if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."
        )
        files = sorted(images, key=lambda file: natural_order(file.relative_to(path).as_posix()))
        source = cls(path, tuple(files))
        return source if any(source._label(file) for file in files) else None

    @property
    def name(self) -> str:
        """Folder and kind."""
        return f"{self.root.resolve().name} (class folders)"

    def __len__(self) -> int:
        return len(self.files)

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Slices in the order of their names; files that lie in no class folder are left out."""
        yield from read_each(
            [file for file in self.files if self._label(file)], self._read_file, self._relative
        )
        for file in self.files:
            if not self._label(file):
                yield LeftOut(self._relative(file), "lies in no class folder: the label is unknown")

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def _label(self, file: Path) -> str:
        folders = file.relative_to(self.root).parts[:-1]
        folders = folders[1:] if folders and folders[0].lower() in PARTS else folders
        return folders[0] if len(folders) == 1 else ""

    def _read_file(self, file: Path) -> RawSlice:
        content = file.read_bytes()
        return RawSlice(
            case_id=self._relative(file),
            label=self._label(file),
            patient_id=None,
            image=decode_image(content),
            mask=None,
            source=self._relative(file),
            sha256=hashlib.sha256(content).hexdigest(),
        )
