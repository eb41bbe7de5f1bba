"""Pixels of one frame of a DICOM file: grey values as the scanner measured them, or colours."""

from __future__ import annotations

from typing import Any

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.limits import check_pixels
from robustmri.data.readers.npy import without_equal_planes
from robustmri.data.readers.source import Array

INSTALL = {
    "JPEG-LS": "pip install pyjpegls",
    "JPEG 2000": "pip install pylibjpeg pylibjpeg-openjpeg",
    "JPEG": "pip install pylibjpeg pylibjpeg-libjpeg",
}
JPEGS = "1.2.840.10008.1.2.4."
"""How the uids of every kind of JPEG begin."""


def read_frame(dataset: Any, place: int, window: bool) -> tuple[Array, tuple[str, ...]]:
    """Pixels of a frame, shape (h, w), or (h, w, 3) in colour, and what was done to them.

    Padding takes the darkest value; stored values become real ones by slope and intercept, or the
    modality's table; MONOCHROME1 is turned within the values that its bits can hold, the same in
    every slice (of floating point, within its own), so that bright is more.

    Args:
        dataset: of pydicom, with its pixels.
        place: number of the frame, from 0.
        window: clip to the file's own window (the first one).

    Raises:
        DataError: no decoder for its compression, or sizes that contradict each other.
    """
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    check_pixels(int(dataset.Rows), int(dataset.Columns))
    _check_compressed(dataset, place)
    kind = str(dataset.PhotometricInterpretation)
    stored = pixel_array(dataset, index=place)
    if kind == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim == 3:
        return without_equal_planes(stored), ()
    notes: list[str] = []
    padding = _padding_of(dataset, stored)
    modality = _group(dataset, place, "PixelValueTransformationSequence")
    image = apply_modality_lut(stored, modality)
    if padding is not None and padding.any() and not padding.all():
        real = image[~padding]
        image = np.where(padding, real.max() if kind == "MONOCHROME1" else real.min(), image)
    if window:
        image = _windowed(image, _group(dataset, place, "FrameVOILUTSequence"), notes)
    if kind == "MONOCHROME1":
        image = _turned(image, _ends(dataset, stored, modality))
        notes.append("is MONOCHROME1 (bright is less), and was turned")
    return image, tuple(notes)


def limits_of(dataset: Any, stored: Array) -> tuple[Any, Any]:
    """Least and largest value that the bits of a file can hold; of floating point, that it does."""
    if stored.dtype.kind == "f":
        return stored.min(), stored.max()
    bits = int(dataset.get("BitsStored", stored.dtype.itemsize * 8))
    if int(dataset.get("PixelRepresentation", 0)):
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1


def _ends(dataset: Any, stored: Array, modality: Any) -> Array:
    """Two values between which all lie that the file can give."""
    from pydicom.pixels.processing import apply_modality_lut

    if table := modality.get("ModalityLUTSequence"):  # Its values need not rise.
        return np.array([0, 2 ** int(table[0].LUTDescriptor[2]) - 1])
    ends: Array = apply_modality_lut(np.array(limits_of(dataset, stored), stored.dtype), modality)
    return ends


def _turned(image: Array, ends: Array) -> Array:
    """Bright for dark, between two values."""
    wide = image if image.dtype.kind == "f" else image.astype(np.int64)
    turned: Array = (ends[0].item() + ends[1].item() - wide).astype(image.dtype)
    return turned


def _group(dataset: Any, place: int, name: str) -> Any:
    """What holds a frame's own values in an enhanced file, its shared ones, or the file itself."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = dataset.get("SharedFunctionalGroupsSequence") or ()
    for group in (*frames[place : place + 1], *shared[:1]):
        if group.get(name):
            return group.get(name)[0]
    return dataset


def _padding_of(dataset: Any, stored: Array) -> Array | None:
    """Where the pixels are no part of the picture."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = np.array([int(value), int(value if limit is None else limit)])
    if stored.dtype.kind in "iu" and stored.dtype.itemsize == 2:
        ends = ends.astype(stored.dtype)  # Some write the bits of -2000 as 63536.
    low, high = ends.min(), ends.max()
    padding: Array = (stored >= low) & (stored <= high)
    return padding


def _windowed(image: Array, group: Any, notes: list[str]) -> Array:
    """Clipped as DICOM PS3.3 C.11.2.1.2 says of a linear window."""
    centre, width = _first(group.get("WindowCenter")), _first(group.get("WindowWidth"))
    if centre is None or width is None or not width >= 1:
        notes.append("has no window, so its whole range was used")
        return image
    if str(group.get("VOILUTFunction", "LINEAR")) == "SIGMOID":
        notes.append("has a sigmoid window, which was read as a linear one")
    middle, half = centre - 0.5, (width - 1) / 2
    clipped: Array = np.clip(image.astype(np.float64), middle - half, middle + half)
    return clipped


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value if isinstance(value, (int, float)) or not len(value) else value[0])


def _check_compressed(dataset: Any, place: int) -> None:
    """Refuse a compression without decoder, and a stream of another size than the header says."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise DataError(f"the compression {syntax.name} is not known") from error
    if not available:
        # The part of the name: JPEG 2000 is also "High-Throughput".
        remedies = [f"{command}, or " for name, command in INSTALL.items() if name in syntax.name]
        remedy = "".join(remedies[:1])
        raise DataError(f"no decoder for {syntax.name}: {remedy}save it uncompressed")
    if not syntax.startswith(JPEGS):
        return
    frames = int(dataset.get("NumberOfFrames") or 1)
    size = size_of_stream(get_frame(dataset.PixelData, place, number_of_frames=frames))
    if size != (dataset.Rows, dataset.Columns):
        raise DataError(
            f"the header says {dataset.Rows} rows and {dataset.Columns} columns, the compressed "
            f"picture {size[0]} and {size[1]}"
        )


def size_of_stream(stream: bytes) -> tuple[int, int]:
    """Height and width that a JPEG, JPEG-LS or JPEG 2000 stream claims, before it is decoded.

    Raises:
        DataError: it claims none.
    """
    start = stream.find(b"\xff\x4f\xff\x51")
    if 0 <= start < 4096 and len(stream) >= start + 24:
        width, height, left, top = (
            int.from_bytes(stream[start + at : start + at + 4], "big") for at in (8, 12, 16, 20)
        )
        return height - top, width - left
    at = 2
    while stream[:2] == b"\xff\xd8" and at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width = (int.from_bytes(stream[at + by : at + by + 2], "big") for by in (5, 7))
            return height, width
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise DataError("the compressed picture does not say its size")
