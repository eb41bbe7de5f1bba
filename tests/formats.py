"""Scans as other programs write them, each by its format's own library."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[Any]
AXIAL = [1, 0, 0, 0, 1, 0]
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
RAS = np.diag([1.0, 1.0, 1.0, 1.0])


def write_dicom(
    path: Path,
    pixels: Array,
    syntax: str = "1.2.840.10008.1.2.1",
    stream: bytes = b"",
    **tags: Any,
) -> str:
    """One file of pydicom; returns its SOPInstanceUID.

    Args:
        path: file to write, its folder too.
        pixels: one frame, several in the first axis, or colours in a last axis of 3.
        syntax: uid of the transfer syntax; RLE is compressed here, JPEG is not.
        stream: the compressed picture of a JPEG syntax.
        tags: by keyword; None removes one.
    """
    pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    uid = f"1.2.3.{zlib.crc32(str(path).encode())}"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID(MR_IMAGE)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID(uid)
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3.4", "1.2.3"
    dataset.PatientID, dataset.PatientName, dataset.Modality = "P1", "Doe^Jane", "MR"
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = AXIAL, [0, 0, 0]
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "MONOCHROME2", 1
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.shape[-1] == 3:
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = 3
        dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    elif pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
        if value is None:
            delattr(dataset, name)
    if "JPEG" in UID(syntax).name:
        dataset.PixelData = encapsulate([stream or b"\xff\xd8\xff\xf7"])
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(path, enforce_file_format=True)
    return uid


def write_nifti(
    path: Path,
    voxels: Array,
    affine: Array | None = RAS,
    second: bool = False,
) -> Path:
    """One volume of nibabel, of either version of NIfTI."""
    nibabel = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    nibabel.save(kind(voxels, affine), path)
    return path


def write_excel(path: Path, *sheets: list[list[object]]) -> Path:
    """One workbook of openpyxl, a sheet for each list of rows."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet() if number else book.worksheets[0]
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def write_cifar(path: Path, pixels: Array, labels: list[int]) -> Path:
    """A batch of CIFAR-10's binary version.

    Args:
        path: file to write, its folder too.
        pixels: uint8 of shape (n, 32, 32, 3).
        labels: a class from 0 to 9 for each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    records = zip(labels, pixels, strict=True)
    path.write_bytes(
        b"".join(bytes([label]) + image.transpose(2, 0, 1).tobytes() for label, image in records)
    )
    return path
