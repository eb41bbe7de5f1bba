"""Look for leakage, and for what is odd, in cohorts before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustmri.core.errors import DataError
from robustmri.core.files import as_folders, write_json
from robustmri.core.progress import Progress, silent
from robustmri.data.cohort import Cohort

if TYPE_CHECKING:
    from robustmri.data.inspection.found import Gap, Inspection
    from robustmri.data.inspection.probe import Probe


def inspect(
    cohorts: Sequence[str | Path],
    *,
    report: str | Path | None = None,
    json: str | Path | None = None,
    images: bool = True,
    progress: Progress = silent,
) -> Inspection:
    """Look for leakage within and across cohorts: patients, ids, copies, classes, planes, odd
    slices, and what a slice-wise split of them would flatter.

    Args:
        cohorts: folders made by `prepare`.
        report: HTML page to write.
        json: JSON file to write.
        images: False leaves out every picture, id and name of a folder.
        progress: told about the slices compared.

    Raises:
        DataError: no cohort, one named twice, or a damaged one.
        ResultError: `report` is something else than a page of ours.
    """
    from robustmri.data.inspection.balance import check_balance, count_classes
    from robustmri.data.inspection.found import Inspection
    from robustmri.data.inspection.oddities import check_oddities, find_oddities
    from robustmri.data.inspection.people import check_people, pair_ids
    from robustmri.data.inspection.planes import check_planes, find_planes
    from robustmri.data.inspection.probe import probe_gap
    from robustmri.data.inspection.slices import Slices
    from robustmri.data.inspection.twins import check_twins, find_twins
    from robustmri.report.html import refuse_other_page
    from robustmri.report.inspection import write_inspection

    if not cohorts:
        raise DataError("Name at least one cohort. Make one: robustmri prepare SOURCE --out COHORT")
    if report is not None:
        refuse_other_page(report)
    slices = Slices.of([Cohort.open(root) for root in as_folders(cohorts)], named=images)
    twins, counts = find_twins(slices, progress), count_classes(slices)
    planes, oddities = find_planes(slices), find_oddities(slices)
    gaps = [_measure_gap(probe) for probe in probe_gap(slices)]
    found = Inspection(
        slices=slices,
        findings=(
            *check_people(slices),
            *check_twins(slices, twins),
            check_balance(slices, counts),
            *check_planes(slices, planes),
            *check_oddities(slices, oddities),
        ),
        twins=tuple(twins),
        alike_ids=tuple(pair_ids(slices)),
        counts=tuple(counts),
        planes=planes,
        oddities=tuple(oddities),
        gaps=tuple(gaps),
    )
    if report is not None:
        write_inspection(found, report, images=images)
    if json is not None:
        write_json(json, found.as_plain(ids=images))
    return found


def _measure_gap(probe: Probe) -> Gap:
    from robustmri.data.inspection.found import Gap
    from robustmri.evaluation.intervals import paired_difference

    gain = paired_difference(probe.patient_wise, probe.slice_wise, probe.people)
    return Gap(
        cohort=probe.cohort,
        n_slices=len(probe.people),
        n_patients=gain.n_patients,
        slice_wise=float(probe.slice_wise.mean()),
        patient_wise=float(probe.patient_wise.mean()),
        low=gain.low,
        high=gain.high,
    )
