"""Intervals hold what they promise on correlated slices, and degenerate counts give honest
bounds.
"""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, t

from robustmri.core.errors import ResultError
from robustmri.evaluation import intervals
from robustmri.evaluation.intervals import (
    mean_interval,
    paired_difference,
    patient_accuracy,
    quantile_interval,
    share_interval,
)

SIZES = {
    "equal": lambda rng, n: np.full(n, 12),
    # As on real slices: a few to thirty, most patients ten to twenty.
    "usual": lambda rng, n: rng.integers(1, 30, n),
    "very unequal": lambda rng, n: np.exp(rng.normal(1.5, 1.3, n)).clip(1, 150).astype(int),
    "one has most": lambda rng, n: np.append(rng.integers(1, 6, n - 1), 60),
    "a sixth has most": lambda rng, n: np.where(
        np.arange(n) < max(1, n // 6), rng.integers(30, 60, n), rng.integers(1, 4, n)
    ),
}
"""Slices of each patient."""


def draw_cohort(rng, *, accuracy, patients=60, correlation=0.3, sizes="usual"):
    """Slices whose patients differ: beta-binomial with the given intra-patient correlation."""
    numbers = SIZES[sizes](rng, patients)
    strength = (1 - correlation) / correlation
    shares = rng.beta(accuracy * strength, (1 - accuracy) * strength, patients)
    owner = np.repeat(np.arange(patients), numbers)
    return rng.random(len(owner)) < shares[owner], owner


def coverage(accuracy, interval_of, *, runs=250, seed=0, **cohort):
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(runs):
        low, high = interval_of(*draw_cohort(rng, accuracy=accuracy, **cohort))
        held += low <= accuracy <= high
    return held / runs


def by_slice(correct, _owner):
    share, n = correct.mean(), len(correct)
    half = 1.96 * np.sqrt(share * (1 - share) / n)
    return share - half, share + half


def by_patient(correct, owner):
    return share_interval(correct, owner)[:2]


@pytest.mark.parametrize(
    ("accuracy", "cohort"),
    [
        (0.01, {}),
        (0.3, {}),
        (0.99, {}),
        (0.6, {"sizes": "one has most", "patients": 12, "correlation": 0.95}),
        (0.3, {"sizes": "a sixth has most", "patients": 20, "correlation": 0.95}),
        (0.8, {"sizes": "very unequal", "patients": 20}),
    ],
    ids=str,
)
def test_interval_holds_the_truth_in_spite_of_correlated_slices(accuracy, cohort):
    """The fourth and fifth were held by 54 and 57 % of the bootstraps of before."""
    # 250 runs: the standard error of a coverage of 0.95 is 0.014.
    assert coverage(accuracy, by_patient, **cohort) >= 0.91


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("patients", [6, 12, 20, 40, 120])
@pytest.mark.parametrize("sizes", SIZES)
def test_coverage_is_as_promised_however_unequal_patients_are(sizes, patients):
    """Each of 20 true shares and correlations at 93 % or more, known to 0.7 points."""
    found = {
        (accuracy, correlation): coverage(
            accuracy,
            by_patient,
            runs=1000,
            patients=patients,
            correlation=correlation,
            sizes=sizes,
        )
        for accuracy in (0.02, 0.1, 0.3, 0.6, 0.97)
        for correlation in (0.05, 0.3, 0.6, 0.95)
    }
    assert {name: share for name, share in found.items() if share < 0.93 - 2 * 0.007} == {}


def test_interval_by_slice_would_not_hold_it():
    assert coverage(0.3, by_slice) < 0.8


def test_interval_agrees_with_the_formula_for_one_slice_a_patient():
    correct = np.arange(400) % 4 != 0
    low, high, method = share_interval(correct, np.arange(400))
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    # Exact bounds are wider by up to half an observation, 0.00125, on each side, and Student's t.
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.004)
    assert method.endswith("effective of 400 patients")


def test_slices_that_are_all_alike_count_as_one():
    """Whatever their number: one has sixty, the others one each."""
    sizes = np.append(np.ones(39, int), 60)
    owner = np.repeat(np.arange(40), sizes)
    found = share_interval(np.ones(99, bool), owner)
    effective = 99**2 / (39 + 60**2)
    assert found.method == f"exact binomial, {effective:.1f} effective of 40 patients"
    assert found.low == pytest.approx(0.025 ** (1 / effective))


def test_spread_weighs_more_the_more_patients_differ():
    """The same share: of 40 patients of two slices either half of all are wrong in one slice, or a
    quarter in both; the first differ less.
    """
    owner = np.repeat(np.arange(40), 2)
    one_each, both = np.arange(80) % 4 != 0, np.arange(80) >= 20
    narrow, wide = share_interval(one_each, owner), share_interval(both, owner)
    assert one_each.mean() == both.mean() == 0.75
    assert wide.low < narrow.low < narrow.high < wide.high


def test_repeating_slices_of_patients_adds_no_information():
    correct, owner = np.arange(60) % 3 == 0, np.arange(60)
    once, tenfold = (
        share_interval(correct, owner),
        share_interval(np.repeat(correct, 10), np.repeat(owner, 10)),
    )
    assert tenfold[:2] == pytest.approx(once[:2])


def test_order_of_slices_does_not_matter():
    correct, owner = draw_cohort(np.random.default_rng(1), accuracy=0.5)
    order = np.random.default_rng(2).permutation(len(correct))
    assert share_interval(correct, owner) == share_interval(correct[order], owner[order])


@pytest.mark.parametrize("right", [True, False])
def test_no_event_is_bounded_by_the_rule_of_three_in_patients(right):
    owner = np.repeat(np.arange(40), 12)
    low, high, method = share_interval(np.full(480, right), owner)
    bound = 1 - 0.025 ** (1 / 40)
    assert (low, high) == (
        pytest.approx((1 - bound, 1.0)) if right else pytest.approx((0.0, bound))
    )
    assert method == "exact binomial, 40.0 effective of 40 patients"
    assert 3 / 40 < bound < 3.7 / 40


def test_one_event_is_not_more_certain_than_none():
    owner = np.repeat(np.arange(40), 12)
    one = np.zeros(480, dtype=bool)
    one[5] = True
    assert share_interval(one, owner).high >= share_interval(np.zeros(480, dtype=bool), owner).high
    assert share_interval(one, owner).low > 0


@pytest.mark.parametrize("back", [False, True])
def test_a_bootstrap_takes_over_where_ten_patients_changed(back):
    owner = np.repeat(np.arange(40), 2)
    nothing, wrong = np.zeros(80, dtype=bool), np.zeros(80, dtype=bool)
    wrong[:18] = True
    few = paired_difference(*((nothing, wrong) if back else (wrong, nothing)), owner)
    assert few.method == "exact binomial gains and losses, 40.0 effective of 40 patients (MOVER)"
    wrong[19] = True
    many = paired_difference(*((nothing, wrong) if back else (wrong, nothing)), owner)
    assert many.method == "cluster bootstrap over 40 patients, 2000 draws"


@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize(("events", "wider"), [(0, 0), (1, 0.005), (5, 0.02), (25, 0.02), (30, 0)])
def test_few_events_have_the_bounds_of_clopper_and_pearson(events, wider, level):
    """A slice a patient; a measured spread adds what Student's t does to the normal."""
    right = np.arange(30) < events
    expected = binomtest(events, 30).proportion_ci(level, method="exact")
    low, high, _ = share_interval(right, np.arange(30), level=level)
    assert expected.low - wider - 1e-12 <= low <= expected.low + 1e-12
    assert expected.high - 1e-12 <= high <= expected.high + wider + 1e-12


@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize("events", [0, 1, 13, 30])
def test_patients_have_the_bounds_of_wilson(events, level):
    found = patient_accuracy(np.arange(30) < events, np.arange(30), level=level)
    expected = binomtest(events, 30).proportion_ci(level, method="wilson")
    assert found.accuracy == events / 30
    assert found.interval[:2] == pytest.approx(expected, abs=1e-12)
    assert found.interval.method == "Wilson over 30 patients"


@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize(("gains", "losses"), [(4, 2), (2, 4), (0, 3), (9, 0)])
def test_few_changes_have_the_bounds_of_newcombe(gains, losses, level):
    """MOVER: each side joins how far that bound of the gains and the other one of the losses lie
    away, as squares.
    """
    number = np.arange(40)
    before, after = number >= 40 - losses, number < gains
    found = paired_difference(before, after, number, level=level)
    (g_low, g_high), (l_low, l_high) = (
        binomtest(events, 40).proportion_ci(level, method="exact") for events in (gains, losses)
    )
    g, lost = gains / 40, losses / 40
    assert (found.difference, found.n_patients) == (pytest.approx(g - lost), 40)
    assert found.low == pytest.approx(g - lost - np.hypot(g - g_low, l_high - lost))
    assert found.high == pytest.approx(g - lost + np.hypot(g_high - g, lost - l_low))


def test_a_patient_with_most_slices_is_still_one():
    """Three of forty patients turn, and one of them has half of all slices."""
    sizes = np.array([39] + [1] * 39)
    owner = np.repeat(np.arange(40), sizes)
    nothing = np.zeros(len(owner), dtype=bool)
    found = paired_difference(nothing, owner < 3, owner)
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    assert (
        found.method
        == f"exact binomial gains and losses, {effective:.1f} effective of 40 patients (MOVER)"
    )
    assert found.low < 0.1
    assert found.high > 0.9


def test_the_interval_of_a_median_holds_it():
    """Half of the slices of each patient lie at 1, half at 5."""
    values, owner = np.tile([1.0, 5.0], 20), np.repeat(np.arange(20), 2)
    median = np.quantile(values, 0.5, method="higher")
    found = quantile_interval(values, owner)
    assert found.low <= median <= found.high


def test_a_gain_and_a_loss_are_not_no_change():
    """Each of forty patients has one of both: none of them is unchanged."""
    before, owner = np.arange(80) % 2 == 0, np.arange(80) // 2
    found = paired_difference(before, ~before, owner)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert found.method == "cluster bootstrap over 40 patients, 2000 draws"


@pytest.mark.parametrize("kind", [float, object])
def test_answers_may_be_of_any_type(kind):
    """Tables read from files hold objects."""
    before, after = np.arange(40) % 4 == 0, np.arange(40) % 3 == 0
    owner = np.arange(40) // 2
    expected = paired_difference(before, after, owner)
    assert paired_difference(before.astype(kind), after.astype(kind), owner) == expected


@pytest.mark.parametrize("most", ["gains", "losses", "neither"])
def test_patients_differ_from_the_largest_group_that_is_alike(most):
    """Of forty patients 31, then 30 are alike: nine differ, then ten."""
    for alike, method in ((31, "exact"), (30, "cluster bootstrap")):
        before, after = np.full(40, most == "gains"), np.full(40, most != "gains")
        before[:alike], after[:alike] = most == "losses", most == "gains"
        assert paired_difference(before, after, np.arange(40)).method.startswith(method)


def test_bounds_of_a_difference_end_at_one():
    found = paired_difference([False] * 3, [True] * 3, range(3))
    assert (found.difference, found.high) == (1, 1)
    back = paired_difference([True] * 3, [False] * 3, range(3))
    assert (back.difference, back.low, back.high) == (-1, -1, -found.low)


def test_p_value_is_that_of_all_swaps_of_patients():
    """Eight patients have 256 swaps, which can be counted; slices of a patient swap at once."""
    gains, losses = np.array([3, 2, 1, 0, 2, 0, 1, 1]), np.array([0, 0, 1, 1, 0, 0, 2, 0])
    owner = np.repeat(np.arange(8), 4)
    place = np.tile(np.arange(4), 8)
    after, before = place < np.repeat(gains, 4), place >= 4 - np.repeat(losses, 4)
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    net = gains - losses
    expected = np.mean(np.abs(signs @ net) >= abs(net.sum()))
    found = paired_difference(before, after, owner, draws=20000)
    # Five standard errors of 20000 draws.
    assert found.p_value == pytest.approx(expected, abs=0.018)
    assert found.p_value != paired_difference(before, after, owner, draws=20000, seed=1).p_value
    assert found == paired_difference(before, after, owner, draws=20000)


def test_a_bootstrap_has_the_quantiles_of_its_level():
    """One slice a patient: the share of gains is binomial, the quantiles are known."""
    right, owner = np.arange(400) % 4 == 0, np.arange(400)
    before = np.zeros(400, dtype=bool)
    for level, quantile in ((0.5, 0.6745), (0.95, 1.96)):
        found = paired_difference(before, right, owner, level=level, draws=4000)
        half = quantile * np.sqrt(0.25 * 0.75 / 400)
        # A slice is 0.0025, and 4000 draws know a bound to about a tenth of a standard error.
        assert (found.low, found.high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.005)
        assert found.method == "cluster bootstrap over 400 patients, 4000 draws"


def test_patients_are_weighed_by_their_slices():
    """Half of the patients have one slice, which is right; half have three, which are wrong."""
    owner = np.concatenate([np.arange(200), np.repeat(np.arange(200, 400), 3)])
    right = np.arange(800) < 200
    low, high, _ = share_interval(right, owner)
    # The ratio's standard error by the delta method: right minus share times slices is 0.75 for one
    # half of the patients and -0.75 for the other; they have two slices on average.
    error = np.sqrt(0.75**2 / 400) / 2
    assert (low, high) == pytest.approx((0.25 - 1.96 * error, 0.25 + 1.96 * error), abs=0.005)


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_a_mean_has_the_bounds_of_student(level):
    """One number a patient: the textbook's interval; and numbers repeated add nothing."""
    costs = np.array([4.0, 6.0, 5.0, 9.0, 7.0, 5.0])
    found = mean_interval(costs, np.arange(6), level=level)
    low, high = t.interval(level, 5, loc=6, scale=costs.std(ddof=1) / np.sqrt(6))
    assert found[:2] == pytest.approx((low, high))
    again = mean_interval(np.repeat(costs, 3), np.repeat(np.arange(6), 3), level=level)
    assert again[:2] == pytest.approx(found[:2])
    assert mean_interval([0, 0, 9], [0, 1, 2]).low == 0
    assert mean_interval([1, 2], [0, 0])[:2] == (0, np.inf)


def test_defaults_are_those_that_reports_name():
    for measure in (share_interval, paired_difference, patient_accuracy, mean_interval):
        settings = {
            name: setting.default
            for name, setting in inspect.signature(measure).parameters.items()
            if setting.default is not setting.empty
        }
        expected = {"draws": 2000, "level": 0.95, "seed": 0}
        assert settings == {name: expected[name] for name in settings}


def test_one_patient_says_nothing_about_patients():
    assert share_interval([True, False], ["a", "a"]) == (0.0, 1.0, "one patient: no interval")
    found = paired_difference([True, False], [True, True], ["a", "a"])
    assert found == (0.5, -1.0, 1.0, 1.0, 1, "one patient: no interval")


@pytest.mark.parametrize("measure", [share_interval, patient_accuracy, mean_interval])
def test_slices_without_patients_are_refused(measure):
    with pytest.raises(ResultError, match="at least one slice"):
        measure([], [])
    with pytest.raises(ResultError, match=r"\(2,\) slices and \(3,\) patients"):
        measure([True, True], ["a", "b", "c"])
    with pytest.raises(ResultError, match=r"got \(1, 2\) slices"):
        measure([[True, True]], [["a", "b"]])


def test_patient_is_right_where_most_slices_are():
    found = patient_accuracy([1, 1, 0, 1, 0, 0, 0, 1], list("aaabbccd"))
    assert found.accuracy == 0.5  # a and d; b is a tie, which is wrong
    assert found.n == 4
    assert found.interval.low == pytest.approx(0.15, abs=0.005)  # Wilson for 2 of 4: 0.150 to 0.850
    assert found.interval.high == pytest.approx(0.85, abs=0.005)


@pytest.mark.parametrize("right", [True, False])
def test_wilson_bound_meets_the_ends(right):
    found = patient_accuracy([right] * 30, range(30))
    assert found.interval.low <= found.accuracy <= found.interval.high
    assert found.interval.high - found.interval.low == pytest.approx(0.1135, abs=0.001)


def test_difference_pairs_the_slices():
    """A gain in every patient is certain though both accuracies vary widely between patients."""
    rng = np.random.default_rng(3)
    before, owner = draw_cohort(rng, accuracy=0.4)
    after = before | (rng.random(len(before)) < 0.3)
    found = paired_difference(before, after, owner, draws=800)
    assert found.difference == pytest.approx(after.mean() - before.mean())
    assert 0 < found.low < found.difference < found.high < 0.4
    assert found.p_value == 1 / 8001
    apart = share_interval(after, owner)
    assert found.high - found.low < apart.high - apart.low
    back = paired_difference(after, before, owner, draws=800)
    assert (back.difference, back.p_value) == (-found.difference, found.p_value)


def test_no_change_has_a_bound_on_both_sides():
    correct = np.arange(60) % 2 == 0
    found = paired_difference(correct, correct, np.arange(60) // 2)
    assert found.difference == 0
    assert found.p_value == 1
    assert -found.low == pytest.approx(found.high) == pytest.approx(1 - 0.025 ** (1 / 30))


def test_change_of_everything_is_not_certain_for_all_patients():
    found = paired_difference([False] * 60, [True] * 60, np.arange(60) // 2)
    assert found.high == 1
    assert 0.8 < found.low < 0.9
    assert found.method.startswith("exact")


def test_p_value_is_uniform_without_an_effect():
    rng = np.random.default_rng(4)
    owner = np.repeat(np.arange(20), 5)
    small = 0
    for _ in range(200):
        quality = rng.random(20)[owner]
        before, after = rng.random(100) < quality, rng.random(100) < quality
        small += paired_difference(before, after, owner, draws=200).p_value <= 0.1
    # Binomial(200, 0.1): standard error 0.021.
    assert 0.03 <= small / 200 <= 0.17


def test_difference_of_other_slices_is_refused():
    with pytest.raises(ResultError, match="same slices"):
        paired_difference([True], [True, False], ["a"])


@pytest.mark.parametrize("many", [4000, 5], ids=["few patients", "many"])
def test_a_bootstrap_in_parts_is_the_whole(monkeypatch, many):
    """So its memory does not grow with the patients, and no published figure moves."""
    owner = np.repeat(np.arange(30), 3)
    before, after = np.arange(90) % 3 > 0, np.arange(90) % 7 > 0
    found, largest = [], []
    drawn = intervals._drawn

    def watched(*given):
        for times in drawn(*given):
            largest[-1] = max(largest[-1], times.size)
            yield times

    monkeypatch.setattr(intervals, "_drawn", watched)
    monkeypatch.setattr(intervals, "MANY_PATIENTS", many)
    for at_once in (1 << 22, 1000):
        monkeypatch.setattr(intervals, "AT_ONCE", at_once)
        largest.append(0)
        found.append(
            (
                paired_difference(before, after, owner, draws=200),
                quantile_interval(np.arange(90) / 90, owner, draws=200),
            )
        )
    assert found[0] == found[1]
    assert largest[1] <= 1000 < largest[0]
