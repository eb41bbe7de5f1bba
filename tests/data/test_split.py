from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from robustmri.core.errors import DataError, SettingsError
from robustmri.data.cases import Case, group_of
from robustmri.data.cohort import Cohort
from robustmri.data.prepare import write_cohort
from robustmri.data.readers.tables import read_table
from robustmri.data.split import Split, make_split
from scans import SHARED, SliceList, slices_of

SETS = ("train", "validation", "test")


def cohort_of(
    patients: list[tuple[str, str, int, int | None]], groups: str = "patient", source: str = ""
) -> Cohort:
    """A cohort without a folder, from (patient id, label, slices, fold)."""
    cases: list[Case] = []
    labels = sorted({label for _, label, _, _ in patients})
    for patient, label, slices, fold in patients:
        for _ in range(slices):
            cases.append(
                Case(
                    index=len(cases),
                    case_id=str(len(cases)),
                    label=label,
                    class_index=labels.index(label),
                    patient_id=patient,
                    group=group_of(patient),
                    source=source,
                    sha256="",
                    height=8,
                    width=8,
                    plane="",
                    fold=fold,
                    lesion_box=None,
                )
            )
    return Cohort(
        root=Path("cohort"),
        name="test",
        classes=tuple(labels),
        size=8,
        intensity="minmax",
        groups=groups,  # type: ignore[arg-type]
        synthetic=True,
        cases=tuple(cases),
        left_out=(),
        fingerprint="0123456789abcdef",
    )


def many(count: int = 60, fold: bool = False, source: str = "") -> Cohort:
    """Patients with 1 to 25 slices in two classes of unequal size."""
    patients = [
        (f"P{i}", "glioma" if i % 3 else "meningioma", 1 + i * 7 % 25, 1 + i % 5 if fold else None)
        for i in range(count)
    ]
    return cohort_of(patients, source=source)


def groups_in(cohort: Cohort, indexes: tuple[int, ...]) -> set[str]:
    return {cohort.cases[index].group for index in indexes}


def assert_partition(cohort: Cohort, split: Split) -> None:
    assert sorted(split.train + split.validation + split.test) == list(range(len(cohort)))
    for name in SETS:
        indexes = getattr(split, name)
        assert list(indexes) == sorted(indexes)
        assert {cohort.cases[index].label for index in indexes} == set(cohort.classes)


def assert_patients_apart(cohort: Cohort, split: Split) -> None:
    sets = [groups_in(cohort, getattr(split, name)) for name in SETS]
    assert sum(map(len, sets)) == len(set.union(*sets))


@pytest.mark.parametrize("seed", range(5))
def test_patient_wise_keeps_patients_apart_and_classes_balanced(seed: int) -> None:
    cohort = many()
    split = make_split(cohort, seed=seed)
    assert_partition(cohort, split)
    assert_patients_apart(cohort, split)
    total = Counter(case.label for case in cohort.cases)
    for name, share in zip(SETS, (0.7, 0.15, 0.15), strict=True):
        counts = Counter(cohort.cases[index].label for index in getattr(split, name))
        for label in cohort.classes:
            assert counts[label] / total[label] == pytest.approx(share, abs=0.02)
    assert "no patient has slices in more than one set" in split.note


def test_slice_wise_has_exact_fractions_and_counts_the_shared_patients() -> None:
    cohort = many()
    split = make_split(cohort, "slice")
    assert_partition(cohort, split)
    total = Counter(case.label for case in cohort.cases)
    for name, share in zip(SETS, (0.7, 0.15, 0.15), strict=True):
        counts = Counter(cohort.cases[index].label for index in getattr(split, name))
        for label in cohort.classes:
            assert abs(counts[label] - share * total[label]) < 1.5
    tested, trained = groups_in(cohort, split.test), groups_in(cohort, split.train)
    assert f"{len(tested & trained)} of the {len(tested)} patients in the test set" in split.note
    assert "inflated and says nothing about new patients" in split.note


def test_the_seed_decides() -> None:
    cohort = many()
    assert make_split(cohort, seed=1) == make_split(cohort, seed=1)
    for kind in ("patient", "slice", "folds"):
        assert make_split(cohort, kind, seed=1).test != make_split(cohort, kind, seed=2).test  # type: ignore[arg-type]


def test_no_patient_is_always_trained_on() -> None:
    cohort = many()
    largest = max(
        cohort.cases, key=lambda case: Counter(other.group for other in cohort.cases)[case.group]
    ).group
    splits = [make_split(cohort, seed=seed) for seed in range(12)]
    homes = {
        name
        for split in splits
        for name in SETS
        if largest in groups_in(cohort, getattr(split, name))
    }
    assert len(homes) >= 2


def test_ids_that_differ_by_a_trailing_letter_stay_together() -> None:
    patients = [
        (f"MR{i}{letter}", ("glioma", "meningioma")[i % 2], 3, None)
        for i in range(20)
        for letter in ("", "B")
    ]
    cohort = cohort_of(patients)
    for kind in ("patient", "folds"):
        split = make_split(cohort, kind)  # type: ignore[arg-type]
        assert_patients_apart(cohort, split)


def test_own_folds_test_every_case_once() -> None:
    cohort = many()
    splits = [make_split(cohort, "folds", fold=fold, seed=3) for fold in range(1, 6)]
    assert sorted(index for split in splits for index in split.test) == list(range(len(cohort)))
    for fold, split in enumerate(splits, start=1):
        assert_partition(cohort, split)
        assert_patients_apart(cohort, split)
        assert (split.fold, split.folds_source) == (fold, "robustmri")
        assert len(split.test) == pytest.approx(len(cohort) / 5, rel=0.1)
        assert len(split.validation) == pytest.approx(len(cohort) * 0.8 * 0.15 / 0.85, rel=0.15)
    assert make_split(cohort, "folds", seed=3) == splits[0]


def test_the_authors_folds_are_used_where_every_case_has_one() -> None:
    cohort = many(fold=True, source="1.mat")
    split = make_split(cohort, "folds", fold=4)
    assert split.folds_source == "authors (cvind.mat)"
    assert all(
        (cohort.cases[index].fold == 4) == (index in split.test) for index in range(len(cohort))
    )
    assert_partition(cohort, split)
    assert_patients_apart(cohort, split)
    assert "authors (cvind.mat)" in split.note
    some = replace(cohort, cases=(*cohort.cases[:-1], replace(cohort.cases[-1], fold=None)))
    assert make_split(some, "folds", fold=4).folds_source == "robustmri"


def test_authors_folds_that_part_a_patient_say_so() -> None:
    patients = [(f"P{i}", ("a", "b")[i % 2], 4, 1 + i % 5) for i in range(40)]
    patients += [("MR1", "a", 4, 1), ("MR1B", "a", 4, 2)]
    split = make_split(cohort_of(patients), "folds", fold=2)
    assert (
        "1 patients have slices in more than one set under ids that differ by a trailing"
        in split.note
    )


def test_folds_of_a_table_that_divide_patients_say_so() -> None:
    """They are neither the authors' nor patient-wise."""
    patients = [
        (f"P{i}", ("a", "b")[i % 2], 1, 1 + (i + k) % 5) for i in range(30) for k in range(4)
    ]
    split = make_split(cohort_of(patients), "folds", fold=2)
    assert split.folds_source == "the table's column fold"
    assert split.note.startswith(
        "Fold 2 of 5 folds by the table's column fold, which divide patients: "
    )
    assert "trailing letter" not in split.note
    assert "says nothing about new patients" in split.note
    whole = make_split(many(fold=True), "folds", fold=2)
    assert "patient-wise folds by the table's column fold: no patient" in whole.note
    unknown = make_split(cohort_of(patients, groups="inferred"), "folds", fold=2)
    assert "which divide inferred groups of slices" in unknown.note


def test_folds_with_a_hole_are_refused() -> None:
    cohort = cohort_of([(f"P{i}", ("a", "b")[i % 2], 4, 1 + i % 4) for i in range(40)])
    with pytest.raises(DataError, match=r"in folds \[1, 2, 3, 4\], expected each of 1 to 5"):
        make_split(cohort, "folds")


def test_few_patients_are_enough_if_each_set_gets_one() -> None:
    cohort = cohort_of([(f"P{i}", ("a", "b")[i % 2], 5, None) for i in range(6)])
    split = make_split(cohort)
    assert_partition(cohort, split)
    assert_patients_apart(cohort, split)


@pytest.mark.parametrize(
    ("patients", "kind", "words"),
    [
        ([("1", "a", 9, None), ("2", "a", 9, None)], "patient", "one class only"),
        (
            [(str(i), "ab"[i > 1], 9, None) for i in range(9)],
            "patient",
            "'a' has 2 patients, fewer than the 3 sets",
        ),
        (
            [(str(i), "ab"[i > 3], 9, None) for i in range(12)],
            "folds",
            "'a' has 4 patients, fewer than the 5 sets",
        ),
        (
            [("1", "a", 2, None), ("2", "b", 9, None)],
            "slice",
            "'a' has 2 slices, fewer than the 3 sets",
        ),
        (
            # Each class has three patients, and no two of them may share a set.
            [
                (patient, label, 3, None)
                for label, three in (("a", "123"), ("b", "124"), ("c", "134"), ("d", "234"))
                for patient in three
            ],
            "patient",
            "keep patients together and have each class in all 3 sets",
        ),
    ],
)
def test_too_little_to_split(
    patients: list[tuple[str, str, int, int | None]], kind: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        make_split(cohort_of(patients), kind)  # type: ignore[arg-type]


def test_settings_are_checked() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'patient'"):
        make_split(many(), "patients")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="three positive shares"):
        make_split(many(), fractions=(0.8, 0.2, 0.2))
    for kind, fold in (("folds", 6), ("patient", 1)):
        with pytest.raises(SettingsError, match="fold must be 1 to 5"):
            make_split(many(), kind, fold=fold)  # type: ignore[arg-type]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    split = make_split(many(), "folds", fold=2)
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == Split.load(tmp_path) == split
    assert json.loads((tmp_path / "split.json").read_text())["fingerprint"] == split.fingerprint


def test_the_fingerprint_is_of_the_sets() -> None:
    split = make_split(many())
    assert replace(split, note="other words").fingerprint == split.fingerprint
    assert replace(split, test=split.test[1:]).fingerprint != split.fingerprint
    assert replace(split, cohort_fingerprint="other").fingerprint != split.fingerprint


def test_damaged_split_files(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    make_split(many()).save(path)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"test": stored["test"][1:]}))
    with pytest.raises(DataError, match="was changed after it was written"):
        Split.load(path)
    path.write_text(json.dumps({"kind": "patient"}))
    with pytest.raises(DataError, match="is damaged"):
        Split.load(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="is damaged"):
        Split.load(path)
    with pytest.raises(DataError, match="does not exist"):
        Split.load(tmp_path / "nothing.json")


def test_a_split_of_another_cohort_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    split = make_split(cohort)
    split.check(cohort)
    other = write_cohort(SliceList(slices_of(15)), tmp_path / "other", size=32)
    with pytest.raises(DataError, match="belongs to cohort"):
        split.check(other)


@pytest.mark.skipif(not SHARED.exists(), reason="the real table of patients is not here")
def test_the_whole_release_has_209_groups_and_splits_evenly() -> None:
    rows = read_table(SHARED / "patients_full.csv").rows(("patient_id", "label"))
    cohort = cohort_of([(patient, label, 1, None) for patient, label in rows])
    assert (len(cohort), len({case.patient_id for case in cohort.cases}), cohort.n_patients) == (
        3064,
        233,
        209,
    )
    split = make_split(cohort)
    assert_patients_apart(cohort, split)
    total = Counter(case.label for case in cohort.cases)
    for name, share in zip(SETS, (0.7, 0.15, 0.15), strict=True):
        counts = Counter(cohort.cases[index].label for index in getattr(split, name))
        for label in cohort.classes:
            assert counts[label] / total[label] == pytest.approx(share, abs=0.01)
