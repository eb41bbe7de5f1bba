"""Medians of the smallest eps, against slices that are written out."""

from __future__ import annotations

import numpy as np
import pytest

from robustmri.core.errors import ResultError
from robustmri.evaluation.contrast import (
    DRAWS,
    Median,
    Nearest,
    compare_ease,
    draw_medians,
    measure_ease,
)

INF = np.inf


def slices(eps, groups=None, searched=None) -> Nearest:
    eps = np.array(eps, dtype=float)
    names = range(len(eps)) if groups is None else groups
    return Nearest(eps, np.array([str(name) for name in names]), searched or len(eps))


def test_a_draw_is_the_median_of_the_slices_that_it_repeats():
    rng = np.random.default_rng(3)
    nearest = slices(rng.permutation(23) / 7, rng.integers(0, 6, 23))
    found = draw_medians(nearest, 5)
    names, owner = np.unique(nearest.groups, return_inverse=True)
    times = np.random.default_rng(5).multinomial(len(names), [1 / len(names)] * len(names), 100)
    expected = [
        np.quantile(np.repeat(nearest.eps, one[owner]), 0.5, method="higher") for one in times
    ]
    assert found[:100].tolist() == expected
    assert len(found) == DRAWS


@pytest.mark.parametrize(
    ("eps", "value", "held"),
    [
        ([3, 1, 2], 2.0, 0),
        ([1, 2, 3, 4], 3.0, 0),
        ([1, 2, INF], 2.0, 1),
        ([1, INF, INF, 2], None, 2),
    ],
)
def test_what_holds_is_infinitely_far(eps, value, held):
    found = measure_ease("a", slices(eps, searched=9))
    assert (found.eps.value, found.held, found.right, found.searched) == (value, held, len(eps), 9)


def test_the_interval_is_by_patient():
    """A hundred slices of two patients are worth two."""
    eps = np.repeat([1.0, 2.0], 50) + np.arange(100) / 1e4
    wide = measure_ease("a", slices(eps, np.repeat([0, 1], 50))).eps
    assert (wide.low < 1.1, wide.high > 1.9) == (True, True)
    many = np.tile([1.0, 1.1, 1.2, 1.3, 1.4], 40)
    narrow = measure_ease("a", slices(many)).eps
    assert narrow.low >= 1.1
    assert narrow.high <= 1.3


def test_a_ratio_below_one_means_the_first_is_easier():
    near = slices(np.linspace(0.9, 1.1, 200))
    found = compare_ease(near, slices(2 * near.eps))
    assert found.value == pytest.approx(0.5)
    assert 0.4 < found.low < 0.5 < found.high < 0.6
    for one, other in ((near, slices([INF] * 3)), (slices([INF] * 3), near)):
        assert compare_ease(one, other) == Median(None, None, None)


def test_without_a_right_slice_there_is_nothing_to_measure():
    with pytest.raises(ResultError, match="of 7 slices none was named rightly"):
        measure_ease("a", slices([], searched=7))
