from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustmri.core.errors import DataError
from robustmri.data.cohort import Cohort
from robustmri.data.leakage import check_leakage, infer_groups, near_duplicates
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.source import RawSlice
from robustmri.data.split import make_split
from scans import SliceList, draw, slices_of


def sixteen(image: np.ndarray) -> np.ndarray:
    return image.astype(np.uint16) * 257


def stack(patients: int, slices: int, size: int = 96) -> np.ndarray:
    return np.stack([sixteen(draw(p, n, size)) for p in range(patients) for n in range(slices)])


def test_copies_are_found_through_compression_and_brightness() -> None:
    images = stack(6, 1)
    compressed = np.asarray(Image.fromarray(draw(2, 0, 96)).resize((48, 48)).resize((96, 96)))
    brighter = images[4] // 5 * 4 + 9000
    pairs = near_duplicates(
        np.concatenate([images, sixteen(compressed)[None], brighter[None].astype(np.uint16)])
    )
    assert pairs == [(2, 6), (4, 7)]


def test_the_threshold_decides() -> None:
    images = stack(2, 2)
    assert near_duplicates(images, 0.5) == [(0, 1), (2, 3)]
    assert near_duplicates(images, 0.9999) == []


def test_blocks_meet_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.concatenate([stack(7, 1), stack(7, 1)])
    monkeypatch.setattr("robustmri.data.leakage.BLOCK", 3)
    assert near_duplicates(images) == [(i, i + 7) for i in range(7)]


def test_stacks_become_groups_even_with_copies_among_them() -> None:
    images = stack(5, 4)
    copies = images[[0, 0, 0, 6]]
    groups = infer_groups(np.concatenate([images, copies]))
    np.testing.assert_array_equal(groups, [*np.repeat(np.arange(5), 4), 0, 0, 0, 1])


def test_a_slice_that_no_other_counts_among_its_nearest_stays_alone() -> None:
    rng = np.random.default_rng(0)
    along, across, middle = (np.kron(rng.normal(size=(32, 32)), np.ones((3, 3))) for _ in range(3))
    # The cosine of the angle is the correlation.
    angles = [(0.0, 0.4), (-0.18, 0.0), (0.0, 0.0), (0.18, 0.0)]
    images = np.stack(
        [30000 + 2000 * (middle + np.tan(a) * along + np.tan(b) * across) for a, b in angles]
    )
    np.testing.assert_array_equal(infer_groups(images.astype(np.uint16)), [0, 1, 1, 1])


def test_a_flat_image_joins_no_group() -> None:
    images = np.concatenate([stack(2, 3), np.zeros((2, 96, 96), dtype=np.uint16)])
    groups = infer_groups(images)
    assert len(set(groups[-2:]) | {groups[0], groups[3]}) == 4


def status(findings: list) -> list[str]:
    return [finding.status for finding in findings]


def test_a_patient_wise_split_passes(cohort: Cohort) -> None:
    findings = check_leakage(cohort, make_split(cohort))
    assert status(findings) == ["pass"] * 5
    assert "none of 12 patient ids is in two sets" in findings[0].detail
    assert not any(finding.case_ids for finding in findings)


def test_a_slice_wise_split_warns_with_numbers_and_ids(cohort: Cohort) -> None:
    findings = check_leakage(cohort, make_split(cohort, "slice"))
    assert status(findings)[:2] == ["warn", "warn"]
    assert "of 12 patient ids are in two sets or more" in findings[0].detail
    assert findings[0].case_ids


def test_one_patient_on_both_sides_fails_a_patient_wise_split(cohort: Cohort) -> None:
    split = make_split(cohort)
    moved = split.train[0]
    broken = replace(split, train=split.train[1:], test=tuple(sorted((*split.test, moved))))
    findings = check_leakage(cohort, broken)
    assert status(findings)[:2] == ["fail", "fail"]
    patient = cohort.cases[moved].patient_id
    assert set(findings[0].case_ids) == {
        case.case_id for case in cohort.cases if case.patient_id == patient
    }


def test_ids_with_another_letter_fail_as_a_group_but_warn_in_the_authors_folds(
    tmp_path: Path,
) -> None:
    items = [
        replace(item, patient_id="P000B", fold=2)
        if isinstance(item, RawSlice) and item.patient_id == "P003"
        else item
        for item in slices_of(20, fold=lambda patient: 1 + patient % 5)
    ]
    released = [replace(item, source=f"{item.case_id}.mat") for item in items]
    for name, given, expected in (("release", released, "warn"), ("table", items, "fail")):
        cohort = write_cohort(SliceList(given), tmp_path / name, size=32)
        split = make_split(cohort, "folds", fold=1)
        assert split.folds_source.startswith("authors") == (name == "release")
        assert status(check_leakage(cohort, split))[:2] == ["pass", expected]


def test_the_same_slice_under_two_patients_is_seen(tmp_path: Path) -> None:
    items = [item for item in slices_of() if isinstance(item, RawSlice)]
    twin = next(item for item in items if item.patient_id == "P003")
    items = [replace(item, image=twin.image) if item.case_id == "0-0" else item for item in items]
    cohort = write_cohort(SliceList(list(items)), tmp_path / "cohort", size=32)
    seen = set()
    for seed in range(8):
        copies, finding = check_leakage(cohort, make_split(cohort, seed=seed))[2:4]
        seen.add(finding.status)
        if finding.status == "warn":
            assert copies.status == "fail"
            assert {"0-0", twin.case_id} == set(copies.case_ids)
            assert {"0-0", twin.case_id} <= set(finding.case_ids)
    assert "warn" in seen


def test_copies_within_one_set_are_no_leak(tmp_path: Path) -> None:
    items = [item for item in slices_of() if isinstance(item, RawSlice)]
    copies = [replace(item, case_id=f"{item.case_id}-copy") for item in items]
    cohort = write_cohort(SliceList([*items, *copies]), tmp_path / "cohort", size=32)
    assert len(near_duplicates(cohort.images)) >= len(items)
    assert status(check_leakage(cohort, make_split(cohort))) == ["pass"] * 5


def test_patients_under_two_names_are_seen(tmp_path: Path) -> None:
    items = [item for item in slices_of() if isinstance(item, RawSlice)]
    twins = [
        replace(item, case_id=f"{item.case_id}-again", patient_id=f"Q{item.patient_id[1:]}")
        for item in items
    ]
    cohort = write_cohort(SliceList([*items, *twins]), tmp_path / "cohort", size=32)
    for split in (make_split(cohort), make_split(cohort, "none")):
        finding = check_leakage(cohort, split)[-1]
        assert finding.name == "no patient under two names"
        assert finding.status == "fail"
        assert finding.case_ids
    assert "24 patients have a slice that looks like one of another" in finding.detail


def test_a_split_of_another_cohort_is_refused(cohort: Cohort) -> None:
    with pytest.raises(DataError, match="belongs to cohort"):
        check_leakage(cohort, replace(make_split(cohort), cohort_fingerprint="other"))


def test_inferred_groups_never_pass_as_patients(cohort: Cohort) -> None:
    guessed = replace(cohort, groups="inferred")
    assert status(check_leakage(guessed, make_split(guessed)))[0] == "warn"
