"""Two results of the same slices, paired: `comparison.json`, and what a report says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from robustmri.core.errors import ResultError
from robustmri.core.files import read_json, write_struct
from robustmri.results.budget import CLEAN, WORST, Budget

SCHEMA_VERSION = 1


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two classifiers, see `ModelFacts`, and the hash of its table of outcomes."""

    name: str
    backbone: str
    training: str
    checkpoint_sha256: str
    outcomes_sha256: str = ""


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """What one attack within one budget left of both, on the same slices.

    `first` and `second` are the shares of slices that stay right, `difference` is second minus
    first, `low` and `high` its 95 % interval by patient. `p_value` is that of a permutation of
    whole patients, `p_adjusted` the same by Holm over the rows of its table. `saved` slices are
    right with the second alone, `lost` ones with the first alone; so are patients, who count as
    right when more than half of their slices are, and `p_patients` is McNemar's exact test of them.
    `label` is a class, or empty for all.
    """

    attack: str
    title: str
    budget: Budget
    label: str = ""
    n: int
    n_patients: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    method: str
    p_value: float
    p_adjusted: float
    saved: int
    lost: int
    patients_saved: int
    patients_lost: int
    p_patients: float

    @property
    def decided(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    def turned(self) -> Paired:
        """The same with the second as the first."""
        return msgspec.structs.replace(
            self,
            first=self.second,
            second=self.first,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
            saved=self.lost,
            lost=self.saved,
            patients_saved=self.patients_lost,
            patients_lost=self.patients_saved,
        )


class PatientTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A patient's slices under the attack of the headline; see `Paired`."""

    patient_id: str
    label: str
    n: int
    first: int
    second: int
    saved: int
    lost: int


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a comparison found out.

    `scope` says in sentences what is compared and what is not; `numbers` has the untouched slices
    first, `classes` those of the untouched slices and of the headline, `patients` those that turned
    and no others.
    """

    first: Side
    second: Side
    repairs: bool
    at: Budget | None
    scope: list[str]
    numbers: list[Paired]
    classes: list[Paired]
    patients: list[PatientTurn]
    provenance: dict[str, Any] = {}
    schema_version: int = SCHEMA_VERSION

    @property
    def clean(self) -> Paired:
        """Of untouched slices."""
        return next(one for one in self.numbers if one.attack == CLEAN)

    @property
    def headline(self) -> Paired | None:
        """Of the worst case at the budget of the headline; None where both met no attack."""
        here = [one for one in self.numbers if self.at and one.budget == self.at]
        worst = [one for one in here if one.attack == WORST]
        return next(iter(worst or here), None)


def load_comparison(path: Path | str) -> Comparison:
    """Read the JSON beside a page of `compare`.

    Raises:
        ResultError: it is missing, damaged, something else or of another version.
    """
    again = "Compare again with this release."
    made: Comparison = read_json(path, Comparison, error=ResultError, again=again)
    if made.schema_version != SCHEMA_VERSION:
        raise ResultError(
            f"{path} has version {made.schema_version}, and this release reads {SCHEMA_VERSION}. "
            f"{again}"
        )
    return made


class _Trace(msgspec.Struct):
    """What a comparison of any version has, and no other file of ours."""

    first: dict[str, Any]
    second: dict[str, Any]
    numbers: list[Any]


def refuse_other_json(path: Path | str) -> None:
    """A comparison replaces only a comparison.

    Raises:
        ResultError: `path` is something else.
    """
    path = Path(path)
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return
    try:
        read_json(path, _Trace, error=ResultError)
    except ResultError as error:
        raise ResultError(
            f"{path} is there, and no comparison: the JSON beside the page would replace it. "
            "Choose another --out, or remove it first."
        ) from error


def save_comparison(comparison: Comparison, path: Path | str) -> Path:
    """Write it as JSON, atomically."""
    write_struct(path, comparison)
    return Path(path)
