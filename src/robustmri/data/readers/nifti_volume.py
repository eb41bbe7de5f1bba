"""One NIfTI file as slices that are looked at: unpacked within limits, turned to a known side."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.limits import check_bytes
from robustmri.data.readers.files import read_regular
from robustmri.data.readers.source import Array

PLANES = ("sagittal", "coronal", "axial")
NOT_PLACED = (
    "does not say how it lies in space (its sform and qform codes are 0), so its slices may be "
    "turned or mirrored"
)
COARSE = 1.5
"""A voxel so many times longer than wide has the acquired slices across its length."""


@dataclass(frozen=True)
class Volume:
    """A volume whose axes run to the right, to the front and to the top (RAS).

    Attributes:
        voxels: shape (x, y, z).
        affine: voxel to mm.
        spacing_mm: of a voxel along each axis.
        sha256: of the file.
        notes: what of the file was not read.
        placed: whether the file says how it lies in space; else its sides are not known.
    """

    voxels: Array
    affine: Array
    spacing_mm: tuple[float, float, float]
    sha256: str
    notes: tuple[str, ...] = ()
    placed: bool = True

    @property
    def axis(self) -> int:
        """The axis across the slices: the one of the coarsest voxels, or else from feet to head."""
        longest = int(np.argmax(self.spacing_mm))
        others = [size for axis, size in enumerate(self.spacing_mm) if axis != longest]
        return longest if self.spacing_mm[longest] > COARSE * max(others) else 2

    @property
    def is_square(self) -> bool:
        """Whether the pixels of its slices are."""
        a, b = (size for axis, size in enumerate(self.spacing_mm) if axis != self.axis)
        return abs(a / b - 1) <= 0.01

    @property
    def plane(self) -> str:
        """Of its slices, "" where nobody says."""
        return PLANES[self.axis] if self.placed else ""

    def __len__(self) -> int:
        return int(self.voxels.shape[self.axis])

    def slice(self, place: int) -> Array:
        """A slice as radiologists look at it: the patient's right on the left, the front or the
        head on top; in a sagittal one the front on the left.
        """
        flat = np.take(self.voxels, place, axis=self.axis)
        return np.ascontiguousarray(flat[::-1, ::-1].T)


def read_volume(file: Path) -> Volume:
    """A .nii or .nii.gz file.

    Raises:
        DataError: not NIfTI, no volume of grey values, or larger than the limit, packed or
            unpacked.
    """
    packed = read_regular(file)
    content = _unpacked(packed) if file.name.lower().endswith(".gz") else packed
    image = _opened(content)
    notes: tuple[str, ...] = ()
    shape = image.shape
    voxels = image.dataobj
    if len(shape) > 3 and math.prod(shape[3:]) > 1:
        notes = (f"holds {math.prod(shape[3:])} volumes, of which the first is read",)
    while len(shape) > 3:
        voxels, shape = voxels[..., 0], shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"its shape is {image.shape}, expected a volume")
    if voxels is image.dataobj and (voxels.slope, voxels.inter) != (1, 0):
        voxels = np.asarray(voxels, dtype=np.float32)
    placed = bool(image.header["sform_code"] or image.header["qform_code"])
    if not placed:
        notes = (*notes, NOT_PLACED)
    volume = _turned(image, np.asanyarray(voxels), hashlib.sha256(packed).hexdigest(), notes)
    return replace(volume, placed=placed)


def _turned(image: Any, voxels: Array, sha256: str, notes: tuple[str, ...]) -> Volume:
    """The volume with its axes turned to RAS."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    if voxels.dtype.kind not in "buif":
        raise DataError(f"its voxels are {voxels.dtype}, expected grey values")
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12:
        raise DataError("its header does not say how it lies in space (singular affine)")
    turn = io_orientation(image.affine)
    affine = image.affine @ inv_ornt_aff(turn, voxels.shape)
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return Volume(apply_orientation(voxels, turn), affine, (x, y, z), sha256, notes)


def _unpacked(packed: bytes) -> bytes:
    """The content of a .gz file, as far as its NIfTI header says that it reaches."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            start = stream.read(1024)
            size = _size_of(_header(start))
            return start + stream.read(max(0, size - len(start)))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be unpacked ({error})") from error


def load_nibabel() -> Any:
    """The library that knows NIfTI.

    Raises:
        DataError: it is not installed.
    """
    try:
        import nibabel
    except ImportError as error:
        raise DataError(
            "these are NIfTI files, which need nibabel: pip install 'robustmri[formats]'"
        ) from error
    return nibabel


def _header(start: bytes) -> Any:
    """The header of either version of NIfTI."""
    nibabel = load_nibabel()
    # The length of the header tells the version, in either order of bytes.
    is_second = 540 in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
    kind = nibabel.Nifti2Header if is_second else nibabel.Nifti1Header
    try:
        header = kind.from_fileobj(io.BytesIO(start[: 540 if is_second else 348]), check=False)
    except Exception as error:  # Of whatever kind: these bytes are no header.
        raise DataError("not a NIfTI file") from error
    if bytes(header["magic"])[:2] not in (b"n+", b"ni"):
        raise DataError("not a NIfTI file")
    if bytes(header["magic"])[:2] == b"ni":
        raise DataError("a header without its image: save both in one .nii file")
    return header


def _size_of(header: Any) -> int:
    """Bytes of a file with this header."""
    shape = [int(length) for length in header["dim"][1 : 1 + min(7, max(0, int(header["dim"][0])))]]
    if not shape or min(shape) < 1:
        raise DataError(f"its shape is {tuple(shape)}, expected a volume")
    try:
        item = header.get_data_dtype().itemsize
    except Exception as error:
        raise DataError("its voxels are of no known kind") from error
    offset = float(header["vox_offset"])
    if not 0 <= offset < 2**31:
        raise DataError(f"its voxels start at byte {offset:g}")
    size = int(offset) + math.prod(shape) * int(item)
    check_bytes(size)
    return size


def _opened(content: bytes) -> Any:
    """The image in memory."""
    nibabel = load_nibabel()
    header = _header(content[:1024])
    size = _size_of(header)
    if len(content) < size:
        raise DataError(f"it is cut short: {len(content)} bytes of {size}")
    second = isinstance(header, nibabel.Nifti2Header)
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    return kind.from_bytes(content)
