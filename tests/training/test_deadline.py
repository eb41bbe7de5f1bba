from __future__ import annotations

import csv
import itertools

import pytest

from robustmri.training.cost import TimeEstimate
from robustmri.training.deadline import FILE, next_pass, read_fitted
from robustmri.training.resume import Storing
from robustmri.training.settings import TrainSettings


def passes_of(seconds_each, passes, seconds):
    """Where each pass began, for passes that take so long."""
    taken, begins = [], []
    for each in seconds_each:
        begin, length, share = next_pass(taken, passes, seconds)
        if not length:
            return begins, taken, begin
        begins.append(begin)
        taken.append(each * share)
    raise AssertionError("it never ends")


def test_a_run_on_time_goes_through_its_schedule():
    for seconds in (None, 100.0):
        begins, _, end = passes_of(itertools.repeat(9.0), 10, seconds)
        assert begins == pytest.approx(list(range(10)))
        assert end == 10


@pytest.mark.parametrize("each", [11.0, 14.0, 30.0, 49.0])
def test_a_late_run_ends_in_time_and_at_the_end_of_its_schedule(each):
    begins, taken, end = passes_of(itertools.repeat(each), 10, 100.0)
    assert sum(taken) <= 100.0
    assert len(begins) == int(100 / each)
    assert end == 10
    assert all(later > before for before, later in itertools.pairwise(begins))


@pytest.mark.parametrize(("each", "passes"), [(51.0, 2), (51.0, 10), (60.0, 3), (80.0, 3)])
def test_where_no_whole_pass_is_left_a_part_of_one_ends_the_schedule(each, passes):
    begins, taken, end = passes_of(itertools.repeat(each), passes, 100.0)
    if each == 80.0:
        assert taken == [each], "what is left is not worth beginning"
    else:
        assert (begins, sum(taken)) == ([0.0, 1.0], pytest.approx(100.0))
        assert sum(next_pass(taken[:1], passes, 100.0)[:2]) == passes
    assert end == passes


def test_a_pass_that_is_too_long_from_the_first_takes_a_part_of_the_slices():
    assert next_pass([], 1, 100.0, 125.0) == (0.0, 1.0, 0.8)
    assert next_pass([], 1, 100.0, 1e6) == (0.0, 1.0, 0.3), "one pass in any case"
    assert next_pass([], 10, 100.0, 9.5) == (0.0, 1.0, 1.0)


def test_a_run_that_slows_down_in_the_middle():
    begins, taken, end = passes_of(itertools.chain([9.0] * 5, itertools.repeat(20.0)), 10, 100.0)
    assert sum(taken) <= 110.0, "by one pass at most, whose time could not be known"
    assert begins[:6] == pytest.approx([0, 1, 2, 3, 4, 5])
    assert end == 10


def test_one_pass_is_made_however_late():
    assert passes_of(itertools.repeat(500.0), 10, 100.0)[0] == [0.0]


def rows_of(run):
    with open(run / "epochs.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def test_so_many_epochs_as_fit(train_for, tmp_path, monkeypatch):
    each = TimeEstimate(seconds=20.0, batches=1)
    monkeypatch.setattr("robustmri.training.loop._cost_of_epoch", lambda *_: each)
    _, choice = train_for(tmp_path, epochs=10_000, minutes=1.6, warmup_epochs=100.0)
    fitted = read_fitted(tmp_path)
    assert (fitted.seconds_per_epoch, fitted.epochs) == (20.0, 4)
    assert choice.row.epoch <= len(rows_of(tmp_path)) == 4


def test_no_more_epochs_than_asked_for(train_for, tmp_path):
    train_for(tmp_path, epochs=2, minutes=5.0)
    assert read_fitted(tmp_path).epochs == 2
    assert len(rows_of(tmp_path)) == 2


def test_a_run_with_time_to_spare_is_the_run_without_a_limit(train_for, tmp_path):
    from tiny import same_weights

    plain, _ = train_for(tmp_path / "a", epochs=3)
    limited, _ = train_for(tmp_path / "b", epochs=3, minutes=30.0)
    assert same_weights(plain, limited)


def test_a_resumed_run_keeps_its_number(train_for, tmp_path):
    class Killed(BaseException):
        pass

    def kill(task, done, total, note=""):
        if done == 4:
            raise Killed

    settings = {"epochs": 4, "minutes": 30.0}
    whole, _ = train_for(tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        train_for(tmp_path / "killed", progress=kill, **settings)
    written = (tmp_path / "killed" / FILE).read_bytes()
    resumed, _ = train_for(tmp_path / "killed", **settings)
    from tiny import same_weights

    assert (tmp_path / "killed" / FILE).read_bytes() == written
    assert same_weights(whole, resumed)


def test_far_too_little_time_still_gives_a_network(train_for, tmp_path):
    _, choice = train_for(
        tmp_path, epochs=30, minutes=1e-6, objective="adversarial", attack_steps=2
    )
    assert len(rows_of(tmp_path)) == 1
    assert choice.row.epoch == 1


def test_minutes_are_not_negative():
    with pytest.raises(Exception, match="minutes must be at least 0"):
        TrainSettings(minutes=-1.0)


def test_storing_takes_a_twentieth_of_the_time():
    now, stored = [0.0], []

    def store():
        now[0] += 2.0
        stored.append(now[0])

    storing = Storing(clock=lambda: now[0])
    for epoch in range(100):
        now[0] += 4.0
        storing.maybe(store, last=epoch == 99)
    assert len(stored) == pytest.approx(100 * 4 / 40, abs=2)
    assert stored[-1] == now[0], "after the last in any case"


def test_quick_storing_is_done_after_every_epoch():
    now, stored = [0.0], []
    storing = Storing(clock=lambda: now[0])
    for _ in range(10):
        now[0] += 0.01
        storing.maybe(lambda: stored.append(1), last=False)
    assert len(stored) == 10
