"""Each check passes on a sound table and fails on one with its own defect, naming the images."""

from __future__ import annotations

import numpy as np
import pytest

from robustmri.evaluation import sanity
from robustmri.evaluation.metrics import worst_case

ITERATIVE = ("bim", "pgd", "cw", "standard")


def with_worst(columns):
    worst = worst_case(columns)
    return {name: np.concatenate([columns[name], worst[name]]) for name in columns}


def test_sound_evaluation_passes_everything(table):
    made = (
        table(12)
        .add("fgsm", 0.02, [0])
        .add("pgd", 0.02, [0, 1])
        .add("fgsm", 0.04, [0, 1])
        .add("pgd", 0.04, [0, 1, 2])
    )
    made.add("pgd", 0.5, range(12)).add("pgd", 0.0, [])
    checks = sanity.run_checks(
        with_worst(made.columns()),
        iterative=ITERATIVE,
        per_pixel=["linf"],
        split_kind="patient",
        groups="patient",
        training_attack="pgd",
        trained=True,
        zero_gradient_share=0.0,
    )
    told = {check.name: check.status for check in checks if check.status != "pass"}
    assert told == {"enough patients for the claim": "warn"}  # Six, of two slices each.
    assert len(checks) == len({check.name for check in checks}) == 17


def test_questions_that_do_not_arise_are_left_out(table):
    checks = sanity.run_checks(
        table(6).columns(),
        iterative=ITERATIVE,
        split_kind="patient",
        groups="patient",
        training_attack=None,
        trained=True,
    )
    assert [check.name for check in checks] == [
        "every attacked image re-verified",
        "every logit a finite number",
        "perturbations within eps",
        "same images for every attack",
        "more than one answer",
        "split by patient",
        "enough patients for the claim",
        "more than one class",
        "selection on validation patients",
    ]


def test_unverified_image_fails(table):
    columns = table(4).add("pgd", 0.04, [1], verified={1: False}).columns()
    check = sanity.check_verified(columns)
    assert (check.status, check.case_ids) == ("fail", ["case1"])
    assert check.detail.startswith("3 of 4")
    assert sanity.check_verified(table(4).add("pgd", 0.04, [1]).columns()).status == "pass"


def test_an_answer_that_is_not_a_number_fails(table):
    made = (
        table(4)
        .add("pgd", 0.04, [1], confidence={2: np.nan})
        .add("bim", 0.04, [], confidence={3: np.nan})
    )
    check = sanity.check_finite(with_worst(made.columns()))
    assert (check.status, check.case_ids) == ("fail", ["case2", "case3"])
    assert "0 untouched and 2 attacked images" in check.detail
    assert sanity.check_finite(table(4).add("pgd", 0.04, [1]).columns()).status == "pass"


def test_a_long_list_of_cases_is_cut_and_says_so(table):
    check = sanity.check_distances(table(60).add("pgd", 0.04, [], distance_linf=0.1).columns())
    short = sanity.shorten_ids(check)
    assert short.case_ids == check.case_ids[:50]
    assert short.detail == f"{check.detail} 10 more cases are not listed."
    assert sanity.shorten_ids(short) == short


@pytest.mark.parametrize("distance", [0.0401, np.nan, np.inf])
def test_image_outside_eps_fails(table, distance):
    check = sanity.check_distances(
        table(4).add("pgd", 0.04, [1], distance_linf={2: distance}).columns()
    )
    assert (check.status, check.case_ids) == ("fail", ["case2"])


def test_distance_is_that_of_the_norm_and_may_be_rounded(table):
    # A float32 pixel near 1 is rounded by up to 6e-8, and a large l2 norm in its seventh digit.
    rounded = table(3).add("pgd", 0.001, [], distance_linf=0.001 + 6e-8, distance_l2=3.0)
    rounded.add("pgd", 80.0, [], norm="l2", distance_l2=80.00001)
    assert sanity.check_distances(rounded.columns()).status == "pass"
    l2 = table(3).add("pgd", 0.5, [], norm="l2", distance_linf=0.1, distance_l2={0: 0.6})
    assert sanity.check_distances(l2.columns()).case_ids == ["case0"]
    l1 = table(3).add(
        "pgd", 5.0, [], norm="l1", distance_linf=0.1, distance_l2=9.0, distance_l1={1: 5.1}
    )
    assert sanity.check_distances(l1.columns()).case_ids == ["case1"]
    l0 = table(3).add("jsma", 10.0, [], norm="l0", distance_l1=99.0, distance_l0={2: 11.0})
    assert sanity.check_distances(l0.columns()).case_ids == ["case2"]
    minimal = table(3).add("cw-l2", np.inf, [0], norm="l2", distance_l2=40.0)
    assert sanity.check_distances(minimal.columns()).status == "pass"
    lost = table(3).add("cw-l2", np.inf, [0], norm="l2", distance_l2={0: np.inf})
    assert sanity.check_distances(lost.columns()).case_ids == ["case0"]


def test_attack_on_other_images_fails(table):
    columns = table(4).add("pgd", 0.04, []).columns()
    fewer = {name: column[:-1] for name, column in columns.items()}
    check = sanity.check_same_images(fewer)
    assert check.status == "fail"
    assert "pgd linf 0.04: 3 rows" in check.detail
    assert sanity.check_same_images(columns).status == "pass"


def test_headline_other_than_worst_case_fails(table):
    sound = with_worst(table(6).add("fgsm", 0.04, [0]).add("pgd", 0.04, [1]).columns())
    assert sanity.check_headline(sound).status == "pass"
    row = np.flatnonzero((sound["attack"] == "worst") & (sound["index"] == 0))
    sound["prediction"][row] = sound["label"][row]  # as if pgd alone were the headline
    assert sanity.check_headline(sound).status == "fail"


def test_headline_that_is_missing_fails(table):
    check = sanity.check_headline(table(6).add("fgsm", 0.04, [0]).columns())
    assert check.status == "fail"
    assert "linf 0.04 differs" in check.detail


@pytest.mark.parametrize(("extra", "status"), [(0, "pass"), (1, "warn"), (2, "fail")])
def test_one_step_stronger_than_many_is_a_sign_of_masked_gradients(table, extra, status):
    """Of 150 images one is within a point of accuracy, two are not."""
    made = (
        table(150)
        .add("fgsm", 0.04, range(10 + extra))
        .add("pgd", 0.04, range(10))
        .add("bim", 0.02, [])
    )
    check = sanity.check_iterative(made.columns(), ITERATIVE)
    assert check.status == status
    assert check.case_ids == sorted(f"case{i}" for i in range(10, 10 + extra))


@pytest.mark.parametrize(("extra", "status"), [(0, "pass"), (1, "warn"), (2, "fail")])
def test_noise_that_is_stronger_than_an_attack_is_a_sign_too(table, extra, status):
    made = table(150).add("noise", 0.04, range(10 + extra)).add("pgd", 0.04, range(10))
    assert sanity.check_noise(made.columns(), ITERATIVE).status == status
    assert sanity.check_noise(table(6).add("pgd", 0.04, []).columns(), ITERATIVE) is None


def test_one_answer_to_all_fails(table):
    """Of nine slices three are of the class that all are said to be."""
    columns = table(9).columns()
    assert sanity.check_one_answer(columns).status == "pass"
    columns["prediction"][:] = "glioma"
    check = sanity.check_one_answer(columns)
    assert check.status == "fail"
    assert "All 9 untouched slices are answered 'glioma', though 6 are another" in check.detail
    few = table(6).columns()
    few["prediction"][:] = "glioma"
    assert sanity.check_one_answer(few) is None, "four slices may all be mistaken"


def test_many_steps_of_another_radius_are_not_compared(table):
    columns = table(9).add("fgsm", 0.04, [0]).add("pgd", 0.02, []).columns()
    assert sanity.check_iterative(columns, ITERATIVE) is None


def test_accuracy_that_rises_with_eps_fails(table):
    rising = table(9).add("pgd", 0.04, [0]).add("pgd", 0.02, [0, 1]).columns()
    check = sanity.check_eps_order(rising)
    assert (check.status, check.case_ids) == ("fail", ["case1"])
    assert "88.9% right under pgd linf 0.04, 77.8% at the next smaller eps" in check.detail
    assert (
        sanity.check_eps_order(
            table(9).add("pgd", 0.02, [0]).add("pgd", 0.04, [0, 1]).columns()
        ).status
        == "pass"
    )
    above_clean = table(9, clean_wrong=[3]).add("pgd", 0.02, []).columns()
    assert sanity.check_eps_order(above_clean).case_ids == ["case3"]
    assert sanity.check_eps_order(table(9).columns()) is None


def test_one_step_that_goes_too_far_is_a_warning(table):
    """As on pretrained networks, whose loss is curved; not if the worst case rises with it."""
    one_step = table(9).add("fgsm", 0.04, [0]).add("fgsm", 0.02, [0, 1])
    assert sanity.check_eps_order(with_worst(one_step.columns())).status == "fail"
    many = one_step.add("pgd", 0.04, [0, 1]).add("pgd", 0.02, [0, 1])
    check = sanity.check_eps_order(with_worst(many.columns()))
    assert check.status == "warn"
    assert check.detail.endswith("which goes too far where the loss is curved: a warning.")
    above_clean = table(9, clean_wrong=[3]).add("fgsm", 0.02, []).add("pgd", 0.02, [3])
    assert sanity.check_eps_order(with_worst(above_clean.columns())).status == "fail"


def test_radii_are_ordered_in_image_units(table):
    """0.04 after normalisation is the smaller radius: it may well leave more images right."""
    made = (
        table(9)
        .add("pgd", 0.02, [0, 1])
        .add("pgd", 0.04, [0], eps_units="normalised", eps_image=0.009)
    )
    assert sanity.check_eps_order(made.columns()).status == "pass"


def test_worst_cases_over_other_attacks_are_not_compared(table):
    made = table(9).add("pgd", 0.02, [0]).add("cw", 0.02, [0, 1]).add("pgd", 0.04, [0])
    check = sanity.check_eps_order(with_worst(made.columns()))
    assert check.status == "pass"


def test_zero_eps_that_changes_a_prediction_fails(table):
    check = sanity.check_zero_eps(table(4).add("pgd", 0.0, [2]).columns())
    assert (check.status, check.case_ids) == ("fail", ["case2"])
    assert (
        sanity.check_zero_eps(table(4, clean_wrong=[2]).add("pgd", 0.0, [2]).columns()).status
        == "pass"
    )
    assert sanity.check_zero_eps(table(4).columns()) is None


@pytest.mark.parametrize(("standing", "status"), [(4, "pass"), (5, "fail")])
def test_better_than_chance_on_flat_grey_fails(table, standing, status):
    """Twelve images of three classes: one answer to all is right for four."""
    columns = table(12).add("pgd", 0.5, range(standing, 12)).columns()
    check = sanity.check_large_eps(columns, ITERATIVE, ["linf"])
    assert check.status == status
    assert check.case_ids == ([] if status == "pass" else sorted(f"case{i}" for i in range(5)))


def test_only_the_whole_image_can_be_made_flat_grey(table):
    checks = sanity.run_checks(
        table(12).add("pgd", 0.5, []).columns(),
        iterative=ITERATIVE,
        split_kind="patient",
        groups="patient",
        training_attack=None,
        trained=True,
        region="lesion",
        per_pixel=["linf"],
    )
    assert "at or below chance at eps 0.5" not in [check.name for check in checks]


def test_small_eps_is_not_held_to_chance(table):
    columns = table(12).add("pgd", 0.3, []).add("fgsm", 0.5, []).columns()
    assert sanity.check_large_eps(columns, ITERATIVE, ["linf"]) is None
    grey = table(12).add("pgd", 0.5, []).columns()
    assert sanity.check_large_eps(grey, ITERATIVE, ["l2"]) is None


def test_a_search_that_was_cut_short_is_a_warning(table):
    made = table(4).add("pgd", 0.04, [1], cut_short={2: True, 3: True}).add("fgsm", 0.04, [])
    check = sanity.check_budget(with_worst(made.columns()))
    assert (check.status, check.case_ids) == ("warn", ["case2", "case3"])
    assert (
        "pgd linf 0.04: 2 of 4 images, after 10.0 gradients and 11.0 forwards an image"
        in check.detail
    )
    assert "fgsm" not in check.detail
    assert sanity.check_budget(table(4).add("pgd", 0.04, [1]).columns()).status == "pass"


def test_a_budget_may_end_an_attack_without_a_radius(table):
    made = table(4).add("cw-l2", np.inf, [1], norm="l2", cut_short={2: True})
    check = sanity.check_budget(made.columns())
    assert check.status == "warn"
    assert "cw-l2 l2: 1 of 4 images" in check.detail


@pytest.mark.parametrize(("share", "status"), [(0.0, "pass"), (0.03, "warn"), (0.4, "fail")])
def test_vanished_gradients_are_told(share, status):
    check = sanity.check_gradients(share)
    assert check.status == status
    assert f"{share:.1%}" in check.detail


@pytest.mark.parametrize(
    ("eps", "status"), [(0.0, None), (0.001, "warn"), (0.002, "pass"), (0.04, "pass")]
)
def test_a_radius_below_half_a_grey_level_is_no_radius(table, eps, status):
    check = sanity.check_storable(with_worst(table(6).add("pgd", eps, []).columns()))
    assert (check and check.status) == status


def test_answers_that_carry_each_others_names_are_seen(table):
    columns = table(24).columns()
    assert sanity.check_class_order(columns).status == "pass"
    labels = columns["label"].astype(str)
    names = np.unique(labels)
    columns["prediction"] = names[(np.searchsorted(names, labels) + 1) % len(names)]
    check = sanity.check_class_order(columns)
    assert check.status == "fail"
    assert "0 of 24 untouched slices are right; 24 would be, were its answers" in check.detail
    columns["prediction"] = np.random.default_rng(0).permutation(labels)
    assert sanity.check_class_order(columns).status == "pass", "a bad classifier, not a mistake"
    assert sanity.check_class_order(table(12).columns()) is None
