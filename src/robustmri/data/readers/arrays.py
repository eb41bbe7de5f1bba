"""Arrays that numpy saved: one .npz of images and labels as MedMNIST comes, or a .npy a slice."""

from __future__ import annotations

import hashlib
import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.limits import check_bytes, check_pixels
from robustmri.data.readers.files import find_files, name_below, open_regular
from robustmri.data.readers.layout import FoldersOfClasses
from robustmri.data.readers.names import outnumber
from robustmri.data.readers.npy import Header, decode_npy, read_header, without_equal_planes
from robustmri.data.readers.source import (
    Array,
    LeftOut,
    RawSlice,
    is_missing,
    leave_out,
    readable_name,
)

IMAGES = re.compile(r"(.*_)?(images|x)\.npy", re.IGNORECASE)
LABELS, PATIENTS = ("labels", "y"), ("patients", "patient_ids")
IMAGE_LIMIT = 2_000_000
ARRAY_LIMIT = 2**36
"""Bytes of one array, which is read slice by slice."""


class _Set(NamedTuple):
    """Arrays that belong together, by the names of their members."""

    prefix: str
    images: str
    labels: str
    patients: str


@dataclass(frozen=True)
class ArrayFile:
    """A .npz with `train_images` and `train_labels`, `val_...`, `test_...`, or `images` and
    `labels`; with `..._patients` beside each, if the patients are known.

    Its sets become one cohort, which robustmri splits itself.
    """

    place = 16
    expects = "a .npz of images and labels (as MedMNIST)"

    path: Path
    folder: Path | None = None

    synthetic = False

    @classmethod
    def look(cls, path: Path) -> ArrayFile | None:
        """The source, if `path` is such a file or a folder with one and with no more images."""
        if path.is_file():
            return cls(path) if path.suffix.lower() == ".npz" else None
        if not path.is_dir() or not outnumber(path, lambda file: file.suffix.lower() == ".npz"):
            return None
        found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".npz")
        if len(found) > 1:
            raise DataError(
                f"{path} has several arrays of images "
                f"({', '.join(readable_name(file.name) for file in found[:4])}). Give the path of "
                "the one you mean."
            )
        return cls(found[0], path) if found else None

    @property
    def name(self) -> str:
        """File and kind."""
        return f"{readable_name(self.path.name)} (arrays)"

    @property
    def patient_ids(self) -> bool:
        """Whether each set has them."""
        return all(one.patients for one in self._sets)

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the file was not taken over."""
        names = [one.prefix.rstrip("_") for one in self._sets if one.prefix]
        notes = [f"labels are as the file numbers or names them: {', '.join(self._labels)}"]
        if names:
            notes.append(
                f"the sets of the file ({', '.join(names)}) are not kept: robustmri makes its own "
                "split" + ("" if self.patient_ids else ", for nobody says whose images they are")
            )
        return tuple(notes)

    @cached_property
    def _labels(self) -> dict[str, None]:
        return {}

    @cached_property
    def _sets(self) -> list[_Set]:
        try:
            with open_regular(self.path) as stream, zipfile.ZipFile(stream) as packed:
                names = packed.namelist()
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"{self.path.name} is not a .npz file ({error}).") from error
        sets = []
        for name in names:
            found = IMAGES.fullmatch(name)
            if not found:
                continue
            prefix = found[1] or ""
            labels, patients = (
                next((f"{prefix}{key}.npy" for key in keys if f"{prefix}{key}.npy" in names), "")
                for keys in (LABELS, PATIENTS)
            )
            if labels:
                sets.append(_Set(prefix, name, labels, patients))
        if not sets:
            raise DataError(
                f"{self.path.name} holds {', '.join(names[:6]) or 'nothing'}; expected images and "
                "labels, or train_images and train_labels, val_..., test_..."
            )
        return sets

    def __len__(self) -> int:
        return len(self._sets)

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Images, set after set; a set that cannot be read is left out from there on."""
        sets = self._sets
        with open_regular(self.path) as stream, zipfile.ZipFile(stream) as packed:
            for one in sets:
                try:
                    yield from self._read_set(packed, one)
                except Exception as error:  # A damaged file can raise anything.
                    yield leave_out(error, f"{self.path.name}/{one.images}")
            used = {name for one in sets for name in one}
            for name in packed.namelist():
                if name not in used:
                    yield LeftOut(f"{self.path.name}/{name}", "not read: no images, or no labels")
        if self.folder:
            beside = find_files(self.folder)
            yield from beside.left_out
            for file in beside.files:
                if file != self.path:
                    name = name_below(self.folder, file)
                    yield LeftOut(name, f"not read: {self.path.name} is the source")

    def _read_set(self, packed: zipfile.ZipFile, one: _Set) -> Iterator[RawSlice | LeftOut]:
        with packed.open(one.images) as opened:
            stream = cast(BinaryIO, opened)
            header = read_header(stream)
            count = _check_images(header, packed.getinfo(one.images).file_size)
            labels = _read_texts(packed, one.labels, count)
            patients = _read_texts(packed, one.patients, count) if one.patients else [""] * count
            shape = header.shape[1:]
            step = math.prod(shape) * header.dtype.itemsize
            for place in range(count):
                content = stream.read(step)
                if len(content) != step:
                    raise DataError(f"it is cut short after {place} of {count} images")
                source = f"{self.path.name}/{one.images[:-4]}/{place}"
                yield self._slice_of(
                    np.frombuffer(content, header.dtype).reshape(shape),
                    (f"{one.prefix}{place}", labels[place], patients[place], source),
                    hashlib.sha256(content).hexdigest(),
                )

    def _slice_of(
        self, image: Array, texts: tuple[str, str, str, str], sha256: str
    ) -> RawSlice | LeftOut:
        case_id, label, patient, source = texts
        if is_missing(label):
            return LeftOut(source, "no label")
        if self.patient_ids and is_missing(patient):
            return LeftOut(source, "no patient")
        self._labels.setdefault(label)
        return RawSlice(
            case_id, label, patient or None, without_equal_planes(image), None, source, sha256
        )


def _check_images(header: Header, size: int) -> int:
    """Number of images of an array that holds so many bytes, unpacked, with its head."""
    shape = header.shape
    if header.dtype.kind == "U" or not (
        len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    ):
        raise DataError(
            f"images of shape {shape} and kind {header.dtype}, expected (n, height, width), or "
            "(n, height, width, 3) in colour; volumes are read from NIfTI files"
        )
    if header.columns_first:
        raise DataError("images saved columns first: save np.ascontiguousarray of them")
    check_pixels(shape[1], shape[2])
    bytes_needed = math.prod(shape) * header.dtype.itemsize
    if shape[0] > IMAGE_LIMIT or max(bytes_needed, size) > ARRAY_LIMIT:
        raise DataError(
            f"{shape[0]} images in {max(bytes_needed, size)} bytes; at most {IMAGE_LIMIT} and "
            f"{ARRAY_LIMIT} are read"
        )
    if bytes_needed > size:
        raise DataError(f"its shape {shape} needs {bytes_needed} bytes, it has {size}")
    return shape[0]


def _read_texts(packed: zipfile.ZipFile, name: str, count: int) -> list[str]:
    """One text for each image."""
    size = packed.getinfo(name).file_size
    check_bytes(size)
    with packed.open(name) as opened:
        stream = cast(BinaryIO, opened)
        header = read_header(stream)
        content = stream.read(size)
    shape = header.shape
    if shape not in ((count,), (count, 1)):
        raise DataError(
            f"{name[:-4]} has the shape {shape}, expected one for each of {count} images"
        )
    if len(content) != count * header.dtype.itemsize:
        raise DataError(f"{name[:-4]} is cut short")
    values: list[Any] = np.frombuffer(content, header.dtype).tolist()
    return [
        str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
        for value in values
    ]


class ArrayFolders(FoldersOfClasses):
    """A .npy a slice in folders of classes."""

    place = 44
    expects = "one folder of .npy arrays for each class"

    @classmethod
    def look(cls, path: Path, patient_pattern: str = "") -> ArrayFolders | None:
        """The source, if there is at least one class folder of arrays in `path`."""
        if not path.is_dir() or not outnumber(path, is_array):
            return None
        return cls.find(path, is_array, "not a .npy file by its name", patient_pattern)

    @property
    def name(self) -> str:
        """Folder and kind."""
        return f"{readable_name(self.root.resolve().name)} (folders of arrays)"

    def decode(self, content: bytes) -> tuple[Array, tuple[str, ...]]:
        """See `FoldersOfClasses`."""
        return decode_npy(content), ()


def is_array(file: Path) -> bool:
    """Whether a file is an array that numpy saved, by its name."""
    return file.suffix.lower() == ".npy"
