"""A single scan from a file, as a reader of cohorts would have read it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from robustmri.core.errors import DataError, SettingsError
from robustmri.data.readers.decode import not_black, read_picture
from robustmri.data.readers.dicom import is_dicom, open_dataset, read_head
from robustmri.data.readers.dicom_pixels import read_frame
from robustmri.data.readers.files import read_regular
from robustmri.data.readers.source import Array, leave_out


@dataclass(frozen=True)
class Scan:
    """One slice.

    Attributes:
        image: of the file's own depth, shape (h, w), or (h, w, 3) in colour.
        content: bytes of the file.
        dicom: whether it is a DICOM file.
        notes: what was done to it.
        lossy: whether it is an image whose compression changes values.
    """

    image: Array
    content: bytes
    dicom: bool
    notes: tuple[str, ...]
    lossy: bool = False

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.content).hexdigest()


def read_scan(path: Path | str, *, window: str = "") -> Scan:
    """Read an image file, or the first frame of a DICOM file.

    Args:
        path: the file.
        window: "file" clips a DICOM file's grey values to its own window.

    Raises:
        DataError: not such a file, or a damaged one.
        SettingsError: no such window, or one for an image file.
    """
    path = Path(path)
    if window not in ("", "file"):
        raise SettingsError(f"window cannot be {window!r}: expected 'file', or nothing.")
    if window and path.exists() and not is_dicom(path):
        raise SettingsError(f"{path} is no DICOM file, and carries no window. Leave --window out.")
    if not path.exists():
        raise DataError(f"{path} does not exist. Name the file of one slice.")
    try:
        content = read_regular(path)
        if is_dicom(path):
            read_head(path, {})  # Which refuses what is none.
            image, notes = read_frame(open_dataset(content), 0, window == "file")
            return Scan(image, content, dicom=True, notes=notes)
        picture = read_picture(content)
    except Exception as error:  # A damaged file can make a decoder raise anything.
        reason = leave_out(error, str(path)).reason
        raise DataError(f"{path}: {reason}. Expected an image or a DICOM file.") from error
    return Scan(picture.pixels, content, dicom=False, notes=picture.notes, lossy=picture.lossy)


def read_mask(path: Path | str, shape: tuple[int, ...]) -> Array:
    """The outline of a lesion from an image file, as bool.

    Args:
        path: image in which the lesion is not black; of a JPEG, brighter than half.
        shape: of the scan, which it must have.

    Raises:
        DataError: of another size, or all black.
    """
    scan = read_scan(path)
    image = scan.image
    if image.shape[:2] != shape[:2]:
        raise DataError(
            f"{path} has {image.shape[:2]} pixels, the scan {shape[:2]}. Give its own mask."
        )
    mask = not_black(image, scan.lossy)
    if mask is None:
        raise DataError(f"{path} is black everywhere: it outlines nothing.")
    return mask
