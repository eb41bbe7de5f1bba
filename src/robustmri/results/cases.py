"""The table of outcomes from the side of the slices: what happened to each one of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import ResultError
from robustmri.results.budget import CLEAN, WORST, Budget
from robustmri.results.outcomes import COLUMNS, Outcomes, columns_of, find_right, met, read_table

NEEDED = ("index", "eps_image", "label_confidence", "fooled")
READ = (*COLUMNS, *NEEDED, "plane")
"""Columns that tell what became of a slice; besides these its distances in each norm."""
Fate = Literal["holds", "falls", "wrong"]
FATES: dict[Fate, str] = {
    "holds": "Right, and stays right",
    "falls": "Right, until it is attacked",
    "wrong": "Wrong untouched",
}
"""What can become of a slice, and how a reader is told."""


def say_fates(target: str) -> dict[Fate, str]:
    """`FATES` under an attacker who wants that class to be named, or any wrong one.

    >>> say_fates("glioma")["falls"]
    'Right, until it is called glioma'
    """
    if not target:
        return FATES
    told: dict[Fate, str] = {
        "holds": f"Right, and not called {target}",
        "falls": f"Right, until it is called {target}",
    }
    return FATES | told


@dataclass(frozen=True)
class CaseTable:
    """Outcomes, and which of their rows belong to which case.

    Cases are numbered 0 to n - 1 in the order of the table.

    Attributes:
        outcomes: the columns of the table.
        case_of: number of the case of each row.
    """

    outcomes: Outcomes
    case_of: npt.NDArray[np.intp]

    @classmethod
    def of(cls, outcomes: Outcomes) -> CaseTable:
        """Cases of a table, told apart by their ids, in the order in which they appear."""
        return cls(outcomes, met(outcomes["case_id"])[1])

    def __len__(self) -> int:
        return len(self.clean)

    @cached_property
    def clean(self) -> npt.NDArray[np.intp]:
        """The row of each case without an attack."""
        rows = np.flatnonzero(self.outcomes["attack"] == CLEAN)
        return rows[np.argsort(self.case_of[rows], kind="stable")]

    @cached_property
    def _grouped(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        order = np.argsort(self.case_of, kind="stable")
        starts = np.searchsorted(self.case_of[order], np.arange(len(self) + 1))
        return order, starts

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each case is named rightly when nobody attacks it."""
        return self._right[self.clean]

    @cached_property
    def _right(self) -> npt.NDArray[np.bool_]:
        return find_right(self.outcomes)

    @cached_property
    def _once(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    def column(self, name: str) -> npt.NDArray[Any]:
        """What does not depend on the attack, once for each case: label, patient_id, index ...
        It is kept, and not to be changed.
        """
        if name not in self._once:
            self._once[name] = self.outcomes[name][self.clean]
            self._once[name].flags.writeable = False
        return self._once[name]

    def rows(self, case: int) -> npt.NDArray[np.intp]:
        """Rows of one case."""
        order, starts = self._grouped
        return order[starts[case] : starts[case + 1]]

    def right_under(self, attack: str, at: Budget) -> npt.NDArray[np.int8]:
        """Of each case 1 if its answer is right under that attack (with a target: another one), 0
        if not, -1 if it did not meet it.
        """
        found = np.full(len(self), -1, dtype=np.int8)
        rows = self.outcomes.places(attack, at)
        found[self.case_of[rows]] = self._right[rows]
        return found

    def fates(self, attack: str, at: Budget) -> npt.NDArray[np.str_]:
        """A key of `FATES` for each case under that attack; empty where a right case did not meet
        it.
        """
        under = self.right_under(attack, at)
        words = np.where(under == 1, "holds", np.where(under == 0, "falls", ""))
        return np.where(self.right, words, "wrong")

    def smallest_eps(self, norm: str) -> npt.NDArray[np.float64]:
        """The smallest change that is known to fool each case, in image units of that norm: the
        radius of an attack that did, or the size of the nearest fooling image that was found; 0
        where the untouched slice is wrong already, infinite where none did.
        """
        rows, sizes = self._fooling(norm)
        smallest = np.full(len(self), np.inf)
        np.minimum.at(smallest, self.case_of[rows], sizes)
        return np.where(self.right, smallest, 0.0)

    def nearest_rows(self, norm: str) -> npt.NDArray[np.intp]:
        """The row of each case that `smallest_eps` speaks of; -1 where nothing fooled it."""
        rows, sizes = self._fooling(norm)
        nearest = np.full(len(self), -1, dtype=np.intp)
        order = np.argsort(-sizes, kind="stable")  # The smallest is written last.
        nearest[self.case_of[rows[order]]] = rows[order]
        return nearest

    def attacked_in(self, norm: str) -> npt.NDArray[np.bool_]:
        """Whether each case met an attack in that norm that wanted any wrong answer."""
        met = np.zeros(len(self), dtype=bool)
        met[self.case_of[self._tried(norm)]] = True
        return met

    @property
    def norms(self) -> list[str]:
        """In which something was tried, in order."""
        return [norm for norm in dict.fromkeys(map(str, self.outcomes["norm"])) if norm]

    def _tried(self, norm: str) -> npt.NDArray[np.bool_]:
        columns = self.outcomes
        tried = (columns["norm"] == norm) & (columns["target"] == "")
        tried &= (columns["attack"] != CLEAN) & (columns["attack"] != WORST)
        return np.asarray(tried, dtype=bool)

    def _fooling(self, norm: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Rows that fooled in that norm, and how large the change is that each is known to be."""
        columns = self.outcomes
        rows = np.flatnonzero(self._tried(norm) & columns["fooled"].astype(bool))
        sizes = columns["eps_image"][rows].astype(float)
        if f"distance_{norm}" in columns:
            found = columns[f"distance_{norm}"][rows].astype(float)
            sizes = np.where(np.isfinite(sizes), sizes, found)
        return rows, sizes


def is_of_cases(column: str) -> bool:
    """Whether a column of that name tells what became of a slice."""
    return column in READ or column.startswith("distance_")


def load_cases(folder: Path | str) -> CaseTable:
    """Read `folder/outcomes.parquet`.

    Raises:
        ResultError: no such file, damaged, without a needed column, or with a case that has not
            exactly one row without an attack.
    """
    table = read_table(folder, wanted=is_of_cases, coded=True)
    missing = [name for name in NEEDED if name not in table.column_names]
    if missing:
        raise ResultError(
            f"{folder}/outcomes.parquet lacks the columns {', '.join(missing)}. Evaluate again "
            "with this release."
        )
    coded = table.column("case_id").unify_dictionaries().combine_chunks()
    cases = CaseTable(columns_of(table), coded.indices.to_numpy().astype(np.intp))
    if not np.array_equal(cases.case_of[cases.clean], np.arange(len(coded.dictionary))):
        raise ResultError(
            f"{folder}/outcomes.parquet should hold one row without an attack for each slice. "
            "Evaluate again."
        )
    return cases
