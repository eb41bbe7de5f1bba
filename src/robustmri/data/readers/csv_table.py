"""A folder of images with a CSV: slice_id, label, patient_id and, if known, the outline of the
lesion.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.readers.decode import IMAGE_SUFFIXES, decode_image, rasterise
from robustmri.data.readers.source import Array, LeftOut, RawSlice, read_each

COLUMNS = ("slice_id", "label", "patient_id")


@dataclass(frozen=True)
class ImagesWithCsv:
    """Images `images/<slice_id>.jpg` (or .png, .tif ...; or beside the CSV) and a table of them.

    The column `tumor_border_xy`, if there, holds the outline in pixels: "x1 y1 x2 y2 ...".
    """

    place = 20
    expects = "slices.csv (slice_id, label, patient_id) with images/"

    table: Path

    synthetic = False
    patient_ids = True

    @classmethod
    def look(cls, path: Path) -> ImagesWithCsv | None:
        """The source, if `path` is such a CSV or a folder with one."""
        if path.is_file() and path.suffix.lower() == ".csv":
            return cls(path)
        if (path / "slices.csv").is_file():
            return cls(path / "slices.csv")
        tables = sorted(path.glob("*.csv")) if path.is_dir() else []
        fitting = [table for table in tables if set(COLUMNS) <= set(_header(table))]
        if len(fitting) > 1:
            names = ", ".join(table.name for table in fitting)
            raise DataError(
                f"{path} has several tables of slices ({names}). Give the path of the one you mean."
            )
        return cls(fitting[0]) if fitting else None

    @property
    def name(self) -> str:
        """Folder and kind."""
        return f"{self.table.parent.resolve().name} (images with CSV)"

    def __len__(self) -> int:
        return len(read_table(self.table))

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Slices in the order of the table, then the images that it does not list."""
        rows = read_table(self.table)
        missing = [column for column in COLUMNS if column not in _header(self.table)]
        if missing:
            raise DataError(
                f"{self.table} has no column {', '.join(missing)}. Expected {', '.join(COLUMNS)}; "
                "without patient ids put the images into one folder for each class instead."
            )
        files = self._files()
        listed = {row["slice_id"] for row in rows}

        def read_one(row: dict[str, str]) -> RawSlice:
            return self._read_row(row, files)

        yield from read_each(rows, read_one, lambda row: self._describe(row, files))
        for slice_id, file in files.items():
            if slice_id not in listed:
                yield LeftOut(
                    self._relative(file),
                    f"not listed in {self.table.name}: label and patient are unknown",
                )

    def _files(self) -> dict[str, Path]:
        """Image file of each slice id."""
        folder = self.table.parent / "images"
        folder = folder if folder.is_dir() else self.table.parent
        return {
            file.stem: file
            for file in sorted(folder.iterdir())
            if file.suffix.lower() in IMAGE_SUFFIXES
        }

    def _relative(self, file: Path) -> str:
        return file.relative_to(self.table.parent).as_posix()

    def _describe(self, row: dict[str, str], files: dict[str, Path]) -> str:
        file = files.get(row["slice_id"])
        return self._relative(file) if file else f"{self.table.name}: slice {row['slice_id']!r}"

    def _read_row(self, row: dict[str, str], files: dict[str, Path]) -> RawSlice:
        slice_id = row["slice_id"]
        for column in COLUMNS:
            if not row[column]:
                raise DataError(f"no {column} in {self.table.name}")
        if slice_id not in files:
            raise DataError("the image file is missing")
        content = files[slice_id].read_bytes()
        image = decode_image(content)
        return RawSlice(
            case_id=slice_id,
            label=row["label"],
            patient_id=row["patient_id"],
            image=image,
            mask=_mask(row.get("tumor_border_xy", ""), image),
            source=self._relative(files[slice_id]),
            sha256=hashlib.sha256(content).hexdigest(),
        )


def _header(table: Path) -> list[str]:
    with open(table, encoding="utf-8-sig", errors="replace") as stream:
        return [name.strip().strip('"') for name in stream.readline().split(",")]


def _mask(border: str, image: Array) -> Array | None:
    if not border:
        return None
    try:
        numbers = np.array(border.split(), dtype=np.float64)
    except ValueError as error:
        raise DataError(f"tumor_border_xy is not a list of numbers: {border[:40]!r}") from error
    if len(numbers) % 2 or len(numbers) < 6 or not np.isfinite(numbers).all():
        raise DataError(
            f"tumor_border_xy needs three or more pairs x y, got {len(numbers)} numbers"
        )
    mask = rasterise(numbers.reshape(-1, 2), image.shape)
    return mask if mask.any() else None


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a header; a byte-order mark is allowed."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            return [
                {
                    key.strip(): (value or "").strip()
                    for key, value in row.items()
                    if key is not None
                }
                for row in csv.DictReader(stream)
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a CSV file in UTF-8 ({error}). Save it again as CSV."
        ) from error
