"""What happened to each slice: the table `outcomes.parquet`, and the counts a report takes from
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.errors import ResultError
from robustmri.core.files import system_error
from robustmri.results.budget import CLEAN, Budget

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = (
    "case_id",
    "patient_id",
    "group",
    "label",
    "attack",
    "norm",
    "eps",
    "eps_units",
    "target",
    "prediction",
    "confidence",
)
NEEDED = {
    "outcomes": COLUMNS,
    "nearest_neighbour": ("index", "group", "right", "radius"),
    "regions": (*COLUMNS, "clean_prediction", "region", "region_area", "lesion_energy"),
    "saliency": ("group", "method", "in_lesion", "chance", "in_lesion_shuffled", "likeness"),
    "detection": ("group", "detector", "attacked", "threshold", "score", "turned", "score_jointly"),
}
"""Columns without which a table beside a result is of no use, by the table's name."""
Column = npt.NDArray[Any]
MOST_BYTES = 4 << 30
"""Of a table of outcomes in memory: ten million rows of thirty columns take 2.3 GiB."""


@dataclass(frozen=True)
class Outcomes(Mapping[str, Column]):
    """The table: a row for each slice, attack and budget.

    Labels, predictions and targets are class names; `group` is the patient, with ids that differ
    only by a trailing letter held together.

    Args:
        columns: by name, of equal length.
    """

    columns: Mapping[str, Column]

    def __getitem__(self, name: str) -> Column:
        """One column."""
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def identifiers(self) -> set[str]:
        """Every name that could lead to a patient."""
        return {
            str(value)
            for name in ("case_id", "patient_id", "group")
            for value in np.unique(self.columns[name])
        }

    def rows(self, attack: str, at: Budget) -> Outcomes:
        """Rows of one attack within one budget; the budget of clean slices does not matter."""
        return self.only(self.places(attack, at))

    def only(self, places: npt.NDArray[Any]) -> Outcomes:
        """The rows at these places, or those for which they say True."""
        return Outcomes({name: column[places] for name, column in self.columns.items()})

    def places(self, attack: str, at: Budget) -> npt.NDArray[np.intp]:
        """Where these rows are in the table."""
        keep = self["attack"] == attack
        if attack != CLEAN:
            eps = np.inf if at.eps is None else at.eps
            keep &= np.isclose(self["eps"].astype(float), eps, rtol=1e-6)
            keep &= (self["norm"] == at.norm) & (self["target"] == at.target)
            keep &= self["eps_units"] == at.eps_units
        return np.flatnonzero(keep)


def find_right(outcomes: Mapping[str, Column], target: str = "") -> npt.NDArray[np.bool_]:
    """Per row, whether the attack did not reach its goal: the label was kept, or the target was not
    wrongly named.

    `target` is asked of every row in place of its own, also of untouched slices, which are no
    attempt at it.
    """
    label, said = outcomes["label"], outcomes["prediction"]
    wanted = np.full(len(label), target, dtype=object) if target else outcomes["target"]
    missed = (said != wanted) | (label == wanted)
    return np.asarray(np.where(wanted != "", missed, said == label), dtype=bool)


def table_of(columns: Mapping[str, Any]) -> pa.Table:
    """A table of columns by name: arrays, or lists of values of one type each.

    The type of a list is that of its first value: left to look for it, Arrow tries an import for
    each column.
    """
    import pyarrow as pa

    kinds = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return pa.table(
        {
            name: pa.array(column, kinds[type(column[0])])
            if isinstance(column, list) and column
            else column
            for name, column in columns.items()
        }
    )


def numbered(column: npt.ArrayLike) -> tuple[list[str], npt.NDArray[np.intp]]:
    """Distinct values as text, sorted, and the place of each row's among them.

    >>> numbered(np.array(["b", "a", "b"], dtype=object))
    (['a', 'b'], array([1, 0, 1]))
    """
    own, places = met(column)
    order = sorted(range(len(own)), key=own.__getitem__)
    place = np.empty(len(own), dtype=np.intp)
    place[order] = np.arange(len(own))
    return [own[one] for one in order], place[places]


def met(column: npt.ArrayLike) -> tuple[list[str], npt.NDArray[np.intp]]:
    """The same in the order in which the values are met.

    By a table of hashes, since to sort ten million names takes minutes.

    >>> met(np.array(["b", "a", "b"], dtype=object))
    (['b', 'a'], array([0, 1, 0]))
    """
    import pyarrow as pa

    values = np.asarray(column)
    try:
        texts = values.dtype.kind in "UO"
        encoded = pa.array(values.astype(object), pa.string()) if texts else pa.array(values)
        encoded = encoded.dictionary_encode()
        plain = encoded.null_count == 0
    except pa.ArrowException:  # Of several kinds at once.
        plain = False
    if not plain:
        names, first, places = np.unique(values.astype(str), return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        return names[order].tolist(), place[places]
    return [str(one) for one in encoded.dictionary.to_pylist()], encoded.indices.to_numpy().astype(
        np.intp
    )


def columns_of(table: pa.Table) -> Outcomes:
    """Columns as numpy arrays: strings as objects, one for all equal ones; lists of one length as
    rows of shape (n, length).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {}
    for name in table.column_names:
        column = table[name]
        if column.null_count:
            columns[name] = column.to_numpy()
        elif pa.types.is_string(column.type) or pa.types.is_dictionary(column.type):
            coded = column.dictionary_encode().unify_dictionaries().combine_chunks()
            columns[name] = coded.dictionary.to_numpy(False)[coded.indices.to_numpy()]
        elif pa.types.is_list(column.type) and len(pc.unique(pc.list_value_length(column))) == 1:
            columns[name] = pc.list_flatten(column).to_numpy().reshape(len(column), -1)
        else:
            columns[name] = column.to_numpy()
    return Outcomes(columns)


def uncoded(table: pa.Table) -> pa.Table:
    """The table with its strings written out, as a file has them."""
    import pyarrow as pa

    fields = [
        pa.field(one.name, one.type.value_type) if pa.types.is_dictionary(one.type) else one
        for one in table.schema
    ]
    return table.cast(pa.schema(fields))


def read_table(
    folder: Path | str,
    name: str = "outcomes",
    *,
    wanted: Callable[[str], bool] = lambda column: True,
    coded: bool = False,
) -> pa.Table:
    """Read `folder/outcomes.parquet`, or another table beside it, by name.

    Args:
        folder: of the result.
        name: of the table.
        wanted: whether a column of that name is to be read.
        coded: whether equal strings are held once, which takes less time and half the memory.

    Raises:
        ResultError: no such file, damaged, or without a column of `NEEDED`.
    """
    import pyarrow
    import pyarrow.parquet

    path = Path(folder) / f"{name}.parquet"
    needed = NEEDED.get(name, ())
    if not path.is_file():
        raise ResultError(
            f"{folder} holds no {path.name} beside its robustness.json. Evaluate again."
        )
    try:
        words = pyarrow.parquet.read_schema(path) if coded else ()
        words = [one.name for one in words if pyarrow.types.is_string(one.type)]
        with pyarrow.parquet.ParquetFile(path, read_dictionary=words) as file:
            missing = [column for column in needed if column not in file.schema_arrow.names]
            columns = [one for one in file.schema_arrow.names if wanted(one)]
            table = read_bounded(file, path, columns)
    except (pyarrow.ArrowException, OSError, MemoryError) as error:
        reason = str(error).partition("\n")[0][:160]
        raise system_error(error, path) or ResultError(
            f"{path} is damaged or incomplete ({reason}). Evaluate again."
        ) from error
    if missing:
        raise ResultError(
            f"{path} lacks the columns {', '.join(missing)}. Evaluate again with this release."
        )
    return table


def read_bounded(file: Any, path: Path, columns: list[str] | None) -> pa.Table:
    """All batches; a small file may repeat one row without end."""
    import pyarrow as pa

    batches, held = [file.schema_arrow.empty_table().select(columns or file.schema_arrow.names)], 0
    for batch in file.iter_batches(columns=columns):
        batches.append(pa.Table.from_batches([batch]).select(batches[0].column_names))
        # As an array each value takes eight bytes, however few it took in the file.
        held += max(batch.nbytes, 8 * batch.num_rows * batch.num_columns)
        if held > MOST_BYTES:
            raise ResultError(
                f"{path} takes more than {MOST_BYTES >> 20} MiB once it is read. Evaluate fewer "
                "slices at a time (--limit)."
            )
    return pa.concat_tables(batches)


def load_outcomes(folder: Path | str) -> Outcomes:
    """The columns that a report needs; errors as `read_table`'s."""
    return columns_of(read_table(folder, wanted=COLUMNS.__contains__, coded=True))


class ClassCount(msgspec.Struct, frozen=True):
    """Slices of one class that are right, untouched and under attack: named rightly or, with a
    target, not named as it.
    """

    label: str
    n: int
    clean: int
    attacked: int


def count_classes(
    clean: Outcomes, attacked: Outcomes, classes: Sequence[str], target: str = ""
) -> list[ClassCount]:
    """Right answers per class, of the same slices twice; classes without a slice are left out."""
    before, after = find_right(clean, target), find_right(attacked)
    counts = []
    for label in classes:
        here, there = clean["label"] == label, attacked["label"] == label
        if here.any():
            counts.append(
                ClassCount(label, int(here.sum()), int(before[here].sum()), int(after[there].sum()))
            )
    return counts


class PatientFates(msgspec.Struct, frozen=True):
    """Patients by how many of their slices are right: named rightly or, with a target, not named
    as it.
    """

    every: int
    some: int
    none: int

    @property
    def total(self) -> int:
        """Number of patients."""
        return self.every + self.some + self.none


def count_patients(outcomes: Outcomes, target: str = "") -> PatientFates:
    """Sort patients (groups) into those whose slices are all, partly or never right in these
    rows.
    """
    groups, of = numbered(outcomes["group"])
    kept = np.bincount(of, weights=find_right(outcomes, target), minlength=len(groups))
    total = np.bincount(of, minlength=len(groups))
    every, never = int((kept == total).sum()), int((kept == 0).sum())
    return PatientFates(every, len(groups) - every - never, never)


def confidence_when_fooled(clean: Outcomes, attacked: Outcomes, target: str = "") -> float | None:
    """Median confidence in the wrong answer, over the slices that the attack turned (see
    `count_turned`); None if none fell.
    """
    fell = _open_to_it(clean, attacked, target) & ~find_right(attacked)
    return float(np.median(attacked["confidence"][fell].astype(float))) if fell.any() else None


class Turned(msgspec.Struct, frozen=True):
    """Answers that a change turned, of those that it could have turned."""

    turned: int
    of: int

    @property
    def share(self) -> float:
        """As a fraction; 0 where there was none to turn."""
        return self.turned / self.of if self.of else 0.0


def count_turned(clean: Outcomes, attacked: Outcomes, target: str = "") -> Turned:
    """Slices that are named rightly untouched, and wrongly under attack; with a target, those that
    are called so under attack, of those that are not untouched. What was wrong anyway is no work of
    the attacker's.
    """
    there = _open_to_it(clean, attacked, target)
    return Turned(int((there & ~find_right(attacked)).sum()), int(there.sum()))


def _open_to_it(clean: Outcomes, attacked: Outcomes, target: str) -> npt.NDArray[np.bool_]:
    """Of each attacked row, whether its slice was right untouched."""
    right = set(clean["case_id"][find_right(clean, target)])
    return np.array([case in right for case in attacked["case_id"]], dtype=bool)
