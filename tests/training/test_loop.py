from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import pytest
import torch

from robustmri.errors import CheckpointError, RobustMRIError
from robustmri.threat.threat_model import ThreatModel
from robustmri.training.loop import STATE, _batches, _parameter_groups, threat_of
from robustmri.training.settings import TrainSettings
from tiny import same_weights

ADVERSARIAL = {"objective": "adversarial", "eps": "0.03", "attack_steps": 2, "eps_ramp_epochs": 2.0, "guard_steps": 2}


class Killed(BaseException):
    """What no handler catches."""


def stop_at(step):
    def progress(task, done, total, note=""):
        if done == step:
            raise Killed

    return progress


def epochs_of(run):
    with open(run / "epochs.csv", newline="") as stream:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(stream)]


def test_it_learns(train_for, tmp_path, choose):
    classifier, kept = train_for(tmp_path, epochs=10, augment="none")
    assert not classifier.training
    with torch.no_grad():
        accuracy = (classifier(choose.images).argmax(1) == choose.labels).float().mean().item()
    assert accuracy == pytest.approx(kept.validation_accuracy)
    assert accuracy > 0.8


def test_hardening_at_eps_zero_is_training(train_for, tmp_path):
    """Identity 2. The guard looks at 3 of 24 slices, and must not choose another epoch for it."""
    settings = {"eps": "0", "ema_decay": 0.5, "guard_slices": 3, "epochs": 5, "learning_rate": 0.1}
    plain, kept = train_for(tmp_path / "a", **settings)
    hardened, kept_too = train_for(tmp_path / "b", **settings, objective="adversarial", eps_ramp_epochs=2.0)
    assert same_weights(plain, hardened)
    assert kept.epoch == kept_too.epoch
    losses = [[row["train_loss"] for row in epochs_of(tmp_path / name)] for name in "ab"]
    assert losses[0] == losses[1]
    assert all(row["validation_robust_accuracy"] == row["validation_accuracy"] for row in epochs_of(tmp_path / "b"))


def test_hardening_is_more_than_training(train_for, tmp_path):
    plain, _ = train_for(tmp_path / "a")
    hardened, _ = train_for(tmp_path / "b", **ADVERSARIAL)
    assert not same_weights(plain, hardened)


@pytest.mark.parametrize("settings", [{}, {**ADVERSARIAL, "ema_decay": 0.9}], ids=["standard", "adversarial"])
@pytest.mark.parametrize("step", [2, 4, 8], ids=["in epoch 1", "in epoch 2", "in epoch 3"])
def test_an_interrupted_run_ends_as_the_uninterrupted_one(train_for, tmp_path, settings, step):
    whole, kept = train_for(tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        train_for(tmp_path / "cut", **settings, progress=stop_at(step))
    steps = []
    again, kept_too = train_for(
        tmp_path / "cut", **settings, progress=lambda task, done, total, note="": steps.append(done)
    )
    assert steps[0] == (step - 1) // 3 * 3 + 1, "finished epochs are not repeated"
    assert same_weights(whole, again)
    assert epochs_of(tmp_path / "whole") == epochs_of(tmp_path / "cut")
    assert kept.epoch == kept_too.epoch


def test_interrupted_twice_and_once_at_the_very_end(train_for, tmp_path):
    whole, _ = train_for(tmp_path / "whole")
    for step in (4, 7):
        with pytest.raises(Killed):
            train_for(tmp_path / "cut", progress=stop_at(step))
    train_for(tmp_path / "cut")
    steps = []
    again, _ = train_for(tmp_path / "cut", progress=lambda *said: steps.append(said))
    assert steps == []
    assert same_weights(whole, again)


def test_what_a_kill_left_in_the_middle_of_a_write_is_cleared(train_for, tmp_path):
    (tmp_path / f".{STATE}.0badcafe.partial").write_bytes(b"half")
    train_for(tmp_path, epochs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epochs.csv", STATE]


def test_a_damaged_state_is_named(train_for, tmp_path):
    train_for(tmp_path, epochs=1)
    content = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"resume\.pt cannot be used to go on"):
        train_for(tmp_path, epochs=1)


@pytest.mark.parametrize("settings", [{}, ADVERSARIAL], ids=["standard", "adversarial"])
def test_the_seed_decides(train_for, tmp_path, settings):
    one, _ = train_for(tmp_path / "1", epochs=1, **settings)
    torch.manual_seed(99)
    same, _ = train_for(tmp_path / "2", epochs=1, **settings)
    other, _ = train_for(tmp_path / "3", epochs=1, **settings, seed=1)
    assert same_weights(one, same)
    assert not same_weights(one, other), "order, augmentation and random starts are drawn from the seed"


def test_the_global_generator_is_left_alone(train_for, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train_for(tmp_path, epochs=1, **ADVERSARIAL)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("settings", [{}, ADVERSARIAL], ids=["standard", "adversarial"])
def test_a_loss_that_is_not_finite_is_an_error(train_for, tmp_path, settings):
    with pytest.raises(RobustMRIError, match=r"The loss is (nan|inf) in epoch \d.*lower learning_rate \(now 1e\+08\)"):
        train_for(tmp_path, learning_rate=1e8, warmup_epochs=0.0, **settings)


def test_a_bad_epoch_is_not_stored(train_for, tmp_path):
    train_for(tmp_path, epochs=1)
    before = (tmp_path / STATE).read_bytes()
    with pytest.raises(RobustMRIError, match="in epoch 2"):
        train_for(tmp_path, epochs=3, learning_rate=1e30, warmup_epochs=0.0)
    assert (tmp_path / STATE).read_bytes() == before


def test_the_log_says_what_happened(train_for, tmp_path):
    train_for(tmp_path, epochs=3, **ADVERSARIAL)
    rows = epochs_of(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["eps"]) for row in rows] == pytest.approx([0.015, 0.03, 0.03])
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] < rates[1] > rates[2] > 0
    assert all(0 <= float(row["validation_robust_accuracy"]) <= float(row["validation_accuracy"]) <= 1 for row in rows)
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)


@pytest.mark.parametrize("ranks", [1, 3])
def test_each_epoch_takes_every_image_once_in_its_own_order(ranks):
    orders = []
    for epoch in (0, 1, 0):
        places = [SimpleNamespace(global_rank=rank, world_size=ranks, device="cpu") for rank in range(ranks)]
        parts = [list(_batches(42, TrainSettings(batch_size=16), epoch, place)) for place in places]
        assert [len(step) for step in parts[0]] == [-(-size // ranks) for size in (16, 16, 10)]
        orders.append(torch.cat([rows for of_rank in parts for rows in of_rank]))
        assert sorted(orders[-1].tolist()) == list(range(42))
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])


def test_progress_counts_to_the_end(train_for, tmp_path):
    said = []
    train_for(tmp_path, progress=lambda task, done, total, note="": said.append((done, total)))
    assert said == [(step, 9) for step in range(1, 10)]


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_average_is_what_is_kept(train_for, tmp_path, decay):
    kept, _ = train_for(tmp_path, epochs=1, ema_decay=decay)
    state = torch.load(tmp_path / STATE, weights_only=True)
    chosen, other = ("average", "classifier") if decay else ("classifier", "average")
    weight = kept.state_dict()["network.0.weight"]
    stored = {
        "average": state["average"]["module.network.0.weight"], "classifier": state["classifier"]["network.0.weight"],
    }  # fmt: skip
    assert torch.equal(weight, stored[chosen])
    assert not torch.equal(weight, stored[other])


def test_norms_and_biases_do_not_decay(fresh):
    decayed, free = _parameter_groups(fresh(), 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert [parameter.dim() for parameter in decayed["params"]] == [4, 4, 2]
    assert all(parameter.dim() == 1 for parameter in free["params"])


def test_settings_name_the_threat(fresh):
    settings = TrainSettings(objective="adversarial", eps="0.1@normalised", norm="l2")
    assert threat_of(settings, fresh()) == ThreatModel(norm="l2", eps=0.1 * 0.226)


def test_robust_validation_is_at_the_full_radius_from_the_first_epoch(train_for, tmp_path):
    """The ramp is for training; a number measured at another radius each epoch could not be compared."""
    _, _ = train_for(tmp_path, epochs=3, **{**ADVERSARIAL, "eps": "0.5", "learning_rate": 1e-6})
    assert {float(row["validation_robust_accuracy"]) for row in epochs_of(tmp_path)} == {0.0}
