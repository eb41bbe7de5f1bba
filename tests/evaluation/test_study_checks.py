"""How the study was made: each check passes and fails."""

from __future__ import annotations

import pytest

from robustmri.evaluation import study_checks

SPLITS = [("patient", "patient", "pass"), ("folds", "patient", "pass")]
SPLITS += [("slice", "patient", "warn"), ("patient", "inferred", "warn")]


@pytest.mark.parametrize(("kind", "groups", "status"), SPLITS)
def test_split_by_slice_or_inferred_patients_is_a_warning(kind, groups, status):
    assert study_checks.check_split(kind, groups).status == status


def test_slice_wise_split_says_what_it_does():
    assert "too high for new ones" in study_checks.check_split("slice", "inferred").detail


def test_folds_that_divide_patients_are_a_warning():
    check = study_checks.check_split("folds", "patient", divided=True)
    assert check.status == "warn"
    assert check.detail.startswith("The folds divide patients: slices of one patient lie in")


def test_few_patients_are_a_warning_with_their_number(table):
    check = study_checks.check_patients(table(12).columns())
    assert check.status == "warn"
    assert check.detail.startswith("6 patients were tested (4 with glioma, 4 with meningioma, ")
    assert "may still happen to 46 % of all" in check.detail, "0.025 ** (1 / 6) is 0.54"
    assert "too few for a claim" in check.detail


@pytest.mark.parametrize(
    ("slices", "status"), [(4, "fail"), (6, "warn"), (58, "warn"), (60, "pass")]
)
def test_the_number_of_patients_decides(slices, status, table):
    """Two slices each: 2 are too few for a figure, 3 for a claim, 29 too, 30 are enough."""
    assert study_checks.check_patients(table(slices).columns()).status == status


def test_patients_of_few_slices_count_for_less(table):
    """Half of the slices are of one of 31 patients, who tell as much as four of one size."""
    uneven = table(120).columns()
    uneven["group"][:60] = "P9"
    check = study_checks.check_patients(uneven)
    assert check.status == "warn"
    assert "31 patients" in check.detail
    assert "as much as 4 patients with as many slices each" in check.detail


def test_a_class_of_few_patients_is_too_few(table):
    single = table(60).columns()
    single["group"][single["label"] == "glioma"] = "P9"
    check = study_checks.check_patients(single)
    assert check.status == "warn"
    assert "1 with glioma" in check.detail


def test_one_class_alone_fails_and_one_that_is_missing_warns(table):
    three = table(6).columns()
    assert study_checks.check_classes(three, ("meningioma", "glioma", "pituitary")).status == "pass"
    check = study_checks.check_classes(three, ("meningioma", "glioma", "pituitary", "none"))
    assert check.status == "warn"
    assert "None is of none" in check.detail
    one = table(6).columns()
    one["label"][:] = "glioma"
    check = study_checks.check_classes(one, ("meningioma", "glioma"))
    assert check.status == "fail"
    assert "right on all of them" in check.detail


def test_training_attack_must_not_be_the_only_one(table):
    alone = table(3).add("pgd", 0.04, []).add("noise", 0.04, []).add("worst", 0.04, [])
    assert study_checks.check_training_attack(alone.columns(), "pgd").status == "fail"
    assert study_checks.check_training_attack(alone.columns(), None) is None
    check = study_checks.check_training_attack(alone.add("cw", 0.04, []).columns(), "pgd")
    assert check.status == "pass"
    assert "cw" in check.detail


def test_what_was_chosen_on_validation_is_not_reported_by_it():
    assert study_checks.check_selection(True).status == "pass"
    check = study_checks.check_selection(True, "validation")
    assert check.status == "fail"
    assert "report the test set" in check.detail


@pytest.mark.parametrize("evaluated_set", ["test", "validation"])
def test_how_an_epoch_was_chosen_elsewhere_is_not_known(evaluated_set):
    assert study_checks.check_selection(False, evaluated_set).status == "warn"


def test_queries_alone_are_a_warning_that_names_them():
    check = study_checks.check_knowledge({"Square": "scores", "Noise": "nothing"})
    assert check.status == "warn"
    assert "Square (scores)" in check.detail
    assert "Noise" not in check.detail
