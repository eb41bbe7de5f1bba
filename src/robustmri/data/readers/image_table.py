"""Images and a table of them: which class and which patient each shows and, if known, where the
lesion is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.readers.columns import parse_columns
from robustmri.data.readers.decode import IMAGE_SUFFIXES, not_black, rasterise, read_picture
from robustmri.data.readers.files import Found, find_files, name_below, read_regular
from robustmri.data.readers.layout import folder_label, parse_pattern, patient_in
from robustmri.data.readers.listing import (
    Listing,
    Lookup,
    Row,
    find_listing,
    fold_of,
    plane_of,
)
from robustmri.data.readers.names import FileNames
from robustmri.data.readers.npy import decode_npy
from robustmri.data.readers.source import Array, LeftOut, RawSlice, read_each
from robustmri.data.readers.tables import is_table

READABLE = (*IMAGE_SUFFIXES, ".npy")


@dataclass(frozen=True)
class ImagesWithTable:
    """Images below the folder of a table (in its `images/`, if there is one), one row a slice.

    A column `tumor_border_xy`, if there, holds the outline in pixels: "x1 y1 x2 y2 ..."; a column
    of masks names an image file whose pixels are not 0 inside the lesion.
    """

    place = 20
    expects = "a table (slice_id, label, patient_id; .csv, .xlsx, .parquet) with images/"
    options = ("columns", "patient_pattern")

    listing: Listing
    no_patients: bool = False
    pattern: str = ""

    synthetic = False

    @classmethod
    def look(
        cls, path: Path, columns: str = "", patient_pattern: str = ""
    ) -> ImagesWithTable | None:
        """The source, if `path` is a table or a folder with one that speaks of images in it."""
        named = parse_columns(columns)
        parse_pattern(patient_pattern)
        root = path.parent if is_table(path) else path
        if not root.is_dir():
            return None
        names: list[FileNames] = []  # Looked for only where there is a table.

        def fits(listing: Listing) -> bool:
            if listing.name == "slices.csv":
                return True
            if "image" not in listing.columns or not {"label", "patient"} & set(listing.columns):
                return False
            if not names:
                names.append(FileNames(root, tuple(_images(root, find_files(root)))))
            return any(_names_a_file(names[0], cell) for (cell,) in listing.cells("image"))

        listing = find_listing(path, named, fits)
        return cls(listing, named.get("patient") == "", patient_pattern) if listing else None

    @property
    def root(self) -> Path:
        """Folder of the table."""
        return self.listing.table.path.parent

    @property
    def name(self) -> str:
        """Folder and kind."""
        return f"{self.root.resolve().name} (images with a table)"

    @property
    def patient_ids(self) -> bool:
        """Whether the table has them; it must, unless it was said that nobody knows them."""
        return not self.no_patients

    @property
    def tables(self) -> tuple[Path, ...]:
        """The table that is read."""
        return (self.listing.table.path,)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken for what."""
        return tuple(self._lookup.notes)

    @cached_property
    def _lookup(self) -> Lookup:
        images = tuple(_images(self.root, self._found))
        return Lookup(self.listing, FileNames(self.root, images))

    @cached_property
    def _found(self) -> Found:
        return find_files(self.root)

    @cached_property
    def _masks(self) -> FileNames:
        images = set(self._lookup.by_file)
        files = [file for file in self._found.files if file not in images]
        own = [file for file in files if _folder(self.root, file) in MASK_FOLDERS]
        return FileNames(self.root, tuple(own or files))

    def __len__(self) -> int:
        return len(self.listing.table)

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Slices in the order of the table, then what is wrong with it, then the images that it
        does not list.
        """
        self._check_columns()
        lookup = self._lookup
        masks: set[Path] = set()
        listed = list(lookup.by_file)
        yield from read_each(
            listed, partial(self._read_file, masks), partial(name_below, self.root)
        )
        yield from lookup.unmatched()
        read = {*lookup.by_file, *masks, *self.tables}
        tried = set(lookup.names.files)
        for file in dict.fromkeys((*lookup.names.files, *self._found.files)):
            if file not in read:
                yield LeftOut(name_below(self.root, file), self._why(file, file in tried))
        # The folder of images is looked through even where it is a link.
        yield from (left for left in self._found.left_out if left.source != "images/")

    def _why(self, file: Path, tried: bool) -> str:
        """Why a file is none of the slices."""
        if tried:
            return f"not listed in {self.listing.name}: label and patient are unknown"
        if not file.name.lower().endswith(READABLE):
            return "not an image by its name"
        return f"neither in images/ nor a mask that {self.listing.name} names"

    def _check_columns(self) -> None:
        columns = self.listing.columns
        for role, own in (("image", "slice_id"), ("patient", "patient_id")):
            if role in columns or (role == "patient" and (self.no_patients or self.pattern)):
                continue
            also = (
                "; if nobody knows the patients, say so with --columns patient= and groups are "
                "inferred"
                if role == "patient"
                else ""
            )
            raise DataError(
                f"{self.listing.name} has no column {own}, nor another that is known to be the "
                f"{role}. Name it: --columns {role}=COLUMN (there are: "
                f"{', '.join(self.listing.table.columns)}){also}."
            )

    def _read_file(self, masks: set[Path], file: Path) -> RawSlice:
        row = self._lookup.find(file) or Row()
        label = row.label
        if "label" not in self.listing.columns:
            folder = self.root / "images"
            label = folder_label(file, folder if file.is_relative_to(folder) else self.root)
        if not label:
            raise DataError(
                f"no label in {self.listing.name}"
                if "label" in self.listing.columns
                else f"no label: {self.listing.name} has no column for it, and no class folder "
                "lies above"
            )
        name = name_below(self.root, file)
        # Never both: a column and a pattern may give one person two ids.
        column = "patient" in self.listing.columns
        patient = row.patient if column else patient_in(name, parse_pattern(self.pattern))
        if self.patient_ids and not patient:
            raise DataError(self._no_patient())
        content = read_regular(file)
        image, notes = decode(file, content)
        mask = _outlined(row.outline, image) if row.outline else None
        if row.mask:
            mask = self._read_mask(row.mask, masks)
        return RawSlice(
            case_id=row.image,
            label=label,
            patient_id=patient or None,
            image=image,
            mask=mask,
            source=name,
            sha256=hashlib.sha256(content).hexdigest(),
            fold=fold_of(row.fold),
            plane=plane_of(row.plane),
            notes=notes,
        )

    def _no_patient(self) -> str:
        if "patient" not in self.listing.columns:
            return "no patient: the pattern finds none in its path"
        reason = f"no patient_id in {self.listing.name}"
        if not self.pattern:
            return reason
        return f"{reason}, whose patients are taken, and not those of the pattern: add it there"

    def _read_mask(self, cell: str, masks: set[Path]) -> Array | None:
        file = self._masks.find(cell)
        if file is None:
            raise DataError(f"the mask {cell!r} is missing")
        masks.add(file)
        content = read_regular(file)
        if file.suffix.lower() == ".npy":
            return not_black(decode_npy(content))
        picture = read_picture(content)
        return not_black(picture.pixels, picture.lossy)


MASK_FOLDERS = ("masks", "mask", "segmentations")


def _images(root: Path, found: Found) -> list[Path]:
    """Images that a table in `root` may name: those in `images/`, or all but the masks."""
    folder = root / "images"
    if folder.is_symlink() and folder.is_dir():
        found = find_files(folder)
    files = [file for file in found.files if file.name.lower().endswith(READABLE)]
    if folder.is_dir():
        return [file for file in files if file.is_relative_to(folder)]
    return [file for file in files if _folder(root, file) not in MASK_FOLDERS]


def _folder(root: Path, file: Path) -> str:
    """First folder on the way to a file, "" where it lies in the root."""
    parts = file.relative_to(root).parts
    return parts[0].lower() if len(parts) > 1 else ""


def _names_a_file(names: FileNames, cell: str) -> bool:
    try:
        return names.find(cell) is not None
    except DataError:
        return True


def decode(file: Path, content: bytes) -> tuple[Array, tuple[str, ...]]:
    """Pixels of an image file, or of an array that numpy wrote, and what was done to them."""
    if file.suffix.lower() == ".npy":
        return decode_npy(content), ()
    picture = read_picture(content)
    return picture.pixels, picture.notes


def _outlined(border: str, image: Array) -> Array | None:
    try:
        numbers = np.array(border.split(), dtype=np.float64)
    except ValueError as error:
        raise DataError(f"tumor_border_xy is not a list of numbers: {border[:40]!r}") from error
    if len(numbers) % 2 or len(numbers) < 6 or not np.isfinite(numbers).all():
        raise DataError(
            f"tumor_border_xy needs three or more pairs x y, got {len(numbers)} numbers"
        )
    mask = rasterise(numbers.reshape(-1, 2), (image.shape[0], image.shape[1]))
    return mask if mask.any() else None
