"""A table that lies with scans: which row speaks of which file, series or patient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from robustmri.core.errors import DataError
from robustmri.data.readers.columns import describe_columns, find_columns, written_twice
from robustmri.data.readers.names import FileNames
from robustmri.data.readers.source import LeftOut, is_missing
from robustmri.data.readers.tables import LISTED, Table, is_table, read_table

LOOKED = 200
"""Rows of a table that are looked at to see whether it speaks of the scans beside it."""


class Row(NamedTuple):
    """What a table says of one image; "" where it says nothing."""

    image: str = ""
    label: str = ""
    patient: str = ""
    mask: str = ""
    plane: str = ""
    fold: str = ""
    outline: str = ""


@dataclass(frozen=True)
class Listing:
    """A table and what its columns are.

    Attributes:
        columns: role to column.
        guessed: the sentence that says so.
    """

    table: Table
    columns: Mapping[str, str]
    guessed: str = ""

    @property
    def name(self) -> str:
        """Of the file."""
        return self.table.path.name

    def cells(self, *roles: str) -> Iterator[tuple[str, ...]]:
        """Cells of the columns of these roles, row by row."""
        return self.table.rows([self.columns[role] for role in roles])

    def row(self, place: int) -> Row:
        """A row by its place, from 0; the words that stand for nothing are empty."""
        cells = self.table.row(place, list(self.columns.values()))
        known = ("" if is_missing(cell) else cell for cell in cells)
        return Row(**dict(zip(self.columns, known, strict=True)))


def find_listing(
    path: Path, named: Mapping[str, str], fits: Callable[[Listing], bool]
) -> Listing | None:
    """The table at `path`, or the one that fits in the folder `path`.

    Args:
        path: a table, which is taken, or a folder.
        named: what `parse_columns` gave.
        fits: whether a table in a folder is meant, by its columns and its first rows.

    Raises:
        DataError: several tables fit, or a table that was given does not.
    """
    if is_table(path):
        return open_listing(path, named)
    if not path.is_dir():
        return None
    fitting: list[Path] = []
    unsure: list[DataError] = []
    for table in sorted(file for file in path.iterdir() if is_table(file)):
        try:
            if fits(open_listing(table, named, rows=LOOKED)):
                fitting.append(table)
        except DataError as error:
            if table.name == "slices.csv":
                raise
            unsure.append(error)
    own = [table for table in fitting if table.name == "slices.csv"]
    if len(own or fitting) > 1:
        raise DataError(
            f"{path} has several tables of slices ({', '.join(table.name for table in fitting)}). "
            "Give the path of the one you mean."
        )
    if not fitting and named and unsure:
        raise unsure[0]
    return open_listing((own or fitting)[0], named) if fitting else None


def speaks_of_scans(listing: Listing) -> bool:
    """Whether a table says of images or patients what they show, or of images whose they are."""
    known = {"image", "patient"} & set(listing.columns)
    return bool(known) and ("label" in listing.columns or len(known) == 2)


def open_listing(path: Path, named: Mapping[str, str], rows: int | None = None) -> Listing:
    """A table, or its first rows, with its columns found."""
    table = read_table(path, rows=rows)
    columns = find_columns(table.columns, named, path.name)
    said = describe_columns(table.columns, columns, named)
    return Listing(table, columns, f"{path.name}: {'; '.join(filter(None, (table.how, said)))}")


@dataclass
class Lookup:
    """Rows of a table by the file, the id or the patient that they speak of; every row that speaks
    of nothing is told. Of a large table only places are kept.
    """

    listing: Listing
    names: FileNames
    by_file: dict[Path, int] = field(default_factory=dict)
    by_id: dict[str, int] = field(default_factory=dict)
    by_patient: dict[str, int] = field(default_factory=dict)
    bad: dict[Path | str, str] = field(default_factory=dict)
    problems: list[LeftOut] = field(default_factory=list)
    unnamed: int = 0
    notes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.notes.append(self.listing.guessed)
        self.problems += self.listing.table.left_out
        if "image" in self.listing.columns:
            self._by_image()
        elif "patient" in self.listing.columns:
            self._by_patient()
        self._tell_numbers()

    def _by_image(self) -> None:
        for place, (cell,) in enumerate(self.listing.cells("image")):
            if is_missing(cell):
                self._tell(f"row {self.listing.table.number_of(place)}", "the row names no image")
                continue
            try:
                file = self.names.find(cell)
            except DataError as error:
                self._tell(f"slice {cell!r}", str(error))
                continue
            before = self.by_file.get(file) if file else self.by_id.get(cell)
            if before is not None:
                self._tell_double(file, cell, before, place)
            elif file:
                self.by_file[file] = place
            else:
                self.by_id[cell] = place

    def _tell_double(self, file: Path | None, cell: str, before: int, place: int) -> None:
        """Two rows about one image: the same twice, or nobody knows which is meant."""
        first, second = (self.listing.row(one)._replace(image="") for one in (before, place))
        if first == second:
            self._tell(f"slice {cell!r}", "a row that says the same stands above it")
            return
        self.bad[file or cell] = reason = f"{self.listing.name} says two things of it, in two rows"
        if not file:
            self.used.add(cell)
            self._tell(f"slice {cell!r}", reason)

    def _by_patient(self) -> None:
        told: dict[tuple[str, str], set[str]] = {}
        roles = [role for role in ("label", "fold") if role in self.listing.columns]
        for place, (patient, *cells) in enumerate(self.listing.cells("patient", *roles)):
            if is_missing(patient):
                self._tell(f"row {self.listing.table.number_of(place)}", "the row names no patient")
                continue
            key = patient_key(patient)
            for role, cell in zip(roles, cells, strict=True):
                told.setdefault((key, role), set()).add(cell)
            self.by_patient.setdefault(key, place)
        for (key, role), several in told.items():
            if len(several) > 1:
                self.by_patient.pop(key, None)
                said = ", ".join(sorted(several))
                self._tell(f"patient {key!r}", f"the table gives it several {role}s ({said})")

    def _tell(self, what: str, reason: str) -> None:
        if len(self.problems) < LISTED:
            self.problems.append(LeftOut(f"{self.listing.name}: {what}", reason))
        else:
            self.unnamed += 1

    def _tell_numbers(self) -> None:
        for role in ("patient", "label"):
            column = self.listing.columns.get(role)
            for ways in written_twice(self.listing.table.distinct(column) if column else ()):
                self.notes.append(
                    f"{role}s {', '.join(map(repr, ways))} may be one {role} written in several "
                    f"ways; they are kept as different {role}s: write it in one way in the table "
                    "if they are the same"
                )

    def find(self, file: Path, ids: Iterable[str] = (), patient: str = "") -> Row | None:
        """The row of a file, None where there is none.

        Raises:
            DataError: the table contradicts itself about it.
        """
        if file in self.bad:
            raise DataError(self.bad[file])
        if file in self.by_file:
            return self.listing.row(self.by_file[file])
        for one in ids:
            if one in self.bad:
                raise DataError(self.bad[one])
            if one in self.by_id:
                self.used.add(one)
                return self.listing.row(self.by_id[one])
        key = patient_key(patient)
        if not patient or key not in self.by_patient:
            return None
        self.used.add(key)
        return self.listing.row(self.by_patient[key])

    def unmatched(self) -> Iterator[LeftOut]:
        """What is wrong with the table, and its rows that no file was found for."""
        name = self.listing.name
        yield from self.problems
        if self.unnamed:
            yield LeftOut(name, f"{self.unnamed} more rows have such faults")
        missing = [cell for cell in self.by_id if cell not in self.used]
        for cell in missing[:LISTED]:
            yield LeftOut(f"{name}: slice {cell!r}", "the image file is missing")
        if len(missing) > LISTED:
            yield LeftOut(name, f"the image file is missing for {len(missing) - LISTED} more rows")
        absent = [patient for patient in self.by_patient if patient not in self.used]
        if absent:
            yield LeftOut(
                name, f"{len(absent)} patients of the table have no scan here (first: {absent[0]})"
            )


def patient_key(patient: str) -> str:
    """A patient's id as two places write it: "sub-01" of BIDS is "01"."""
    return patient.removeprefix("sub-")


def plane_of(text: str) -> str:
    """The plane that a cell names, "" where it is none.

    >>> plane_of("Axial"), plane_of("sag"), plane_of("transverse"), plane_of("oblique")
    ('axial', 'sagittal', 'axial', '')
    """
    names = {"ax": "axial", "tra": "axial", "cor": "coronal", "sag": "sagittal"}
    return next((name for start, name in names.items() if text.lower().startswith(start)), "")


def fold_of(text: str) -> int | None:
    """The fold 1 to 5 that a cell names, None where it is none."""
    return int(text) if text in tuple("12345") else None
