"""What a reader of scans yields: slices as they came, and files that did not become one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy.typing as npt

from robustmri.core.errors import DataError
from robustmri.data.parallel import map_in_order

Array = npt.NDArray[Any]
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class RawSlice:
    """One slice as it came: native depth and size.

    Attributes:
        image: 2-D array; rows run downwards, as the slice is looked at.
        mask: lesion, bool array of the same shape, or None.
        source: file name relative to the source (a member of a zip: "a.zip/1.mat").
        sha256: hash of the file's bytes.
        fold: fold 1 to 5 that the authors of the data gave it.
        plane: "axial", "coronal", "sagittal", or "" where nobody says.
    """

    case_id: str
    label: str
    patient_id: str | None
    image: Array
    mask: Array | None
    source: str
    sha256: str
    fold: int | None = None
    plane: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A file that did not become a case, and why."""

    source: str
    reason: str


class Source(Protocol):
    """A set of slices; `len` is the number of files that it will try."""

    @property
    def name(self) -> str:
        """What it is, for a reader of the report."""

    @property
    def synthetic(self) -> bool:
        """Whether the slices were computed and show no person."""

    @property
    def patient_ids(self) -> bool:
        """Whether the source knows its patients."""

    def __len__(self) -> int: ...

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Slices in a fixed order; a bad file comes as `LeftOut` and the rest goes on."""


def read_each(
    entries: Iterable[Entry],
    read_one: Callable[[Entry], RawSlice],
    describe: Callable[[Entry], str],
) -> Iterator[RawSlice | LeftOut]:
    """Read all entries in threads; one that fails, however it fails, is left out by name and the
    rest goes on.
    """
    return map_in_order(partial(_attempt, read_one, describe), entries)


def _attempt(
    read_one: Callable[[Entry], RawSlice], describe: Callable[[Entry], str], entry: Entry
) -> RawSlice | LeftOut:
    try:
        return read_one(entry)
    except DataError as error:
        return LeftOut(describe(entry), str(error))
    except Exception as error:  # A damaged file can make a decoder raise anything.
        return LeftOut(
            describe(entry),
            f"cannot be read: {' '.join(str(error).split()) or type(error).__name__}",
        )


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sorting key in which numbers count as numbers.

    >>> sorted(["10.mat", "9.mat"], key=natural_order)
    ['9.mat', '10.mat']
    """
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
