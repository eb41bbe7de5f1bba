"""CIFAR-10 in its binary version: photographs of 32 x 32 pixels, to compare scans with."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.readers.files import find_files, name_below, open_regular, read_regular
from robustmri.data.readers.slices import SliceChoice, parse_slices
from robustmri.data.readers.source import LeftOut, RawSlice, leave_out, readable_name

BATCH = re.compile(r"(data_batch_\d+|test_batch)\.bin")
PICKLED = re.compile(r"(data_batch_\d+|test_batch|batches\.meta)|cifar-10-python\.tar\.gz")
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
NAMES_FILE = "batches.meta.txt"
NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SIDE = 32
RECORD = 1 + 3 * SIDE**2
"""Bytes of an image: its class, then red, green and blue, row by row."""
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"


@dataclass(frozen=True)
class Cifar10:
    """Files data_batch_1.bin to data_batch_5.bin and test_batch.bin, or one of them.

    The photographs are nobody's patients, and their sets become one cohort, which robustmri splits
    itself.
    """

    place = 15
    expects = "CIFAR-10 in its binary version (data_batch_1.bin ...)"
    options = ("slices",)

    root: Path
    batches: tuple[Path, ...]
    choice: SliceChoice

    synthetic = False
    patient_ids = False

    @classmethod
    def look(cls, path: Path, slices: str = "") -> Cifar10 | None:
        """The source, if `path` is such a file, or a folder with one in it or in the folder that
        the archive unpacks.
        """
        folder = next((path / name for name in FOLDERS if (path / name).is_dir()), path)
        files = sorted(folder.iterdir()) if folder.is_dir() else [path]
        batches = tuple(file for file in files if BATCH.fullmatch(file.name))
        if not batches:
            if any(PICKLED.fullmatch(file.name) for file in files):
                raise DataError(
                    f"{readable_name(path.name)} is CIFAR-10 in its Python version, which is "
                    f"pickled: opening it could run code. Take the binary version, {ADDRESS}, and "
                    "give the folder that it unpacks."
                )
            return None
        return cls(folder, batches, parse_slices(slices or "all"))

    @property
    def name(self) -> str:
        """File or folder, and kind."""
        return f"{readable_name(self.root.resolve().name)} (CIFAR-10)"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken, and what was not taken over."""
        sets = "the sets of the files are not kept: robustmri makes its own split"
        if self.choice.kind == "all":
            return (sets,)
        return (sets, f"of each file were taken: {self.choice}")

    def __len__(self) -> int:
        return len(self.batches)

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Photographs, file after file; a file that is damaged is left out."""
        folder = self.root if self.root.is_dir() else self.root.parent
        names = self._names()
        for batch in self.batches:
            try:
                yield from self._read_batch(batch, names)
            except Exception as error:  # A damaged file can raise anything.
                yield leave_out(error, readable_name(batch.name))
        if self.root.is_dir():
            beside = find_files(folder)
            for file in beside.files:
                if file not in self.batches and file.name != NAMES_FILE:
                    yield LeftOut(name_below(folder, file), "not a batch of CIFAR-10 by its name")
            yield from beside.left_out

    def _names(self) -> tuple[str, ...]:
        """Of the classes, as the file beside the batches has them."""
        file = self.root / NAMES_FILE
        if not file.is_file():
            return NAMES
        words = read_regular(file).decode("utf-8", "replace").split()
        if len(words) != len(NAMES) or len(set(words)) != len(NAMES):
            raise DataError(
                f"{NAMES_FILE} names {len(set(words))} classes, expected {len(NAMES)}. Remove it "
                "to take the usual names."
            )
        return tuple(map(readable_name, words))

    def _read_batch(self, batch: Path, names: tuple[str, ...]) -> Iterator[RawSlice | LeftOut]:
        with open_regular(batch) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size % RECORD or not size:
                raise DataError(
                    f"it has {size} bytes, which are no whole number of images of {RECORD}; it is "
                    "damaged, or CIFAR-100"
                )
            for place in self.choice.choose(size // RECORD):
                stream.seek(place * RECORD)
                record = stream.read(RECORD)
                source = f"{readable_name(batch.name)}/{place}"
                if len(record) != RECORD or record[0] >= len(names):
                    yield LeftOut(source, "its class is none of ten, or it is cut short")
                    continue
                planes = np.frombuffer(record, np.uint8, offset=1).reshape(3, SIDE, SIDE)
                image = np.ascontiguousarray(planes.transpose(1, 2, 0))
                yield RawSlice(
                    f"{batch.stem}_{place}",
                    names[record[0]],
                    None,
                    image,
                    None,
                    source,
                    hashlib.sha256(record).hexdigest(),
                )
