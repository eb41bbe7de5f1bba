"""Sources of slices: what a reader yields, and which reader fits a folder."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from robustmri.data.parallel import map_in_order
from robustmri.errors import DataError, SettingsError, did_you_mean

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
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


def open_source(path: str | Path) -> Source:
    """Source at `path`, its kind found by looking.

    Args:
        path: folder or zip of the figshare release, folder of images with a CSV, class folders, or the word `phantom`,
            with settings if wanted: `phantom:patients=90,slices=8,seed=3`.

    Raises:
        DataError: nothing there that a reader knows.
    """
    if re.match(r"phantom(:|$)", str(path)):
        return _open_phantom(str(path))
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist. Expected a folder of scans, a zip, or the word 'phantom'.")
    from robustmri.data.class_folder_reader import ClassFolders
    from robustmri.data.csv_reader import ImagesWithCsv
    from robustmri.data.figshare_reader import FigshareRelease

    for reader in (ImagesWithCsv, FigshareRelease, ClassFolders):
        source: Source | None = reader.look(path)
        if source is not None:
            return source
    raise DataError(
        f"{path} holds no scans that robustmri can read. Expected one of: .mat files or zips of the figshare release; "
        "slices.csv (slice_id, label, patient_id) with images/; one folder of images for each class."
    )


def _open_phantom(text: str) -> Source:
    from robustmri.data.phantom import PhantomSource

    names = {"patients": "patients", "slices": "slices_per_patient", "size": "size", "seed": "seed"}
    settings: dict[str, int] = {}
    for part in filter(None, text.partition(":")[2].split(",")):
        key, _, value = part.partition("=")
        if key not in names:
            raise SettingsError(f"The phantom has no setting {key!r}. {did_you_mean(key, names)}")
        try:
            settings[names[key]] = int(value)
        except ValueError as error:
            raise SettingsError(f"phantom:{part}: expected a whole number, got {value!r}.") from error
    source: Source = PhantomSource(**settings)
    return source


def read_each(
    entries: Iterable[Entry], read_one: Callable[[Entry], RawSlice], describe: Callable[[Entry], str]
) -> Iterator[RawSlice | LeftOut]:
    """Read all entries in threads; one that fails, however it fails, is left out by name and the rest goes on."""
    return map_in_order(partial(_attempt, read_one, describe), entries)


def _attempt(
    read_one: Callable[[Entry], RawSlice], describe: Callable[[Entry], str], entry: Entry
) -> RawSlice | LeftOut:
    try:
        return read_one(entry)
    except DataError as error:
        return LeftOut(describe(entry), str(error))
    except Exception as error:  # A damaged file can make a decoder raise anything.
        return LeftOut(describe(entry), f"cannot be read: {' '.join(str(error).split()) or type(error).__name__}")


def decode_image(content: bytes) -> Array:
    """Grey values of an image file, of its own depth: 8-bit, 16-bit and floating point stay what they are."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
            return np.asarray(image if deep else image.convert("L"))
    except UnidentifiedImageError as error:  # Its own words name a buffer in memory.
        raise DataError(f"not an image: {len(content)} bytes of no known format") from error


def rasterise(outline: Array, shape: tuple[int, int]) -> Array:
    """Mask of a polygon, its border included.

    Args:
        outline: corners, shape (n, 2), x before y, in pixels.
        shape: height and width of the mask.
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (shape[1], shape[0]), 0)
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    return np.asarray(canvas).astype(bool)


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sorting key in which numbers count as numbers.

    >>> sorted(["10.mat", "9.mat"], key=natural_order)
    ['9.mat', '10.mat']
    """
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a header; a byte-order mark is allowed."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            return [
                {key.strip(): (value or "").strip() for key, value in row.items() if key is not None}
                for row in csv.DictReader(stream)
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8 ({error}). Save it again as CSV.") from error
