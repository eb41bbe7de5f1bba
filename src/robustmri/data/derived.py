"""A changed scan as a DICOM derived image: the source's geometry and person, identities of its own,
and a description that says what it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError
from robustmri.data.one_scan import Scan
from robustmri.data.readers.dicom import open_dataset

WARNING = "ADVERSARIAL EXAMPLE, NOT FOR DIAGNOSIS"


def write_derived(
    path: Path, scan: Scan, change: npt.NDArray[np.float32], native: npt.NDArray[np.float32]
) -> None:
    """Write the source with a change in it, uncompressed.

    Args:
        path: of the new file.
        scan: the source, a DICOM file.
        change: of the prepared slice, in units of the [0, 1] range, shape (size, size); it is
            spread over the source's pixels.
        native: the source's grey values in [0, 1], in its own size.

    Raises:
        DataError: colours, which have no single grey value to change.
    """
    from pydicom.dataset import Dataset
    from pydicom.pixels.utils import pixel_array
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    dataset = open_dataset(scan.content)
    stored = pixel_array(dataset, index=0)
    if stored.ndim != 2 or stored.dtype.kind not in "ui":
        raise DataError("a DICOM file of colours or floating point cannot be derived here.")
    spread = spread_change(change, native.shape)
    # Grey values were scaled by a straight line; its slope is that of the pixels that it moved.
    slope = _slope(native, stored)
    low, high = _limits(dataset, stored)
    moved = np.clip(np.round(stored + spread * slope), low, high).astype(stored.dtype)
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
    for name in ("PerFrameFunctionalGroupsSequence", "NumberOfFrames"):
        if name in dataset:
            delattr(dataset, name)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = moved.astype(moved.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    dataset["PixelData"].is_undefined_length = False
    dataset.save_as(path, enforce_file_format=True)


def spread_change(
    change: npt.NDArray[np.float32], shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """The change of a prepared slice on the pixels of its source: each takes that of the prepared
    pixel that its middle lies in.

    >>> spread_change(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), (2, 4)).tolist()
    [[1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]]
    """
    side, size = max(shape), len(change)
    places = ((np.arange(side) + 0.5) * size / side).astype(int)
    square = change[np.ix_(places, places)]
    top, left = ((side - length) // 2 for length in shape)
    cropped: npt.NDArray[np.float32] = square[top : top + shape[0], left : left + shape[1]]
    return cropped


def _slope(native: npt.NDArray[np.float32], stored: npt.NDArray[np.generic]) -> float:
    """Stored values for each unit of the [0, 1] range; negative where bright is less."""
    inside = (native > 0) & (native < 1)
    grey, values = native[inside].astype(float), stored[inside].astype(float)
    if len(grey) < 2 or grey.max() == grey.min():
        return float(stored.max()) - float(stored.min())
    return float(np.polyfit(grey, values, 1)[0])


def _limits(dataset: object, stored: npt.NDArray[np.generic]) -> tuple[int, int]:
    bits = int(getattr(dataset, "BitsStored", stored.dtype.itemsize * 8))
    if int(getattr(dataset, "PixelRepresentation", 0)):
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1
