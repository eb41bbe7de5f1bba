"""Who is trained on and who is tested on: patient-wise, slice-wise, or five folds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError, SettingsError, did_you_mean
from robustmri.core.files import fingerprint, read_json, write_json

if TYPE_CHECKING:
    from robustmri.data.cases import Case
    from robustmri.data.cohort import Cohort

Kind = Literal["patient", "slice", "folds", "none"]
KINDS = ("patient", "slice", "folds", "none")
SETS = ("train", "validation", "test")
FOLDS = 5
AUTHORS, TABLE = "authors (cvind.mat)", "the table's column fold"
TRIALS = 200  # Random assignments among which the best balanced is kept.
DEALT = 200_000  # Units in all trials together, so that thousands of them take seconds.


class _Sealed(msgspec.Struct, frozen=True):
    fingerprint: str


@dataclass(frozen=True, repr=False)
class Split:
    """Three disjoint sets of case indexes.

    Attributes:
        kind: "patient" (no patient in two sets), "slice" (the poster's), "folds" (patient-wise,
            five test sets) or "none" (every slice is tested: external validation).
        fold: test fold 1 to 5, for "folds".
        cohort_fingerprint: cohort that the indexes belong to.
        note: one sentence on what this split does to the numbers.
        folds_source: who made the folds: `AUTHORS` (of the figshare release), `TABLE` (the column
            `fold` of a table that came with the scans), "robustmri", or "" without folds.
    """

    kind: Kind
    seed: int
    fold: int | None
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    cohort_fingerprint: str
    note: str
    folds_source: str = ""

    def __repr__(self) -> str:
        sets = ", ".join(f"{name} {len(getattr(self, name))}" for name in SETS)
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"Split by {self.kind}{fold}, seed {self.seed}: {sets} slices"

    @property
    def fingerprint(self) -> str:
        """Of the sets and the cohort; 16 hexadecimal digits."""
        return fingerprint([self.train, self.validation, self.test, self.cohort_fingerprint])

    def check(self, cohort: Cohort) -> None:
        """Raise `DataError` where the split was made for another cohort."""
        if self.cohort_fingerprint != cohort.fingerprint:
            raise DataError(
                f"This split belongs to cohort {self.cohort_fingerprint}, but {cohort.root} is "
                f"{cohort.fingerprint}. Split it again: robustmri prepare makes cohort and split "
                "together."
            )

        rows = (*self.train, *self.validation, *self.test)
        if len(set(rows)) < len(rows) or not all(0 <= row < len(cohort) for row in rows):
            raise DataError(
                f"This split names slices twice, or slices that {cohort.root} does not have. Make "
                "it again with robustmri prepare."
            )

    def save(self, path: str | Path) -> None:
        """Write the split as JSON, atomically."""
        write_json(path, asdict(self) | {"fingerprint": self.fingerprint})

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read a split file, or the split.json of a cohort folder."""
        path = Path(path)
        path = path / "split.json" if path.is_dir() else path
        again = "Make it again with robustmri prepare."
        split: Split = read_json(path, Split, again=again)
        if split.fingerprint != read_json(path, _Sealed, again=again).fingerprint:
            raise DataError(
                f"{path} was changed after it was written. Make it again with robustmri prepare."
            )
        return split


def make_split(
    cohort: Cohort,
    kind: Kind = "patient",
    *,
    seed: int = 0,
    fold: int | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
) -> Split:
    """Divide a cohort into train, validation and test, every class in each, in the given fractions.

    Args:
        cohort: what to divide.
        kind: "patient" keeps every patient in one set, "slice" ignores patients, "folds" tests on
            one of five folds (the source's where every case has one, else robustmri's own) and
            takes validation patients from the rest; "none" tests on everything, for a classifier
            that was trained elsewhere.
        seed: the same seed gives the same split.
        fold: test fold 1 to 5 (1 if not given); for "folds" only.
        fractions: shares of train, validation and test; for "folds" the first two divide the rest.

    Raises:
        DataError: one class only, or a class with fewer patients (or slices) than there are sets.
    """
    if kind not in KINDS:
        raise SettingsError(f"split {kind!r} is not known. {did_you_mean(kind, KINDS)}")
    if min(fractions) <= 0 or not abs(sum(fractions) - 1) <= 1e-6:
        raise SettingsError(f"fractions must be three positive shares with sum 1, got {fractions}.")
    if fold is not None and (kind != "folds" or not 1 <= fold <= FOLDS):
        raise SettingsError(
            f"fold must be 1 to {FOLDS} and goes with split 'folds', got fold {fold} and {kind!r}."
        )
    if kind == "none":
        everything = tuple(range(len(cohort)))
        note = _note(cohort, kind, ((), (), everything), fold, "")
        return Split(kind, seed, fold, (), (), everything, cohort.fingerprint, note)
    if len({case.label for case in cohort.cases}) < 2:
        raise DataError(f"{cohort.root} has one class only; a split needs two or more.")
    folds_source = ""
    if kind == "folds":
        fold = fold or 1
        if any(case.fold is None for case in cohort.cases):
            folds_source = "robustmri"
            folds = _assign(cohort, cohort.cases, (1 / FOLDS,) * FOLDS, seed) + 1
        else:
            # The figshare release alone is read from such files.
            released = all(case.source.endswith(".mat") for case in cohort.cases)
            folds_source = AUTHORS if released else TABLE
            folds = _given_folds(cohort.cases)
        rest = [case for case, number in zip(cohort.cases, folds, strict=True) if number != fold]
        shares = (fractions[0] / sum(fractions[:2]), fractions[1] / sum(fractions[:2]))
        part = _assign(cohort, rest, shares, seed)
        where = np.full(len(cohort.cases), SETS.index("test"))
        where[[case.index for case in rest]] = part
    else:
        where = _assign(cohort, cohort.cases, fractions, seed, slices_alone=kind == "slice")
    train, validation, test = (
        tuple(np.flatnonzero(where == number).tolist()) for number in range(3)
    )
    note = _note(cohort, kind, (train, validation, test), fold, folds_source)
    return Split(kind, seed, fold, train, validation, test, cohort.fingerprint, note, folds_source)


_NAME_PATIENTS = (
    "The source names no patients, so slices that look alike count as one; if they are of several "
    "patients, name these in a table or with --patient-pattern."
)


def _given_folds(cases: Sequence[Case]) -> npt.NDArray[np.int64]:
    folds = np.array([case.fold for case in cases])
    if set(folds.tolist()) != set(range(1, FOLDS + 1)):
        raise DataError(
            f"The cases are in folds {sorted(set(folds.tolist()))}, expected each of 1 to {FOLDS}."
        )
    return folds


def _assign(
    cohort: Cohort,
    cases: Sequence[Case],
    shares: tuple[float, ...],
    seed: int,
    *,
    slices_alone: bool = False,
) -> npt.NDArray[np.int64]:
    """Set number of each case: groups whole, classes stratified, shares of each class as near as
    possible.

    Each trial deals the groups out in random order, each to the set that lacks most of its slices;
    the trial whose shares are nearest to the wanted ones is kept.
    """
    units, member = np.unique(
        [str(case.index) if slices_alone else case.group for case in cases], return_inverse=True
    )
    labels, label_of = np.unique([case.label for case in cases], return_inverse=True)
    counts = np.zeros((len(units), len(labels)))
    np.add.at(counts, (member, label_of), 1)
    inferred = cohort.groups == "inferred" and not slices_alone
    unit = "slices" if slices_alone else "inferred patients" if inferred else "patients"
    for label, number in zip(labels, (counts > 0).sum(axis=0), strict=True):
        if number < len(shares):
            raise DataError(
                f"Class {str(label)!r} has {number} {unit}, fewer than the {len(shares)} sets that "
                "each need one. Add cases of this class, or leave it out."
                + (f" {_NAME_PATIENTS}" if inferred else "")
            )
    target = np.outer(shares, counts.sum(axis=0))
    rng = np.random.default_rng(seed)
    best, best_distance = None, np.inf
    # Where there are many units, any dealing comes near the shares.
    for _ in range(1 if slices_alone else max(1, min(TRIALS, DEALT // len(units)))):
        where = _deal(counts, target, rng)
        sums = np.zeros_like(target)
        np.add.at(sums, (where[member], label_of), 1)
        distance = float(np.abs(sums - target).max(axis=0).sum())
        if sums.all() and distance < best_distance:
            best, best_distance = where, distance
    if best is None:
        raise DataError(
            f"No way was found to keep {unit} together and have each class in all {len(shares)} "
            f"sets: too few {unit}."
        )
    return best[member]


def _deal(
    counts: npt.NDArray[Any], target: npt.NDArray[Any], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    missing = target.copy()
    where = np.zeros(len(counts), dtype=np.int64)
    for unit in rng.permutation(len(counts)):
        where[unit] = np.argmax((missing / target) @ counts[unit])
        missing[where[unit]] -= counts[unit]
    return where


def _in_several(sets: Iterable[Iterable[int]], key: Callable[[int], str]) -> set[str]:
    """What slices of more than one set have in common."""
    found = [{key(index) for index in indexes} for indexes in sets]
    return {name for name in set().union(*found) if sum(name in one for one in found) > 1}


def _note(
    cohort: Cohort,
    kind: Kind,
    sets: tuple[tuple[int, ...], ...],
    fold: int | None,
    folds_source: str,
) -> str:
    inferred = cohort.groups == "inferred"
    unit = "inferred groups of slices" if inferred else "patients"
    seen, _, tested = ({cohort.cases[index].group for index in indexes} for indexes in sets)
    divided = _in_several(sets, lambda index: cohort.cases[index].group)
    if kind == "slice":
        return (
            f"Slice-wise: {len(seen & tested)} of the {len(tested)} {unit} in the test set also "
            "have slices in the training set, so the accuracy is inflated and says nothing about "
            "new patients."
        )
    if kind == "none":
        return (
            "External validation: every slice is tested, and none was set aside for training, so "
            "the accuracy is one for this source of scans."
        )
    if _in_several(sets, lambda index: cohort.cases[index].patient_id):
        return (
            f"Fold {fold} of {FOLDS} folds by {folds_source}, which divide {unit}: "
            f"{len(divided)} have slices in more than one set, so the accuracy is inflated and "
            "says nothing about new patients."
        )
    start = (
        "Patient-wise"
        if kind == "patient"
        else f"Fold {fold} of {FOLDS} patient-wise folds by {folds_source}"
    )
    if inferred:
        return (
            f"{start}, with patients inferred from near-duplicate slices because the source has no "
            "patient ids: slices of one person that look different still lie on both sides, so "
            "the accuracy is inflated."
        )
    if divided:
        return (
            f"{start}, but {len(divided)} patients have slices in more than one set under ids that "
            "differ by a trailing letter, so the accuracy is somewhat inflated."
        )
    return (
        f"{start}: no patient has slices in more than one set, so the accuracy is one for new "
        "patients."
    )
