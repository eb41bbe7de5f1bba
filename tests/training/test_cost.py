from __future__ import annotations

import pytest

from robustmri.training.cost import TimeEstimate, estimate_time


def test_a_run_is_extrapolated_from_a_few_batches():
    """A clock that only work moves: a slow first batch and one disturbed one must not count."""
    now, costs = [100.0], iter([60.0, 2.0, 9.0, 2.0])

    def learn():
        now[0] += next(costs)

    def judge():
        now[0] += 5.0

    cost = estimate_time(learn, judge, batches=600, validations=40, clock=lambda: now[0])
    assert cost == TimeEstimate(seconds=600 * 2.0 + 40 * 5.0, batches=3)
    assert next(costs, None) is None


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0.2, "about 0 s"),
        (89.4, "about 89 s"),
        (90, "about 2 min"),
        (2040, "about 34 min"),
        (5401, "about 1.5 h"),
        (9 * 3600, "about 9.0 h"),
        (72 * 3600, "about 72 h"),
    ],
)
def test_it_says_so(seconds, says):
    assert str(TimeEstimate(seconds, 3)) == f"{says} on this machine, measured on 3 batches"
