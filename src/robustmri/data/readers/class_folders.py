"""Folders named after their class, as re-uploads come: no masks, and patients only where a folder
or a pattern names them.
"""

from __future__ import annotations

from pathlib import Path

from robustmri.data.readers.decode import IMAGE_SUFFIXES, read_picture
from robustmri.data.readers.layout import FoldersOfClasses
from robustmri.data.readers.source import Array, readable_name


class ClassFolders(FoldersOfClasses):
    """Images in folders of classes."""

    place = 40
    expects = "one folder of images for each class"

    @classmethod
    def look(cls, path: Path, patient_pattern: str = "") -> ClassFolders | None:
        """The source, if there is at least one folder of images in `path`."""
        if not path.is_dir():
            return None
        reason = f"not an image by its name ({', '.join(IMAGE_SUFFIXES)})"
        return cls.find(path, is_image, reason, patient_pattern)

    @property
    def name(self) -> str:
        """Folder and kind."""
        return f"{readable_name(self.root.resolve().name)} (class folders)"

    def decode(self, content: bytes) -> tuple[Array, tuple[str, ...]]:
        """See `FoldersOfClasses`."""
        picture = read_picture(content)
        return picture.pixels, picture.notes


def is_image(file: Path) -> bool:
    """Whether a file is an image, by its name."""
    return file.suffix.lower() in IMAGE_SUFFIXES
