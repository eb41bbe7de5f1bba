"""Names of files in a table: by path, by name, with or without their suffix."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from robustmri.core.errors import DataError
from robustmri.data.readers.decode import IMAGE_SUFFIXES
from robustmri.data.readers.files import is_hidden, name_below

# What may stand for an image in a table with its suffix or without. A uid has dots and no suffix.
SUFFIXES = (*IMAGE_SUFFIXES, ".npy", ".dcm", ".dicom", ".ima", ".nii", ".nii.gz")


def stem_of(name: str) -> str:
    """Name without its suffix, both of them where a file is compressed.

    >>> stem_of("sub-01_T1w.nii.gz"), stem_of("a/7.png"), stem_of("1.2.840")
    ('sub-01_T1w', '7', '1.2.840')
    """
    last = PurePosixPath(name.replace("\\", "/")).name
    ends = [suffix for suffix in SUFFIXES if last.lower().endswith(suffix)]
    return last[: -max(map(len, ends))] or last if ends else last


def outnumber(root: Path, is_wanted: Callable[[Path], bool]) -> bool:
    """Whether the files of a kind below a folder are at least as many as its images; hidden ones
    count as none.
    """
    wanted = images = 0
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if not is_hidden(name)]
        for name in files:
            if is_hidden(name):
                continue
            if name.lower().endswith(IMAGE_SUFFIXES):
                images += 1
            elif is_wanted(Path(folder, name)):
                wanted += 1
    return 0 < wanted >= images


def _as_written(name: str) -> str:
    """The name with each accent in its letter: disks and tables write it in either way."""
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class FileNames:
    """Files that a table may name by their path from the root, their name, or their stem."""

    root: Path
    files: tuple[Path, ...]

    @cached_property
    def _known(self) -> tuple[dict[str, Path], dict[str, list[Path]]]:
        paths, names = {}, dict[str, list[Path]]()
        for file in self.files:
            path = _as_written(name_below(self.root, file))
            folder, divider, name = path.rpartition("/")
            paths[path] = file
            for key in {name, stem_of(name), folder + divider + stem_of(name)}:
                names.setdefault(key, []).append(file)
        return paths, names

    def find(self, cell: str) -> Path | None:
        """The file that a cell of a table means, or None.

        A path may start in a folder below the root, or above it. One that starts elsewhere (on the
        machine where the table was made) stands for its last part.

        Raises:
            DataError: it may mean several files.
        """
        paths, names = self._known
        text = _as_written(cell).replace("\\", "/").removeprefix("./")
        if text in paths:
            return paths[text]
        folder, _, name = text.rpartition("/")
        found = names.get(text) or names.get(name, [])
        if not PureWindowsPath(text).root:
            # What lies in another folder than the cell says may be another patient's.
            found = [file for file in found if self._lies_in(file, folder)]
        if len(found) > 1:
            several = ", ".join(name_below(self.root, file) for file in found[:3])
            raise DataError(f"{cell!r} means several files: {several}")
        return found[0] if found else None

    def _lies_in(self, file: Path, folder: str) -> bool:
        """Whether the whole path to a file ends with these folders, or they with what lies between
        the root and it.
        """
        inner = _as_written(name_below(self.root, file)).rpartition("/")[0]
        whole = f"{_as_written(self.root.resolve().as_posix())}/{inner}".rstrip("/")
        below = bool(inner) and f"/{folder}".endswith(f"/{inner}")
        return not folder or below or whole.endswith(f"/{folder}")
