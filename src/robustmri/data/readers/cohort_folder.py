"""A cohort that was prepared before, as a source: to split it in another way, or to make it
smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from robustmri.data.cohort import Cohort, is_cohort
from robustmri.data.readers.source import LeftOut, RawSlice
from robustmri.data.storage import Form


@dataclass(frozen=True)
class CohortFolder:
    """The slices of a cohort, in its order; their size is the cohort's."""

    place = 10
    expects = "a cohort folder"

    path: Path

    @classmethod
    def look(cls, path: Path) -> CohortFolder | None:
        """The source, if `path` is a cohort folder."""
        return cls(path) if is_cohort(path) else None

    @cached_property
    def _cohort(self) -> Cohort:
        return Cohort.open(self.path)

    @property
    def name(self) -> str:
        """The cohort's own."""
        return self._cohort.name

    @property
    def synthetic(self) -> bool:
        """Whether the cohort is."""
        return self._cohort.synthetic

    @property
    def patient_ids(self) -> bool:
        """Whether it knows its patients."""
        return self._cohort.groups == "patient"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was told when it was prepared."""
        return self._cohort.notes

    @property
    def form(self) -> Form:
        """What its slices became, which is not done to them a second time."""
        cohort = self._cohort
        return Form(cohort.size, cohort.channels, cohort.intensity, cohort.pad, scaled=True)

    def __len__(self) -> int:
        return len(self._cohort) + len(self._cohort.left_out)

    def read(self) -> Iterator[RawSlice | LeftOut]:
        """Slices in the cohort's order, then what was left out of it."""
        for case in self._cohort.cases:
            masks = None if case.lesion_box is None else self._cohort.masks([case.index])
            yield RawSlice(
                case_id=case.case_id,
                label=case.label,
                patient_id=case.patient_id if self.patient_ids else None,
                image=self._cohort.images[case.index],
                mask=None if masks is None else masks[0],
                source=case.source,
                sha256=case.sha256,
                fold=case.fold,
                plane=case.plane,
                before=(case.height, case.width),
            )
        yield from self._cohort.left_out
