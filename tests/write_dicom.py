"""One MR slice as a DICOM file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import MRImageStorage, RLELossless, generate_uid


def write_dicom(
    path: Path,
    pixels: np.ndarray,
    *,
    patient: str = "P1",
    inverted: bool = False,
    compressed: bool = False,
) -> Path:
    """Write 12-bit grey values, shape (rows, columns), as pydicom does."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.Modality, dataset.PatientName = patient, "MR", "Phantom"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.PixelSpacing, dataset.ImagePositionPatient = [0.5, 0.5], [1, 2, 3]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.RescaleSlope, dataset.RescaleIntercept = 2, -10
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.BitsStored = 1, 16, 12
    dataset.HighBit, dataset.PixelRepresentation = 11, 0
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    if compressed:
        dataset.compress(RLELossless)
    dataset.save_as(path, enforce_file_format=True)
    return path
