"""What an inspection found, and the same as plain data for a JSON file."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robustmri.data.inspection.balance import Count
from robustmri.data.inspection.oddities import Oddity
from robustmri.data.inspection.slices import Slices
from robustmri.data.inspection.twins import Twins, is_leak, is_one_person
from robustmri.data.leakage import Finding

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Gap:
    """What a nearest neighbour gains in one cohort by other slices of the same patients.

    Attributes:
        slice_wise: share of slices whose nearest other slice has their class.
        patient_wise: the same, slices of the same patient left out.
        low: lower bound of the 95 % interval of their difference, by patient; likewise `high`.
    """

    cohort: int
    n_slices: int
    n_patients: int
    slice_wise: float
    patient_wise: float
    low: float
    high: float

    @property
    def sentence(self) -> str:
        """The gap in one sentence."""
        points = 100 * (self.slice_wise - self.patient_wise)
        return (
            f"A nearest neighbour at 32 x 32 pixels is right on {100 * self.slice_wise:.1f} % of "
            f"{self.n_slices} slices where it may look at other slices of the same patient, and on "
            f"{100 * self.patient_wise:.1f} % where it may not: a slice-wise split would flatter "
            f"by {points:.1f} points [95 % interval over {self.n_patients} patients: "
            f"{100 * self.low:.1f} to {100 * self.high:.1f}]."
        )


@dataclass(frozen=True)
class Inspection:
    """What was found in one or several cohorts.

    Attributes:
        findings: each passes, warns or fails; one that fails is leakage, or a slice of two classes.
        twins: slices that look like one.
        alike_ids: pairs of ids that one person may have, in different sets or cohorts.
        counts: slices and patients by cohort, set and class.
        planes: of every slice.
    """

    slices: Slices
    findings: tuple[Finding, ...]
    twins: tuple[Twins, ...]
    alike_ids: tuple[tuple[str, str], ...]
    counts: tuple[Count, ...]
    planes: npt.NDArray[np.object_]
    oddities: tuple[Oddity, ...]
    gaps: tuple[Gap, ...]

    @property
    def leaks(self) -> list[Finding]:
        """Findings that failed."""
        return [found for found in self.findings if found.status == "fail"]

    def as_plain(self, *, ids: bool = True) -> dict[str, Any]:
        """For JSON; without `ids` no case and no patient is named."""
        slices = self.slices

        def named(number: int) -> dict[str, Any]:
            case = slices.cases[number]
            where = {"cohort": int(slices.cohort[number]), "set": str(slices.set[number])}
            return where | ({"case_id": case.case_id, "patient_id": case.patient_id} if ids else {})

        return {
            "schema_version": SCHEMA_VERSION,
            "cohorts": [
                {
                    "name": name,
                    "fingerprint": cohort.fingerprint,
                    "split": split.kind if split else "",
                    "slices": len(cohort),
                    "patients": cohort.n_patients,
                    "groups": cohort.groups,
                    "classes": list(cohort.classes),
                    "planes": dict(Counter(self.planes[slices.cohort == number].tolist())),
                }
                for number, (name, cohort, split) in enumerate(
                    zip(slices.names, slices.cohorts, slices.splits, strict=True)
                )
            ],
            "leakage": bool(self.leaks),
            "findings": [
                asdict(found) | {"case_ids": list(found.case_ids) if ids else []}
                for found in self.findings
            ],
            "pairs": [
                {
                    "first": named(pair.first),
                    "second": named(pair.second),
                    "kind": pair.kind,
                    "correlation": round(pair.correlation, 5),
                    "leak": is_leak(slices, pair),
                    "one_person": is_one_person(slices, pair),
                }
                for pair in self.twins
            ],
            "alike_ids": [list(pair) for pair in self.alike_ids] if ids else [],
            "classes": [asdict(count) for count in self.counts],
            "odd": [
                named(one.number) | {"kind": one.kind, "reason": one.reason}
                for one in self.oddities
            ],
            "slice_wise_gap": [asdict(gap) | {"sentence": gap.sentence} for gap in self.gaps],
        }
