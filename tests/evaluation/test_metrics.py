"""Numbers from a table small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from robustmri.evaluation.intervals import patient_accuracy, share_interval
from robustmri.evaluation.metrics import (
    Setting,
    count_alone,
    count_confusions,
    find_settings,
    summarise,
    worst_case,
)
from robustmri.results.budget import Budget
from robustmri.results.outcomes import Outcomes, find_right, numbered

CLASSES = ["meningioma", "glioma", "pituitary"]


def right_images(columns):
    return set(columns["index"][find_right(columns)].tolist())


def test_settings_keep_the_order_and_tell_radii_and_units_apart(table):
    made = (
        table(3)
        .add("fgsm", 0.04, [])
        .add("fgsm", 0.02, [])
        .add("fgsm", 0.04, [], eps_units="normalised")
    )
    found = find_settings(made.columns())
    assert [(s.attack, s.budget.eps, s.budget.eps_units) for s in found] == [
        ("none", 0.0, "image"),
        ("fgsm", 0.04, "image"),
        ("fgsm", 0.02, "image"),
        ("fgsm", 0.04, "normalised"),
    ]
    assert found[Setting("fgsm", Budget("linf", 0.02, "image", 0.02))].tolist() == [6, 7, 8]


def test_rows_of_a_setting_may_lie_anywhere(table):
    """As a table holds them that was put together by another program."""
    columns = table(3).add("fgsm", np.inf, []).add("fgsm", 0.02, []).columns()
    order = np.array([7, 0, 3, 8, 1, 4, 6, 2, 5])
    mixed = Outcomes({name: column[order] for name, column in columns.items()})
    found = {setting.budget.eps: rows.tolist() for setting, rows in find_settings(mixed).items()}
    assert found == {0.02: [0, 3, 6], 0.0: [1, 4, 7], None: [2, 5, 8]}
    assert list(found) == [0.02, 0.0, None]


@pytest.mark.parametrize(
    "column", [["b", None, "b"], [2, 10, 2], ["2", 10, "2"], [True, False, True]], ids=str
)
def test_values_are_numbered_as_their_texts_sort(column):
    names, places = np.unique(np.array(column, dtype=object).astype(str), return_inverse=True)
    found, at = numbered(np.array(column, dtype=object))
    assert (found, at.tolist()) == (names.tolist(), places.tolist())


def test_without_a_radius_there_is_no_worst_case_and_no_setting(table):
    columns = table(4).add("cw", float("inf"), [0]).columns()
    assert find_settings(worst_case(columns)) == {}


def test_worst_case_is_per_image_and_below_every_attack(table):
    columns = table(8).add("fgsm", 0.04, [0, 1, 2]).add("pgd", 0.04, [2, 3]).columns()
    worst = worst_case(columns)
    assert right_images(worst) == {4, 5, 6, 7}
    assert worst["index"].tolist() == list(range(8))
    assert set(worst["attack"]) == {"worst"}
    assert worst["fooled"].tolist() == [True] * 4 + [False] * 4
    assert worst["gradients"].tolist() == [20] * 8
    assert worst["forwards"].tolist() == [22] * 8
    assert set(worst) == set(columns)
    assert {name: c.dtype for name, c in worst.items()} == {
        name: c.dtype for name, c in columns.items()
    }


def test_worst_case_of_one_image_and_of_attacks_alone(table):
    columns = table(1).add("pgd", 0.04, [0]).columns()
    assert worst_case(columns)["eps_image"].tolist() == [0.04]
    assert summarise(columns)[2].eps_image == 0.04
    without_clean = {name: column[1:] for name, column in columns.items()}
    assert worst_case(without_clean)["fooled"].tolist() == [True]


def test_worst_case_counts_images_that_were_wrong_before(table):
    """An attack that puts a wrong answer right has not made the classifier robust."""
    columns = table(6, clean_wrong=[5]).add("pgd", 0.04, [0]).columns()
    worst = worst_case(columns)
    assert right_images(worst) == {1, 2, 3, 4}
    assert worst["distance_linf"][5] == 0
    assert set(worst["norm"]) == {"linf"}
    assert set(worst["eps"].tolist()) == set(worst["eps_image"].tolist()) == {0.04}


def test_worst_case_keeps_budgets_apart_and_leaves_minimal_norm_out(table):
    made = (
        table(4)
        .add("pgd", 0.04, [0, 1])
        .add("pgd", 0.02, [0])
        .add("cw-l2", np.inf, [0, 1, 2, 3], norm="l2")
    )
    worst = worst_case(made.columns())
    by_eps = {
        eps: right_images({k: c[worst["eps"] == eps] for k, c in worst.items()})
        for eps in (0.02, 0.04)
    }
    assert by_eps == {0.02: {1, 2, 3}, 0.04: {2, 3}}
    assert len(worst["eps"]) == 8


def test_worst_case_keeps_the_success_that_costs_the_label_most(table):
    made = (
        table(2)
        .add("fgsm", 0.04, [0], label_confidence=0.3)
        .add("pgd", 0.04, [0], label_confidence=0.01)
    )
    # not fooled: no success at all
    again = made.add("bim", 0.04, [], label_confidence=0.001).columns()
    assert worst_case(again)["label_confidence"].tolist() == [0.01, 0.001]


def test_worst_case_of_worst_rows_is_the_same(table):
    columns = table(4).add("pgd", 0.04, [1]).columns()
    worst = worst_case(columns)
    both = {name: np.concatenate([columns[name], worst[name]]) for name in columns}
    assert right_images(worst_case(both)) == right_images(worst)
    assert worst_case(both)["gradients"].tolist() == worst["gradients"].tolist()
    assert len(worst_case(table(3).columns())["index"]) == 0


def test_target_decides_what_a_success_is(table):
    columns = table(4).add("pgd", 0.04, [1], target="pituitary").columns()
    # 2 is one
    assert right_images({name: column[4:] for name, column in columns.items()}) == {0, 2, 3}
    assert right_images(worst_case(columns)) == {0, 2, 3}


def test_wrong_answer_that_is_not_the_target_is_no_success(table):
    worst = worst_case(
        table(4, clean_wrong=[0]).add("pgd", 0.04, [1], target="pituitary").columns()
    )
    assert worst["prediction"][0] == "glioma"
    assert worst["fooled"].tolist() == [False, True, False, False]


def test_summary_has_both_units_for_every_setting(table):
    columns = table(60).add("pgd", 0.04, range(0, 60, 2)).columns()
    clean, clean_patients, pgd, pgd_patients = summarise(columns)
    assert (clean.attack, clean.eps, clean.eps_image, clean.accuracy, clean.n) == (
        "none",
        None,
        None,
        1.0,
        60,
    )
    assert (clean_patients.unit, clean_patients.n) == ("patient", 30)
    assert (pgd.eps, pgd.eps_image, pgd.accuracy, pgd.unit) == (0.04, 0.04, 0.5, "slice")
    assert pgd.ci_low <= 0.5 <= pgd.ci_high
    assert pgd_patients.accuracy == 0.0  # one of two slices is a tie, which is wrong
    assert pgd.median_distance is None


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_summary_has_the_intervals_of_its_slices_and_patients(level, table):
    fooled = np.flatnonzero(np.random.default_rng(0).random(301) < 0.4).tolist()
    columns = table(301).add("pgd", 0.04, fooled).columns()
    correct, patients = (
        columns["prediction"][301:] == columns["label"][301:],
        columns["group"][301:],
    )
    slices, by_patient = summarise(columns, level=level)[2:]
    expected = share_interval(correct, patients, level=level)
    assert (slices.ci_low, slices.ci_high, slices.interval) == expected
    expected = patient_accuracy(correct, patients, level=level).interval
    assert (by_patient.ci_low, by_patient.ci_high, by_patient.interval) == expected


def test_minimal_norm_attack_is_summed_up_by_its_distance(table):
    far = {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}
    columns = (
        table(5, clean_wrong=[0])
        .add("cw-l2", np.inf, [0, 1, 2, 3], norm="l2", distance_l2=far)
        .columns()
    )
    slices = summarise(columns)[2]
    assert (slices.attack, slices.eps, slices.eps_image) == ("cw-l2", None, None)
    # of 1, 2, 3 and infinity: 0 was wrong before, 4 was not fooled
    assert slices.median_distance == 3.0
    l0 = table(3).add(
        "jsma", np.inf, [0, 1, 2], norm="l0", distance_l2=1.0, distance_l0={0: 4.0, 1: 6.0, 2: 8.0}
    )
    assert summarise(l0.columns())[2].median_distance == 6.0
    none = summarise(table(5).add("cw-l2", np.inf, [0], norm="l2").columns())[2]
    assert none.median_distance is None
    never_right = table(2, clean_wrong=[0, 1]).add("cw-l2", np.inf, [0, 1], norm="l2")
    assert summarise(never_right.columns())[2].median_distance is None


def test_images_that_only_one_attack_broke(table):
    made = (
        table(8, clean_wrong=[7])
        .add("fgsm", 0.04, [0, 1, 7])
        .add("pgd", 0.04, [1, 2, 3, 7])
        .add("bim", 0.04, [1])
    )
    made.add("pgd", 0.02, [5]).add("cw-l2", np.inf, range(8), norm="l2")
    made.add("fmn", np.inf, [1], norm="l2")  # Another minimal attack: no budget in common.
    columns = made.columns()
    worst = worst_case(columns)
    columns = {name: np.concatenate([columns[name], worst[name]]) for name in columns}
    alone = {
        (setting.attack, setting.budget.eps): count
        for setting, count in count_alone(columns).items()
    }
    assert alone == {("fgsm", 0.04): 1, ("pgd", 0.04): 2, ("bim", 0.04): 0}
    told = {(r.attack, r.eps, r.unit): r.only for r in summarise(columns)}
    assert told["pgd", 0.04, "slice"] == 2
    assert {
        told[key]
        for key in told
        if key[2] == "patient" or key[0] in ("none", "worst", "cw-l2", "fmn")
    } == {None}
    assert told["pgd", 0.02, "slice"] is None


def test_an_attack_on_fewer_images_is_not_compared(table):
    columns = table(6).add("pgd", 0.04, [0]).add("fgsm", 0.04, [1]).add("bim", 0.04, [2]).columns()
    fewer = {name: column[:-1] for name, column in columns.items()}
    assert [setting.attack for setting in count_alone(fewer)] == ["pgd", "fgsm"]


def test_members_of_a_suite_are_counted_in_their_order(table):
    """Image 7 was wrong untouched, and nobody broke it."""
    made = table(8, clean_wrong=[7]).add("pgd", 0.04, [1]).add("suite", 0.1, [1, 7])
    made.add("suite", 0.04, [0, 1, 2, 7], broken_by={0: "fast", 1: "slow", 2: "fast"}).add(
        "suite", 0.01, [7]
    )
    columns = made.columns()
    worst = worst_case(columns)
    assert set(worst["broken_by"]) == {""}
    columns = {name: np.concatenate([columns[name], worst[name]]) for name in columns}
    results = summarise(columns, suites={"suite": ["other", "slow", "fast"]})
    told = {(r.attack, r.eps, r.unit): list(r.broken_by.items()) for r in results if r.broken_by}
    assert told == {("suite", 0.04, "slice"): [("other", 0), ("slow", 1), ("fast", 2)]}
    assert not any(r.broken_by for r in summarise(columns))


def test_the_target_decides_whether_an_image_was_broken(table):
    made = (
        table(6)
        .add("pgd", 0.04, [0, 1], target="pituitary")
        .add("fgsm", 0.04, [1], target="pituitary")
    )
    made.add("bim", 0.04, [], target="pituitary", prediction={3: "glioma"})
    assert list(count_alone(made.columns()).values()) == [1, 0, 0]


def test_confusion_rows_are_true_classes(table):
    made = table(6).add("pgd", 0.04, [0, 3, 1]).add("pgd", 0.04, [1], target="pituitary")
    made.add("cw-l2", np.inf, [0], norm="l2")
    clean, pgd, minimal = count_confusions(made.columns(), CLASSES)
    assert clean.counts == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert (clean.eps, minimal.eps) == (None, None)
    assert (pgd.attack, pgd.eps) == ("pgd", 0.04)
    assert pgd.counts == [[0, 2, 0], [0, 1, 1], [0, 0, 2]]
