from __future__ import annotations

import pytest
from torch import nn

from robustmri.training.history import TrainingHistory, safer
from robustmri.training.selection import Epoch
from robustmri.training.settings import TrainSettings


def row(epoch, clean, robust, *, one_step=None, loss=1.0, rate=0.1):
    return Epoch(
        epoch=epoch,
        learning_rate=rate,
        eps=0.04,
        train_loss=loss,
        validation_accuracy=clean,
        validation_robust_accuracy=robust,
        validation_fgsm_accuracy=one_step,
        zero_gradient_share=0.0,
        seconds=1.0,
    )


def network(epoch):
    """One that tells its epoch by its weight."""
    made = nn.Linear(1, 1)
    nn.init.constant_(made.weight, epoch)
    return made


def follow(history, *rows):
    """What each epoch goes back to, by the weight."""
    backs = [history.add(one, network(one.epoch)) for one in rows]
    return [None if back is None else back["weight"].item() for back in backs]


FELL = [
    row(1, 0.9, 0.4, one_step=0.45),
    row(2, 0.9, 0.6, one_step=0.65),
    row(3, 0.95, 0.1, one_step=0.9),
]


def test_only_weights_that_may_be_chosen_are_kept():
    history = TrainingHistory(clean_cost=5.0)
    assert follow(history, row(1, 0.90, 0.3), row(2, 0.80, 0.5), row(3, 0.79, 0.45)) == [None] * 3
    assert {epoch: weights["weight"].item() for epoch, weights in history.kept.items()} == {
        1: 1.0,
        2: 2.0,
    }
    assert history.choice().row.epoch == 1


def test_kept_weights_are_a_copy():
    history, made = TrainingHistory(), network(1)
    history.add(row(1, 0.9, 0.4), made)
    nn.init.zeros_(made.weight)
    assert history.kept[1]["weight"] == 1.0


def test_after_a_collapse_it_goes_back_with_half_the_steps():
    history = TrainingHistory()
    assert follow(history, *FELL) == [None, None, 2.0]
    assert (history.rate_factor, history.over) == (0.5, False)
    assert history.note.endswith("Going on from epoch 2.")
    assert follow(history, row(4, 0.9, 0.55, one_step=0.6), row(5, 0.95, 0.0, one_step=0.9)) == [
        None,
        2.0,
    ]
    assert history.rate_factor == 0.25
    again = TrainingHistory(epochs=list(history.epochs), kept=history.kept)
    assert (again.alarms, again.rate_factor) == (history.alarms, 0.25), (
        "a resumed run knows it from its rows"
    )
    assert [alarm.epoch for alarm in history.choice().alarms] == [3, 5]


def test_a_first_epoch_that_is_astray_has_nothing_to_go_back_to():
    history = TrainingHistory()
    assert follow(history, row(1, 0.9, 0.8, one_step=0.5)) == [None]
    assert (len(history.alarms), history.rate_factor) == (1, 1.0)
    assert "Going on" not in history.note


def test_overfitting_ends_it_without_going_back():
    history = TrainingHistory()
    rows = [row(n, 0.8, 0.6, loss=1.0) for n in range(1, 7)]
    rows += [
        row(n, 0.85, 0.6 - 0.02 * (n - 6), loss=1.0 - 0.1 * (n - 6), rate=0.01)
        for n in range(7, 16)
    ]
    ends = []
    for one in rows:
        ends += follow(history, one)
        if history.over:
            break
    assert history.over
    assert history.alarms[-1].kind == "robust overfitting"
    assert ends == [None] * len(ends)
    assert history.rate_factor == 1.0
    assert history.choice().row.epoch <= 7


@pytest.mark.parametrize("objective", ["one-step", "trades"])
def test_one_step_takes_two_after_a_collapse(objective):
    history, settings = TrainingHistory(), TrainSettings(objective=objective)
    assert safer(settings, history.alarms) == settings
    follow(history, *FELL)
    after = safer(settings, history.alarms)
    assert (after == settings) == (objective == "trades")
    if objective == "one-step":
        assert (after.objective, after.attack_steps) == ("adversarial", 2)
        assert after.attack_steps * after.attack_step_size == 1.25


def test_notes_say_how_it_goes():
    history = TrainingHistory()
    assert history.note == ""
    history.add(row(1, 0.9, 0.4), network(1))
    assert history.note == "epoch 1: validation 90.0%, robust 40.0%"
