"""A changed scan as a file: a PNG of 16 bit, and a DICOM derived image with the source's geometry
and person, identities of its own, and a description that says what it is.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError
from robustmri.core.sizes import size_of
from robustmri.data.intensity import canvas_of, to_grey
from robustmri.data.one_scan import Scan
from robustmri.data.readers.dicom import open_dataset
from robustmri.data.readers.dicom_pixels import limits_of

WARNING = "ADVERSARIAL EXAMPLE, NOT FOR DIAGNOSIS"


def write_png(path: Path, image: npt.NDArray[np.float32]) -> None:
    """Write an image in [0, 1], shape (h, w) or (h, w, 3), with 16 bits a channel, which Pillow can
    for grey alone.
    """
    height, width = image.shape[:2]
    values = np.round(image.clip(0, 1) * 65535).astype(">u2").reshape(height, -1)
    lines = b"".join(b"\0" + line.tobytes() for line in values)  # 0: no filter.
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if image.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
            for kind, content in chunks
        )
    )


def write_derived(
    path: Path,
    scan: Scan,
    change: npt.NDArray[np.float32],
    native: npt.NDArray[np.float32],
    *,
    pad: bool = True,
) -> None:
    """Write the source with a change in it, uncompressed.

    Args:
        path: of the new file.
        scan: the source, a DICOM file.
        change: of the prepared slice, in units of the [0, 1] range, shape (h, w) or (h, w, 3); it
            is spread over the source's pixels, a change of grey over all channels alike.
        native: the source's values in [0, 1], in its own size, with the change's channels.
        pad: whether the prepared slice was padded; else stretched.

    Raises:
        DataError: a palette or floating point, whose values no change can be added to.
    """
    from pydicom.dataset import Dataset
    from pydicom.pixels.utils import pixel_array
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    dataset = open_dataset(scan.content)
    stored = pixel_array(dataset, index=0)
    if dataset.PhotometricInterpretation == "PALETTE COLOR" or stored.dtype.kind not in "ui":
        raise DataError(
            "no change can be added to values of a palette or of floating point in a DICOM file."
        )
    spread = spread_change(change, native.shape, pad=pad)
    # Values were scaled by a straight line, and clipped beyond its ends.
    slope, offset = _line(native, stored if stored.ndim == native.ndim else to_grey(stored))
    start = stored.astype(np.float64)
    if stored.ndim > spread.ndim:
        spread = spread[:, :, None]
    else:
        low, high = sorted((offset, offset + slope))
        beyond = (spread != 0) & ((native <= 0) | (native >= 1))
        start = np.where(beyond, start.clip(low, high), start)
    moved = np.round(start + spread * slope).clip(*limits_of(dataset, stored))
    source = Dataset()
    source.ReferencedSOPClassUID = dataset.SOPClassUID
    source.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SourceImageSequence = Sequence([source])
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.ImageType = ["DERIVED", "SECONDARY", *list(dataset.get("ImageType", []))[2:]]
    dataset.SeriesDescription = WARNING
    dataset.DerivationDescription = (
        f"{WARNING}: grey values were changed by robustmri so that a classifier errs."
    )
    dataset.BurnedInAnnotation = dataset.get("BurnedInAnnotation", "NO") or "NO"
    if frames := dataset.get("PerFrameFunctionalGroupsSequence"):
        dataset.PerFrameFunctionalGroupsSequence = Sequence(list(frames)[:1])  # The one shown.
    if "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = 1
    if stored.ndim == 3:  # As they were decoded.
        dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = moved.astype(stored.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    dataset["PixelData"].is_undefined_length = False
    dataset.save_as(path, enforce_file_format=True)


def spread_change(
    change: npt.NDArray[np.float32], shape: tuple[int, ...], *, pad: bool = True
) -> npt.NDArray[np.float32]:
    """The change of a prepared slice on the pixels of its source: each takes that of the prepared
    pixel that its middle lies in.

    >>> spread_change(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), (2, 4)).tolist()
    [[1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]]
    """
    height, width = shape[0], shape[1]
    size = change.shape[:2]
    full = canvas_of((height, width), size_of(*size)) if pad else (height, width)
    rows, columns = (
        ((np.arange(length) + 0.5) * before / length).astype(int)
        for length, before in zip(full, size, strict=True)
    )
    canvas = change[rows][:, columns]
    top, left = (full[0] - height) // 2, (full[1] - width) // 2
    cropped: npt.NDArray[np.float32] = canvas[top : top + height, left : left + width]
    return cropped


def _line(native: npt.NDArray[np.float32], stored: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Stored values for each unit of the [0, 1] range, negative where bright is less, and for 0."""
    inside = (native > 0) & (native < 1)
    grey, values = native[inside].astype(float), stored[inside].astype(float)
    if len(grey) < 2 or grey.max() == grey.min():
        return float(stored.max()) - float(stored.min()), float(stored.min())
    slope, offset = np.polyfit(grey, values, 1)
    return float(slope), float(offset)
