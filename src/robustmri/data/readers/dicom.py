"""DICOM files, in whatever folders they lie: patient, series and place come from their headers."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from robustmri.core.errors import DataError, SettingsError
from robustmri.data.limits import check_bytes
from robustmri.data.parallel import map_in_order
from robustmri.data.readers.columns import parse_columns, refuse_columns
from robustmri.data.readers.decode import IMAGE_SUFFIXES
from robustmri.data.readers.dicom_pixels import read_frame
from robustmri.data.readers.files import find_files, name_below, open_regular, read_regular
from robustmri.data.readers.layout import folder_label
from robustmri.data.readers.listing import (
    Listing,
    Lookup,
    Row,
    find_listing,
    fold_of,
    plane_of,
    speaks_of_scans,
)
from robustmri.data.readers.names import FileNames, outnumber
from robustmri.data.readers.slices import NOT_SQUARE, parse_slices
from robustmri.data.readers.source import LeftOut, RawSlice, is_missing, leave_out, read_each
from robustmri.data.readers.tables import TABLE_SUFFIXES, is_table, read_table

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
# The only header fields that are looked at, besides those that say how pixels are stored.
WANTED = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"),
    *("Modality", "ImageType", "InstanceNumber", "ImagePositionPatient"),
    *("ImageOrientationPatient", "NumberOfFrames", "Rows", "Columns", "BurnedInAnnotation"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
FRAME_LIMIT = 100_000
DEFLATED = "1.2.840.10008.1.2.1.99"
BURNT_IN = "says that text is burnt into the picture, which may name a person (BurnedInAnnotation)"
OF_HEADERS = "(0010,0020)"  # PatientID by its number, which no column is called.
OTHER_PATIENT = "has another PatientID in its header than in the table, whose patient was taken"
NO_SLICE = {
    "SEG": "a segmentation object, not a scan",
    "SR": "a report, not a scan",
    "PR": "a presentation state, not a scan",
    "RTSTRUCT": "outlines for radiotherapy, not a scan",
    "KO": "a selection of images, not a scan",
}


class Head(NamedTuple):
    """What the header of a file says; no name, date or place of a person."""

    file: Path
    uid: str
    series: str
    study: str
    patient: str
    label: str
    order: tuple[float, float]
    frames: tuple[tuple[float, str], ...]
    burned_in: bool


Frames = list[tuple[Head, int]]
"""Of one series: the file, and the place in it."""


@dataclass(frozen=True)
class DicomFiles:
    """Every frame of every file is a slice.

    The patient is PatientID of the header, or that of a table that says of images whose they are
    and then has to say it of each; the label is a table's (by file, by the uid of image, series or
    study, or by patient), a tag's, or the class folder's above.
    """

    place = 14
    expects = "DICOM files"
    options = ("columns", "slices", "window")

    root: Path
    listing: Listing | None = None
    tags: dict[str, str] = field(default_factory=dict)
    slices: str = "all"
    window: bool = False

    synthetic = False
    patient_ids = True

    @classmethod
    def look(
        cls, path: Path, columns: str = "", slices: str = "", window: str = ""
    ) -> DicomFiles | None:
        """The source, if there are more DICOM files than images in a folder, or beside a table."""
        root = path.parent if is_table(path) else path
        if not root.is_dir():
            return None
        if not outnumber(root, is_dicom):
            return None
        _pydicom()
        if window not in ("", "file"):
            raise SettingsError(f"window cannot be {window!r}: expected 'file', or nothing.")
        if slices and parse_slices(slices).kind == "mask":
            raise SettingsError("slices cannot be 'mask' for DICOM files, which bring no masks.")
        named = parse_columns(columns)
        tags = {
            role: column
            for role, column in named.items()
            if role in ("label", "patient") and _tag_of(column) and not _is_column(path, column)
        }
        named = {role: column for role, column in named.items() if role not in tags}
        named = refuse_columns(named, ("mask", "outline"), "DICOM files")
        listing = find_listing(path, named, speaks_of_scans)
        return cls(root, listing, tags, slices or "all", window == "file")

    @property
    def name(self) -> str:
        """Folder and kind."""
        return f"{self.root.resolve().name} (DICOM)"

    @property
    def tables(self) -> tuple[Path, ...]:
        """The table that is read."""
        return (self.listing.table.path,) if self.listing else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken for what."""
        label = (
            f"the tag {self.tags['label']}"
            if "label" in self.tags
            else f"the table {self.listing.name}"
            if self.listing and "label" in self.listing.columns
            else "the first folder above each file"
        )
        said = f"the label is that of {label}; read: {parse_slices(self.slices)} of each series"
        return (*(self._lookup.notes if self._lookup else ()), said)

    @cached_property
    def _files(self) -> list[Path]:
        return [file for file in find_files(self.root).files if file not in self.tables]

    @cached_property
    def _lookup(self) -> Lookup | None:
        names = FileNames(self.root, tuple(self._files))
        return Lookup(self.listing, names) if self.listing else None

    def __len__(self) -> int:
        return len(self._files)

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Series after series, each by the position of its slices; then what is no slice."""
        heads: list[Head] = []
        left: list[LeftOut] = []
        for item in map_in_order(self._try_head, self._files):
            if isinstance(item, LeftOut):
                left.append(item)
            else:
                heads.append(item)
        series = _in_order(heads)
        runs = groupby(self._chosen(series), lambda pair: len(pair[0].frames) > 1)
        for many, pairs in runs:
            if many:
                for head, own in groupby(pairs, lambda pair: pair[0]):
                    yield from self._read_many(head, [place for _, place in own])
            else:
                yield from read_each(
                    [head for head, _ in pairs],
                    self._read_one,
                    lambda head: name_below(self.root, head.file),
                )
        yield from left
        yield from self._too_short(series)
        yield from find_files(self.root).left_out
        if self._lookup:
            yield from self._lookup.unmatched()

    def _chosen(self, series: list[Frames]) -> Iterator[tuple[Head, int]]:
        """Frames as the choice of slices wants them."""
        choice = parse_slices(self.slices)
        for frames in series:
            yield from (frames[place] for place in choice.choose(len(frames)))

    def _too_short(self, series: list[Frames]) -> Iterator[LeftOut]:
        """Series of which nothing is chosen, each by its first file."""
        choice = parse_slices(self.slices)
        for frames in series:
            if not choice.choose(len(frames)):
                yield LeftOut(
                    name_below(self.root, frames[0][0].file),
                    f"none of the {len(frames)} slices of its series is among: {choice}",
                )

    def _try_head(self, file: Path) -> Head | LeftOut:
        try:
            return read_head(file, self.tags)
        except Exception as error:  # A damaged file can raise anything.
            return leave_out(error, name_below(self.root, file))

    def _read_one(self, head: Head) -> RawSlice:
        content = read_regular(head.file)
        return self._slice_of(head, open_dataset(content), hashlib.sha256(content).hexdigest(), 0)

    def _read_many(self, head: Head, places: list[int]) -> Iterator[RawSlice | LeftOut]:
        """The frames of one file; what is wrong with one is wrong with all."""
        try:
            content = read_regular(head.file)
            dataset, digest = open_dataset(content), hashlib.sha256(content).hexdigest()
            for place in places:
                yield self._slice_of(head, dataset, digest, place)
        except Exception as error:
            yield leave_out(error, name_below(self.root, head.file))

    def _slice_of(self, head: Head, dataset: Any, digest: str, place: int) -> RawSlice:
        ids = (head.uid, head.series, head.study)
        row = Row()
        if self._lookup:
            row = self._lookup.find(head.file, ids, head.patient) or Row()
        label = head.label or row.label
        if not label and not self.tags.get("label") and not self._table_labels:
            label = folder_label(head.file, self.root)
        if not label:
            raise DataError(self._no_label())
        patient = self._patient(row, head)
        image, notes = read_frame(dataset, place, self.window)
        if head.burned_in:
            notes = (*notes, BURNT_IN)
        if head.patient and patient != head.patient:
            notes = (*notes, OTHER_PATIENT)
        if not _is_square(dataset):
            notes = (*notes, NOT_SQUARE)
        many = len(head.frames) > 1
        return RawSlice(
            case_id=f"{head.uid}/{place + 1}" if many else head.uid,
            label=label,
            patient_id=patient,
            image=image,
            mask=None,
            source=name_below(self.root, head.file),
            sha256=digest,
            fold=fold_of(row.fold),
            plane=head.frames[place][1] or plane_of(row.plane),
            notes=notes,
        )

    def _patient(self, row: Row, head: Head) -> str:
        """Who was scanned: of the table or of the headers, never of both, whose ids of one person
        may differ.
        """
        if self.listing and self._table_patients:
            if not row.patient:
                raise DataError(
                    f"no patient in {self.listing.name}, whose patients are taken: add it there, "
                    f"or take those of all headers with --columns 'patient={OF_HEADERS}'"
                )
            return row.patient
        patient = head.patient if "patient" in self.tags else row.patient or head.patient
        if not patient:
            raise DataError(
                "PatientID is empty in its header: give the patients in a table "
                "(--columns patient=COLUMN)"
            )
        return patient

    @property
    def _table_patients(self) -> bool:
        """Whether a table says of images whose they are, and no tag was named for it."""
        columns = self.listing.columns if self.listing else {}
        return {"image", "patient"} <= set(columns) and "patient" not in self.tags

    @property
    def _table_labels(self) -> bool:
        return self.listing is not None and "label" in self.listing.columns

    def _no_label(self) -> str:
        if self.tags.get("label"):
            return f"no label: its header has no {self.tags['label']}"
        if self.listing and self._table_labels:
            return f"no label: {self.listing.name} does not speak of it"
        return "no label: it lies in no class folder, and no table names it"


def _in_order(heads: list[Head]) -> list[Frames]:
    """The frames of each series, by the position of the slices."""
    series: dict[str, Frames] = {}
    for head in heads:
        frames = ((head, place) for place in range(len(head.frames)))
        series.setdefault(head.series, []).extend(frames)
    for one in series.values():
        one.sort(key=lambda pair: (*pair[0].order, pair[0].frames[pair[1]][0]))
    return list(series.values())


def is_dicom(file: Path) -> bool:
    """Whether a file has a DICOM suffix, or none that is known and the mark of DICOM."""
    suffix = file.suffix.lower()
    if suffix in DICOM_SUFFIXES:
        return True
    if suffix in (*IMAGE_SUFFIXES, *TABLE_SUFFIXES) or re.fullmatch(r"\.[a-z]{2,5}", suffix):
        return False
    try:
        with open_regular(file) as stream:
            return stream.read(132)[128:] == b"DICM"
    except (OSError, DataError):
        return False


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise DataError(
            "these are DICOM files, which need pydicom: pip install 'robustmri[formats]'"
        ) from error
    # Headers that bend the rules are common; what matters is checked here.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    return pydicom


def _tag_of(text: str) -> int | None:
    """The tag that a text names, as "(0010,4000)" or by its keyword."""
    from pydicom.datadict import tag_for_keyword

    numbers = re.fullmatch(r"\(?([0-9a-fA-F]{4}),\s*([0-9a-fA-F]{4})\)?", text)
    if numbers:
        return int(numbers[1] + numbers[2], 16)
    return tag_for_keyword(text) if text else None


def _is_column(path: Path, column: str) -> bool:
    tables = [path] if is_table(path) else [file for file in path.iterdir() if is_table(file)]
    return any(column in read_table(table, rows=1).columns for table in tables)


def read_head(file: Path, tags: dict[str, str]) -> Head:
    """The few header fields that are wanted.

    Args:
        file: a DICOM file.
        tags: role ("label", "patient") to the tag that holds it.

    Raises:
        DataError: not a DICOM file, no picture in it, or a kind that is no slice.
    """
    pydicom = _pydicom()
    named = {role: _tag_of(tag) for role, tag in tags.items()}
    wanted = [*WANTED, *(tag for tag in named.values() if tag)]
    with open_regular(file) as stream:
        _check_start(file, stream)
        dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=wanted)
    if dataset.file_meta.get("MediaStorageSOPClassUID") == "1.2.840.10008.1.3.10":
        raise DataError("the table of contents of a disc, not a scan")
    if dataset.get("Modality") in NO_SLICE:
        raise DataError(NO_SLICE[dataset.Modality])
    if not dataset.get("Rows") or not dataset.get("Columns"):
        raise DataError("it holds no picture")
    if "LOCALIZER" in (dataset.get("ImageType") or ()):
        raise DataError("a localiser, not a slice of a series")
    uid = str(dataset.get("SOPInstanceUID") or "")
    if not uid:
        raise DataError("it has no SOPInstanceUID")
    count = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= count <= FRAME_LIMIT:
        raise DataError(f"it claims {count} frames, expected 1 to {FRAME_LIMIT}")
    values = {role: _value(dataset, tag) for role, tag in named.items()}
    frames = tuple(_place_of(dataset, place, count) for place in range(count))
    number = float(dataset.get("InstanceNumber") or 0)
    placed = dataset.get("ImagePositionPatient") and count == 1
    return Head(
        file,
        uid,
        str(dataset.get("SeriesInstanceUID") or uid),
        str(dataset.get("StudyInstanceUID") or ""),
        values.get("patient", _value(dataset, _tag_of("PatientID"))),
        values.get("label", ""),
        (frames[0][0] if placed else number, number),
        frames,
        str(dataset.get("BurnedInAnnotation") or "").upper() == "YES",
    )


def _value(dataset: Any, tag: int | None) -> str:
    element = dataset.get(tag) if tag else None
    text = "" if element is None or element.value is None else str(element.value).strip()
    return "" if is_missing(text) else text


def _place_of(dataset: Any, place: int, count: int) -> tuple[float, str]:
    """Distance along the normal of a frame's plane in mm, and the plane's name."""
    import numpy as np

    along = _own(dataset, place, count, "PlanePositionSequence", "ImagePositionPatient")
    axes = _own(dataset, place, count, "PlaneOrientationSequence", "ImageOrientationPatient")
    try:
        directions = np.array(axes, dtype=np.float64).reshape(2, 3)
        normal = np.cross(directions[0], directions[1])
        if not np.isfinite(normal).all() or not 0.5 < np.linalg.norm(normal) < 2:
            return float(place), ""
        plane = ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]
    except (TypeError, ValueError):
        return float(place), ""
    try:
        distance = float(normal @ np.array(along, dtype=np.float64))
    except (TypeError, ValueError):
        return float(place), plane
    return (distance if np.isfinite(distance) else float(place)), plane


def _is_square(dataset: Any) -> bool:
    """Whether rows and columns lie equally far apart, as far as the header says."""
    spacing = _own(dataset, 0, 2, "PixelMeasuresSequence", "PixelSpacing")
    spacing = spacing or dataset.get("PixelAspectRatio")
    try:
        down, across = map(float, spacing)
        return abs(down / across - 1) <= 0.01
    except (TypeError, ValueError, ZeroDivisionError):
        return True


def _own(dataset: Any, place: int, count: int, group: str, name: str) -> Any:
    if count > 1 or dataset.get(name) is None:
        frames: Iterable[Any] = dataset.get("PerFrameFunctionalGroupsSequence") or ()
        shared = dataset.get("SharedFunctionalGroupsSequence") or ()
        for item in (*list(frames)[place : place + 1], *shared[:1]):
            if item.get(group) and item.get(group)[0].get(name) is not None:
                return item.get(group)[0].get(name)
    return dataset.get(name)


def _check_start(file: Path, stream: BinaryIO) -> None:
    """Refuse what is no DICOM file, or one that unpacks to any size; the stream is back at 0."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    check_bytes(os.fstat(stream.fileno()).st_size)
    if stream.read(132)[128:] != b"DICM":
        raise DataError("not a DICOM file (the mark DICM is missing)")
    stream.seek(0)
    try:
        about = read_file_meta_info(file)
    except InvalidDicomError as error:
        raise DataError("not a DICOM file") from error
    if about.get("TransferSyntaxUID") == DEFLATED:
        raise DataError("a deflated DICOM file, which may unpack to any size: save it uncompressed")


def open_dataset(content: bytes) -> Any:
    """The file as pydicom has it."""
    import io

    return _pydicom().dcmread(io.BytesIO(content))
