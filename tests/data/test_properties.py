"""What every split promises, of cohorts that hypothesis makes up."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmri.data.cases import Case, group_of
from robustmri.data.cohort import Cohort
from robustmri.data.split import FOLDS, SETS, Split, make_split

kinds = st.sampled_from(["patient", "slice", "folds"])
seeds = st.integers(0, 2**31 - 1)
# A split tries 200 ways.
few = settings(max_examples=settings().max_examples // 4)


@st.composite
def cohorts(draws: st.DrawFn) -> Cohort:
    """Two to four classes of 8 to 14 patients with 1 to 9 slices, in any order; some patients came
    twice.
    """
    classes = tuple("abcd"[: draws(st.integers(2, 4))])
    slices = []
    for label in classes:
        for patient, each in enumerate(draws(st.lists(st.integers(1, 9), min_size=8, max_size=14))):
            scans = draws(st.sampled_from([("",), ("A", "B")]))
            slices += [
                (label, f"{label}{patient}{scans[number % len(scans)]}") for number in range(each)
            ]
    slices = draws(st.permutations(slices))
    cases = tuple(
        Case(
            index=index,
            case_id=str(index),
            label=label,
            class_index=classes.index(label),
            patient_id=patient,
            group=group_of(patient),
            source="",
            sha256="",
            height=8,
            width=8,
            plane="",
            fold=None,
            lesion_box=None,
        )
        for index, (label, patient) in enumerate(slices)
    )
    return Cohort(
        root=Path("cohort"),
        name="drawn",
        classes=classes,
        size=8,
        intensity="minmax",
        groups="patient",
        synthetic=True,
        cases=cases,
        left_out=(),
        fingerprint="0123456789abcdef",
    )


def groups(cohort: Cohort, split: Split, name: str) -> set[str]:
    return {cohort.cases[index].group for index in getattr(split, name)}


@few
@given(cohorts(), kinds, seeds)
def test_each_slice_is_in_one_set_and_each_class_in_all(cohort, kind, seed):
    split = make_split(cohort, kind, seed=seed)
    assert sorted(split.train + split.validation + split.test) == list(range(len(cohort)))
    for name in SETS:
        assert {cohort.cases[i].label for i in getattr(split, name)} == set(cohort.classes)
    assert make_split(cohort, kind, seed=seed) == split
    if kind != "slice":
        seen, chosen_on, tested = (groups(cohort, split, name) for name in SETS)
        assert not seen & tested | seen & chosen_on | chosen_on & tested


@few
@given(cohorts(), seeds)
def test_each_patient_is_tested_in_one_fold(cohort, seed):
    folds = [make_split(cohort, "folds", seed=seed, fold=fold + 1) for fold in range(FOLDS)]
    tested = [groups(cohort, split, "test") for split in folds]
    assert sum(map(len, tested)) == len(set.union(*tested))
    assert sorted(i for split in folds for i in split.test) == list(range(len(cohort)))


@few
@given(cohorts(), kinds, seeds)
def test_a_split_is_read_as_it_was_written(tmp_path_factory, cohort, kind, seed):
    split = make_split(cohort, kind, seed=seed)
    path = tmp_path_factory.getbasetemp() / "split.json"
    split.save(path)
    assert Split.load(path) == split
