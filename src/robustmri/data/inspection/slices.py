"""All slices of one or several cohorts in a row, each with its set and its person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from robustmri.core.errors import DataError
from robustmri.data.cases import Case
from robustmri.data.cohort import SPLIT, Cohort
from robustmri.data.intensity import to_grey
from robustmri.data.leakage import describe_slices
from robustmri.data.parallel import map_in_order
from robustmri.data.split import SETS, Split

UNSPLIT = "all"
"""Where a cohort has no split."""
Names = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Slices:
    """Slices of several cohorts, numbered from 0.

    Attributes:
        cohorts: in the order in which they were given.
        names: of the cohorts, by which they can be told apart.
        splits: of each cohort; None where it has none.
    """

    cohorts: tuple[Cohort, ...]
    names: tuple[str, ...]
    splits: tuple[Split | None, ...]

    @classmethod
    def of(cls, cohorts: Sequence[Cohort], *, named: bool = True) -> Slices:
        """The slices of these cohorts, which have the names of their folders or, not `named`,
        numbers.

        Raises:
            DataError: a cohort twice, or a split of another cohort.
        """
        roots = [cohort.root.resolve() for cohort in cohorts]
        for place, root in enumerate(roots):
            if root in roots[:place]:
                raise DataError(f"{cohorts[place].root} is named twice. Name each cohort once.")
        splits = tuple(
            Split.load(cohort.root) if (cohort.root / SPLIT).is_file() else None
            for cohort in cohorts
        )
        for cohort, split in zip(cohorts, splits, strict=True):
            if split is not None:
                split.check(cohort)
        names = [root.name if named else "cohort" for root in roots]
        if len(set(names)) < len(names) or not named:
            names = [f"{name} ({place + 1})" for place, name in enumerate(names)]
        return cls(tuple(cohorts), tuple(names), splits)

    def __len__(self) -> int:
        return sum(map(len, self.cohorts))

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """Of every slice."""
        return tuple(case for cohort in self.cohorts for case in cohort.cases)

    @cached_property
    def cohort(self) -> npt.NDArray[np.intp]:
        """Number of the cohort of every slice, shape (n,)."""
        return np.repeat(np.arange(len(self.cohorts)), [len(cohort) for cohort in self.cohorts])

    @cached_property
    def set(self) -> Names:
        """Set of every slice, shape (n,)."""
        parts = []
        for cohort, split in zip(self.cohorts, self.splits, strict=True):
            part = np.full(len(cohort), UNSPLIT, dtype=object)
            for name in SETS if split else ():
                part[list(getattr(split, name))] = name
            parts.append(part)
        return np.concatenate(parts)

    @cached_property
    def person(self) -> Names:
        """Group of every slice: its patient, ids that differ by a trailing letter held together."""
        return np.array([case.group for case in self.cases], dtype=object)

    @cached_property
    def label(self) -> Names:
        """Class of every slice."""
        return np.array([case.label for case in self.cases], dtype=object)

    @cached_property
    def place(self) -> npt.NDArray[np.intp]:
        """Number of the cohort and set of every slice: what has one number may be alike."""
        pairs = [f"{number} {name}" for number, name in zip(self.cohort, self.set, strict=True)]
        return np.unique(pairs, return_inverse=True)[1].ravel()

    @cached_property
    def descriptors(self) -> npt.NDArray[np.float32]:
        """Unit vectors whose inner products are correlations at 32 x 32 pixels."""
        return np.concatenate([describe_slices(cohort.images) for cohort in self.cohorts])

    def image(self, number: int) -> npt.NDArray[np.uint16]:
        """Pixels of one slice."""
        cohort = self.cohorts[self.cohort[number]]
        image: npt.NDArray[np.uint16] = cohort.images[self.cases[number].index]
        return image

    def each(self, measure: Callable[[npt.NDArray[np.uint16]], Any]) -> list[Any]:
        """What is measured on every slice, in their order; of colours on their brightness."""
        return [
            answer
            for cohort in self.cohorts
            for answer in map_in_order(lambda image: measure(to_grey(image)), cohort.images)
        ]

    def has_people(self, number: int) -> bool:
        """Whether this slice's cohort knows its patients."""
        cohort: Cohort = self.cohorts[self.cohort[number]]
        return cohort.groups == "patient"

    def where(self, number: int) -> str:
        """Cohort and set of a slice in words."""
        name = self.names[self.cohort[number]]
        part = str(self.set[number])
        return part if len(self.cohorts) == 1 else name if part == UNSPLIT else f"{name}, {part}"


def counted(number: int, thing: str, things: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "slice"), counted(2, "slice"), counted(0, "copy", "copies")
    ('1 slice', '2 slices', '0 copies')
    """
    return f"{number} {thing if number == 1 else things or thing + 's'}"
