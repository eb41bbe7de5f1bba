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
from robustmri.data.readers.tables import Table, is_table, read_table

LOOKED = 200
"""Rows of a table that are looked at to see whether it speaks of the scans beside it."""
LISTED = 1000
"""Rows without a file that are named one by one; the rest is counted."""


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

    def rows(self) -> Iterator[Row]:
        """All rows in their order."""
        roles = list(self.columns)
        for cells in self.table.rows([self.columns[role] for role in roles]):
            yield Row(**dict(zip(roles, cells, strict=True)))


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
    of nothing is told.
    """

    listing: Listing
    names: FileNames
    by_file: dict[Path, Row] = field(default_factory=dict)
    by_id: dict[str, Row] = field(default_factory=dict)
    by_patient: dict[str, Row] = field(default_factory=dict)
    bad: dict[Path, str] = field(default_factory=dict)
    problems: list[LeftOut] = field(default_factory=list)
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
        known: dict[str, Row | None] = {}
        for row in self.listing.rows():
            where = f"{self.listing.name}: slice {row.image!r}"
            if is_missing(row.image):
                self.problems.append(LeftOut(where, "the row names no image"))
                continue
            try:
                file = self.names.find(row.image)
            except DataError as error:
                self.problems.append(LeftOut(where, str(error)))
                continue
            before = self.by_file.get(file) if file else known.get(row.image)
            if before is None:
                if file:
                    self.by_file[file] = row
                else:
                    known[row.image] = self.by_id[row.image] = row
            elif before._replace(image="") == row._replace(image=""):
                self.problems.append(LeftOut(where, "a row that says the same stands above it"))
            elif file:
                self.bad[file] = f"{self.listing.name} says two things of it, in two rows"
            else:
                self.by_id.pop(row.image, None)
                self.problems.append(LeftOut(where, "the table says two things of it"))

    def _by_patient(self) -> None:
        several: dict[str, set[str]] = {}
        for row in self.listing.rows():
            if is_missing(row.patient):
                self.problems.append(LeftOut(self.listing.name, "a row names no patient"))
                continue
            key = patient_key(row.patient)
            several.setdefault(key, set()).add(row.label)
            self.by_patient.setdefault(key, row)
        for key, labels in several.items():
            if len(labels) > 1:
                row = self.by_patient.pop(key)
                said = ", ".join(sorted(labels))
                self.problems.append(
                    LeftOut(
                        f"{self.listing.name}: patient {row.patient!r}",
                        f"the table gives the patient several labels ({said})",
                    )
                )

    def _tell_numbers(self) -> None:
        rows = [*self.by_file.values(), *self.by_id.values(), *self.by_patient.values()]
        for role in ("patient", "label"):
            for ways in written_twice({getattr(row, role) for row in rows}):
                self.notes.append(
                    f"{role}s {', '.join(map(repr, ways))} may be one number written in several "
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
            return self.by_file[file]
        for one in ids:
            if one in self.by_id:
                self.used.add(one)
                return self.by_id[one]
        row = self.by_patient.get(patient_key(patient)) if patient else None
        if row:
            self.used.add(patient_key(patient))
        return row

    def unmatched(self) -> Iterator[LeftOut]:
        """What is wrong with the table, and its rows that no file was found for."""
        yield from self.problems
        missing = [row for key, row in self.by_id.items() if key not in self.used]
        for row in missing[:LISTED]:
            yield LeftOut(f"{self.listing.name}: slice {row.image!r}", "the image file is missing")
        if len(missing) > LISTED:
            yield LeftOut(
                self.listing.name, f"the image file is missing for {len(missing) - LISTED} more"
            )
        absent = [row for key, row in self.by_patient.items() if key not in self.used]
        if absent:
            yield LeftOut(
                self.listing.name,
                f"{len(absent)} patients of the table have no scan here (first: "
                f"{absent[0].patient})",
            )


def patient_key(patient: str) -> str:
    """A patient's id as two places write it: "sub-01" of BIDS is "01"."""
    return patient.removeprefix("sub-")


def replace_missing(row: Row) -> Row:
    """A row whose words for nothing are empty."""
    return Row(*("" if is_missing(cell) else cell for cell in row))


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
