"""NIfTI volumes, with their masks: chosen slices of each become cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from robustmri.core.errors import DataError
from robustmri.data.readers.columns import parse_columns, refuse_columns
from robustmri.data.readers.files import Found, find_files, name_below
from robustmri.data.readers.layout import folder_label, parse_pattern, patient_in
from robustmri.data.readers.listing import (
    Listing,
    Lookup,
    Row,
    find_listing,
    fold_of,
    speaks_of_scans,
)
from robustmri.data.readers.names import FileNames, outnumber, stem_of
from robustmri.data.readers.nifti_volume import Volume, load_nibabel, read_volume
from robustmri.data.readers.slices import NOT_SQUARE, parse_slices
from robustmri.data.readers.source import Array, LeftOut, RawSlice, leave_out
from robustmri.data.readers.tables import is_table

NIFTI_SUFFIXES = (".nii", ".nii.gz")
MASK = re.compile(r"(.+)[_-](seg|mask|segmentation|roi|lesion)$", re.IGNORECASE)


@dataclass(frozen=True)
class NiftiVolumes:
    """Slices of each volume, in the plane in which it was acquired.

    A mask is a volume of the same name with `_seg` or `_mask` after it, or with that after the part
    that the volumes of a scan share; or what the table names. The patient is the table's, or the
    BIDS name `sub-XX` in the path; where neither is known, each file is a group of its own that is
    joined with what looks the same.
    """

    place = 12
    expects = "NIfTI volumes (.nii, .nii.gz)"
    options = ("columns", "slices", "patient_pattern")

    root: Path
    found: Found = field(compare=False)
    listing: Listing | None = None
    slices: str = "mask"
    no_patients: bool = False
    pattern: str = ""

    synthetic = False

    @classmethod
    def look(
        cls, path: Path, columns: str = "", slices: str = "", patient_pattern: str = ""
    ) -> NiftiVolumes | None:
        """The source, if there are at least as many volumes as images in a folder, or beside a
        table.
        """
        root = path.parent if is_table(path) else path
        if not root.is_dir() or not outnumber(root, is_nifti):
            return None
        load_nibabel()
        parse_slices(slices or "mask")
        parse_pattern(patient_pattern)
        named = parse_columns(columns)
        named = refuse_columns(named, ("plane", "outline"), "NIfTI volumes")
        listing = find_listing(path, named, speaks_of_scans)
        unknown = named.get("patient") == ""
        return cls(root, find_files(root), listing, slices or "mask", unknown, patient_pattern)

    @property
    def name(self) -> str:
        """Folder and kind."""
        return f"{self.root.resolve().name} (NIfTI)"

    @property
    def tables(self) -> tuple[Path, ...]:
        """The table that is read."""
        return (self.listing.table.path,) if self.listing else ()

    @property
    def patient_ids(self) -> bool:
        """Whether the table has the patients, or every path a BIDS name."""
        if self.no_patients:
            return False
        if self.listing and "patient" in self.listing.columns:
            # A table without images is looked up by the patients of the paths.
            return "image" in self.listing.columns or self._all_named
        return self._all_named

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed."""
        notes = list(self._lookup.notes) if self._lookup else []
        if not (self.listing and "label" in self.listing.columns):
            notes.append("the label is that of the first folder above each file")
        if self.patient_ids and not self._table_patients and not self.pattern:
            notes.append("the patient is the BIDS name in each path (sub-XX), which is a guess")
        if not self.patient_ids:
            notes.append("no patient ids: slices of one file stay together")
        choice = parse_slices(self.slices)
        said = f"read: {choice} of each volume"
        if choice.kind == "mask":
            said += " that has a mask, the middle third of the slices of the others"
        planes = ", ".join(f"{count} {plane}" for plane, count in sorted(self._planes.items()))
        return (*notes, said + (f"; planes: {planes}" if planes else ""))

    @property
    def _table_patients(self) -> bool:
        columns = self.listing.columns if self.listing else {}
        return {"patient", "image"} <= set(columns)

    @cached_property
    def _all_named(self) -> bool:
        return bool(self.pattern) or all(map(self._subject, self._volumes))

    @cached_property
    def _planes(self) -> Counter[str]:
        return Counter()

    @cached_property
    def _all(self) -> list[Path]:
        return [file for file in self.found.files if is_nifti(file)]

    @cached_property
    def _lookup(self) -> Lookup | None:
        if self.listing is None:
            return None
        files = tuple(file for file in self._all if not MASK.fullmatch(stem_of(file.name)))
        return Lookup(self.listing, FileNames(self.root, files))

    @cached_property
    def _masks(self) -> dict[Path, Path]:
        """Volume to its mask, by the table and by the names."""
        named = self._lookup.by_file.items() if self._lookup else ()
        every = FileNames(self.root, tuple(self._all))
        masks: dict[Path, Path] = {}
        for file, place in named:
            mask = _found(every, self._lookup.listing.row(place).mask) if self._lookup else None
            if mask is not None:
                masks[file] = mask
        bases = {
            (mask.parent, found[1]): mask
            for mask in self._all
            if (found := MASK.fullmatch(stem_of(mask.name)))
        }
        for file in self._all:
            stem = stem_of(file.name)
            if file in masks or MASK.fullmatch(stem):
                continue
            # The longest start of the name that has a mask: BraTS_1_t1ce and BraTS_1_seg.
            ends = [len(stem), *(found.start() for found in re.finditer(r"[_-]", stem))]
            fitting = (bases.get((file.parent, stem[:end])) for end in sorted(ends, reverse=True))
            mask = next((one for one in fitting if one is not None), None)
            if mask is not None:
                masks[file] = mask
        return masks

    @cached_property
    def _volumes(self) -> list[Path]:
        masks = set(self._masks.values())
        return [
            file
            for file in self._all
            if file not in masks and not MASK.fullmatch(stem_of(file.name))
        ]

    def __len__(self) -> int:
        return len(self._volumes)

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Slices, volume after volume, then what is no volume."""
        for file in self._volumes:
            try:
                yield from self._read_volume(file)
            except Exception as error:  # A damaged file can raise anything.
                yield leave_out(error, name_below(self.root, file))
        used = {*self._volumes, *self._masks.values(), *self.tables}
        for file in self.found.files:
            if file not in used:
                lone = is_nifti(file)
                reason = "a mask without its volume" if lone else "not a NIfTI file by its name"
                yield LeftOut(name_below(self.root, file), reason)
        yield from self.found.left_out
        if self._lookup:
            yield from self._lookup.unmatched()

    def _read_volume(self, file: Path) -> Iterator[RawSlice]:
        name = name_below(self.root, file)
        bids = self._subject(file)
        row = Row()
        if self._lookup:
            row = self._lookup.find(file, (), bids) or Row()
        label = row.label
        if not (self.listing and "label" in self.listing.columns):
            label = folder_label(file, self.root)
        if not label:
            raise DataError(
                f"no label: {self.listing.name} does not speak of it"
                if self.listing
                else "no label: it lies in no class folder, and no table names it"
            )
        patient = row.patient or ("" if self._table_patients else bids)
        if self.patient_ids and not patient:
            raise DataError("no patient: neither a table nor its path names one")
        if row.mask and file not in self._masks:
            raise DataError(f"the mask {row.mask!r} is missing")
        volume = read_volume(file)
        mask = self._read_mask(file, volume)
        lesion = None if mask is None else [bool(mask.slice(k).any()) for k in range(len(mask))]
        places = parse_slices(self.slices).choose(len(volume), lesion)
        if not places:
            raise DataError(
                f"none of its {len(volume)} slices is among: {parse_slices(self.slices)}"
            )
        self._planes[volume.plane or "unknown"] += 1
        for place in places:
            own = mask.slice(place) if mask is not None else None
            yield RawSlice(
                case_id=f"{name}/{place + 1}",
                label=label,
                patient_id=patient or None,
                image=volume.slice(place),
                mask=own if own is not None and own.any() else None,
                source=name,
                sha256=volume.sha256,
                fold=fold_of(row.fold),
                plane=volume.plane,
                notes=volume.notes if volume.is_square else (*volume.notes, NOT_SQUARE),
            )

    def _read_mask(self, file: Path, volume: Volume) -> Volume | None:
        """The mask of a volume, in its grid."""
        if file not in self._masks:
            return None
        name = name_below(self.root, self._masks[file])
        try:
            mask = read_volume(self._masks[file])
        except DataError as error:
            raise DataError(f"its mask {name}: {error}") from error
        if mask.voxels.shape != volume.voxels.shape or not np.allclose(
            mask.affine, volume.affine, atol=0.01
        ):
            raise DataError(f"its mask {name} has another grid: resample it to that of the volume")
        lesion: Array = mask.voxels > 0
        if not lesion.any() and self.slices == "mask":
            raise DataError(f"its mask {name} is empty; --slices middle or all would read it")
        # Cut along the same axis, whatever a rounding of its own spacing says.
        return Volume(lesion, volume.affine, volume.spacing_mm, mask.sha256)

    def _subject(self, file: Path) -> str:
        """The subject in a path by the pattern, or by the BIDS name; "" where there is none."""
        if self.pattern:
            return patient_in(name_below(self.root, file), parse_pattern(self.pattern))
        found = re.search(r"(?:^|[/_])(sub-[A-Za-z0-9]+)", name_below(self.root, file))
        return found[1] if found else ""


def is_nifti(file: Path) -> bool:
    """Whether a file is a NIfTI volume by its name."""
    return file.name.lower().endswith(NIFTI_SUFFIXES)


def _found(names: FileNames, cell: str) -> Path | None:
    try:
        return names.find(cell) if cell else None
    except DataError:
        return None
