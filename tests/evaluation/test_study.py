"""How the study was made: each check passes and fails."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from robustmri.evaluation import study


@dataclass(frozen=True)
class Found:
    name: str
    status: str
    detail: str
    case_ids: tuple[str, ...] = ()


SPLITS = [("patient", "patient", "pass"), ("folds", "patient", "pass")]
SPLITS += [("slice", "patient", "warn"), ("patient", "inferred", "warn")]


@pytest.mark.parametrize(("kind", "groups", "status"), SPLITS)
def test_split_by_slice_or_inferred_patients_is_a_warning(kind, groups, status):
    assert study.check_split(kind, groups).status == status


def test_slice_wise_split_says_what_it_does():
    assert "too high for new ones" in study.check_split("slice", "inferred").detail


def test_overlap_is_as_bad_as_its_worst_finding():
    sound = Found("patients", "pass", "0 in two sets")
    alike = Found("near-duplicates", "warn", "2 pairs", ("b", "a"))
    shared = Found("groups", "fail", "1 in two sets", ("c",))
    assert study.check_overlap([]) is None
    assert study.check_overlap([sound]).status == "pass"
    warned = study.check_overlap([sound, alike])
    assert (warned.status, warned.case_ids, warned.detail) == ("warn", ["a", "b"], "near-duplicates: 2 pairs")
    failed = study.check_overlap([shared, sound, alike])
    assert (failed.status, failed.case_ids) == ("fail", ["c"])


def test_training_attack_must_not_be_the_only_one(table):
    alone = table(3).add("pgd", 0.04, []).add("noise", 0.04, []).add("worst", 0.04, [])
    assert study.check_training_attack(alone.columns(), "pgd").status == "fail"
    assert study.check_training_attack(alone.columns(), None) is None
    check = study.check_training_attack(alone.add("cw", 0.04, []).columns(), "pgd")
    assert check.status == "pass"
    assert "cw" in check.detail


@pytest.mark.parametrize(
    ("chosen", "status"), [("validation", "pass"), ("last", "pass"), ("test", "fail"), ("", "warn")]
)
def test_selection_on_test_images_fails(chosen, status):
    assert study.check_selection(chosen).status == status
