"""What a reader of scans yields: slices as they came, and files that did not become one."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy.typing as npt

from robustmri.core.errors import DataError, RobustMRIError
from robustmri.data.parallel import map_in_order

Array = npt.NDArray[Any]
Entry = TypeVar("Entry")
Claimant = TypeVar("Claimant", bound=Hashable)
# What spreadsheets and programs write where they have nothing to say.
MISSING = frozenset(("", "nan", "none", "na", "n/a", "#n/a", "<na>", "nat", "null"))
# A seek to a place that a damaged file names; every other number is the system's trouble.
_OF_DAMAGE = (None, errno.EINVAL, errno.EOVERFLOW)


@dataclass(frozen=True)
class RawSlice:
    """One slice as it came: native depth and size.

    Attributes:
        image: shape (h, w), or (h, w, 3) where it has colours; rows run downwards, as the slice is
            looked at.
        mask: lesion, bool array of shape (h, w), or None.
        source: file name relative to the source (a member of a zip: "a.zip/1.mat").
        sha256: hash of the file's bytes; in an array of many images, of the image's own.
        fold: fold 1 to 5 that the authors of the data gave it.
        plane: "axial", "coronal", "sagittal", or "" where nobody says.
        notes: what was done to the file, or is in it and was not read; each is counted over the
            cohort and told once.
        before: height and width that it had before it was resized, where this is known.
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
    notes: tuple[str, ...] = ()
    before: tuple[int, int] | None = None


def weigh(thing: object) -> int:
    """Bytes of memory that a slice holds; nothing else counts."""
    if not isinstance(thing, RawSlice):
        return 0
    return int(thing.image.nbytes) + (0 if thing.mask is None else int(thing.mask.nbytes))


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
    """Read all entries in threads; one that is damaged, however that shows, is left out by name and
    the rest goes on.

    Raises:
        RobustMRIError: the system failed (too many open files, no memory, a file that is gone ...).
            The slices that follow would fail with it, and a smaller cohort would look whole.
    """
    return map_in_order(partial(_attempt, read_one, describe), entries, weigh=weigh)


def _attempt(
    read_one: Callable[[Entry], RawSlice], describe: Callable[[Entry], str], entry: Entry
) -> RawSlice | LeftOut:
    try:
        return read_one(entry)
    except Exception as error:  # A damaged file can make a decoder raise anything.
        return leave_out(error, describe(entry))


def leave_out(error: Exception, source: str) -> LeftOut:
    """What becomes of a file that could not be read.

    Raises:
        RobustMRIError: it may be sound; the system failed.
    """
    if isinstance(error, DataError):
        return LeftOut(source, str(error))
    if isinstance(error, RobustMRIError):
        raise error
    if isinstance(error, MemoryError) or "out of memory" in str(error):
        raise stop_on(error, source) from error
    if isinstance(error, OSError) and error.errno not in _OF_DAMAGE:
        raise stop_on(error, source) from error
    return LeftOut(
        source, f"cannot be read: {' '.join(str(error).split()) or type(error).__name__}"
    )


def stop_on(error: Exception, source: str) -> RobustMRIError:
    """The error that ends a run because the system failed at a file, in one sentence."""
    number = getattr(error, "errno", None)
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        what = "out of memory"
    remedy = {
        errno.EMFILE: "Allow more open files (ulimit -n) and run it again.",
        errno.ENFILE: "Close other programs, or allow more open files, and run it again.",
        errno.ENOENT: "It was there a moment ago, or is a link that leads nowhere: bring it back, "
        "or remove the link.",
        errno.ELOOP: "Remove this link.",
        errno.EACCES: "Make it readable, or move it away.",
        errno.EPERM: "Make it readable, or move it away.",
    }.get(number or 0, "Mend that, or move the file away, and run it again.")
    return RobustMRIError(
        f"{readable_name(source)} could not be read: {' '.join(what.split())}. This need not be "
        f"damage of the file, so nothing was written. {remedy}"
    )


def find_contested(claims: Iterable[tuple[Claimant, str]]) -> dict[Claimant, list[Claimant]]:
    """Entries that claim the same slice, each with the others: which one is meant, nobody knows.

    >>> find_contested([("1.jpg", "1"), ("1.png", "1"), ("2.png", "2")])
    {'1.jpg': ['1.png'], '1.png': ['1.jpg']}
    """
    entries: dict[str, list[Claimant]] = {}
    for entry, slice_id in claims:
        entries.setdefault(slice_id, []).append(entry)
    return {
        entry: [other for other in rivals if other != entry]
        for rivals in entries.values()
        if len(rivals) > 1
        for entry in rivals
    }


def is_missing(text: str | None) -> bool:
    """Whether a label or an id says nothing, as empty cells that became words do.

    >>> [is_missing(text) for text in (None, " ", "NaN", "None", "NA", "MR001")]
    [True, True, True, True, True, False]
    """
    return text is None or text.strip().casefold() in MISSING


def readable_name(name: str) -> str:
    r"""A file's name as text that can be stored and printed: bytes that are not UTF-8, and control
    characters, are spelt out.

    >>> readable_name("M\udcfcller\t.png")
    'M\\xfcller\\t.png'
    """
    return "".join(letter if letter.isprintable() else _spell_out(letter) for letter in name)


def _spell_out(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # How Python carries a byte that is not UTF-8.
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sorting key in which numbers count as numbers.

    >>> sorted(["10.mat", "9.mat"], key=natural_order)
    ['9.mat', '10.mat']
    """
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
