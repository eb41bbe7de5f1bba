from __future__ import annotations

import csv
import math
import re

import pytest
import torch
from torch import nn

from robustmri.core.errors import CheckpointError, RobustMRIError, SettingsError
from robustmri.training.loop import _optimiser
from robustmri.training.resume import STATE, read_state
from robustmri.training.schedule import learning_rate
from robustmri.training.selection import read_epochs
from robustmri.training.settings import TrainSettings
from robustmri.training.validation import Measured, _worst_class
from tiny import same_weights

ADVERSARIAL = {
    "objective": "adversarial",
    "eps": "0.03",
    "attack_steps": 2,
    "eps_ramp_epochs": 2.0,
    "guard_steps": 2,
}


class Killed(BaseException):
    """What no handler catches."""


def stop_at(step):
    def progress(task, done, total, note=""):
        if done == step:
            raise Killed

    return progress


def epochs_of(run):
    with open(run / "epochs.csv", newline="") as stream:
        return [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in csv.DictReader(stream)
        ]


def test_it_learns(train_for, tmp_path, choose):
    classifier, kept = train_for(tmp_path, epochs=10, augment="none")
    assert not classifier.training
    with torch.no_grad():
        accuracy = (classifier(choose.images).argmax(1) == choose.labels).float().mean().item()
    assert accuracy == pytest.approx(kept.row.validation_accuracy)
    assert accuracy > 0.8


def test_hardening_at_eps_zero_is_training(train_for, tmp_path):
    """Identity 2. The guard looks at 3 of 24 slices, and must not choose another epoch for it."""
    settings = {"eps": "0", "ema_decay": 0.5, "guard_slices": 3, "epochs": 5, "learning_rate": 0.1}
    plain, kept = train_for(tmp_path / "a", **settings)
    hardened, kept_too = train_for(
        tmp_path / "b", **settings, objective="adversarial", eps_ramp_epochs=2.0
    )
    assert same_weights(plain, hardened)
    assert kept.row.epoch == kept_too.row.epoch
    losses = [[row["train_loss"] for row in epochs_of(tmp_path / name)] for name in "ab"]
    assert losses[0] == losses[1]
    assert all(
        row["validation_robust_accuracy"] == row["validation_accuracy"]
        for row in epochs_of(tmp_path / "b")
    )


def test_hardening_is_more_than_training(train_for, tmp_path):
    plain, _ = train_for(tmp_path / "a")
    hardened, _ = train_for(tmp_path / "b", **ADVERSARIAL)
    assert not same_weights(plain, hardened)


SMOOTH = {**ADVERSARIAL, "ema_decay": 0.9, "weight_perturbation": "awp"}
BOTH = {**ADVERSARIAL, "objective": "trades", "dual_batch_norm": True, "ema_decay": 0.9}
SWA = {**ADVERSARIAL, "average": "swa", "swa_from_epoch": 1}


@pytest.mark.parametrize(
    ("settings", "step"),
    [({}, 2), (SMOOTH, 4), (BOTH, 4), (BOTH, 8), (SWA, 2), (SWA, 8)],
    ids=["standard, 1", "adversarial, 2", "trades, 2", "trades, 3", "swa, 1", "swa, 3"],
)
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
    assert kept.row.epoch == kept_too.row.epoch


def test_what_a_network_draws_by_itself_follows_from_the_seed(train_for, fresh, tmp_path):
    def drawing():
        start = fresh()
        start.network = nn.Sequential(nn.Dropout(0.5), start.network)
        return start

    torch.manual_seed(1)
    whole, _ = train_for(tmp_path / "whole", start=drawing())
    before = torch.manual_seed(2).get_state()
    with pytest.raises(Killed):
        train_for(tmp_path / "cut", start=drawing(), progress=stop_at(5))
    again, _ = train_for(tmp_path / "cut", start=drawing())
    assert same_weights(whole, again)
    assert torch.equal(torch.get_rng_state(), before)
    other, _ = train_for(tmp_path / "other", start=drawing(), seed=1)
    assert not same_weights(whole, other)


def test_a_rate_for_all_but_the_last_layer_needs_one(train_for, fresh, tmp_path):
    start = fresh()
    start.network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(SettingsError, match="last linear layer"):
        train_for(tmp_path, start=start, body_rate=0.1)


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
    assert not same_weights(one, other), (
        "order, augmentation and random starts are drawn from the seed"
    )


def test_the_global_generator_is_left_alone(train_for, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train_for(tmp_path, epochs=1, **ADVERSARIAL)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("settings", [{}, ADVERSARIAL], ids=["standard", "adversarial"])
def test_a_loss_that_is_not_finite_is_an_error(train_for, tmp_path, settings):
    with pytest.raises(
        RobustMRIError,
        match=r"The loss is (nan|inf) in epoch \d.*lower learning_rate \(now 1e\+30\)",
    ):
        # Of 1000 a processor's own rounding decides whether the network dies or overflows.
        train_for(tmp_path, learning_rate=1e30, warmup_epochs=0.0, **settings)


def test_a_bad_epoch_is_not_stored(train_for, tmp_path):
    with pytest.raises(RobustMRIError, match=r"in epoch [2-9]"):
        train_for(tmp_path, epochs=9, learning_rate=1e3, warmup_epochs=0.0)
    stored = read_state(tmp_path)["classifier"]
    assert all(bool(value.isfinite().all()) for value in stored.values())


def test_the_log_says_what_happened(train_for, tmp_path):
    train_for(tmp_path, epochs=3, **ADVERSARIAL)
    rows = epochs_of(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [float(row["eps"]) for row in rows] == pytest.approx([0.015, 0.03, 0.03])
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] < rates[1] > rates[2] > 0
    assert all(
        0 <= float(row["validation_robust_accuracy"]) <= float(row["validation_accuracy"]) <= 1
        for row in rows
    )
    assert all(math.isfinite(float(row["train_loss"])) for row in rows)


def test_progress_counts_to_the_end(train_for, tmp_path):
    said = []
    train_for(tmp_path, progress=lambda task, done, total, note="": said.append((done, total)))
    assert said == [(step, 9) for step in range(1, 10)]


@pytest.mark.parametrize("average", [{"ema_decay": 0.9}, {"average": "swa"}], ids=["ema", "swa"])
def test_the_average_is_what_is_kept(train_for, tmp_path, average):
    kept, _ = train_for(tmp_path, epochs=1, **average)
    state = read_state(tmp_path)
    weight = kept.state_dict()["network.0.weight"]
    assert torch.equal(weight, state["average"]["module.network.0.weight"])
    # The equal average of one epoch is that epoch; its batch-norm is re-estimated.
    other, name = (
        state["classifier"],
        "network.0.weight" if "ema_decay" in average else "network.1.running_mean",
    )
    assert not torch.equal(kept.state_dict()[name], other[name])


def test_mirror_images_change_the_choice_and_not_the_training(train_for, tmp_path, choose):
    """Attacked as it will answer, on its validation slices; its weights are as they would be."""
    attacked = {"objective": "one-step", "eps": "8/255", "guard_slices": 0}
    plain, _ = train_for(tmp_path / "plain", **attacked)
    kept, choice = train_for(tmp_path / "mirrored", mirrored=True, **attacked)
    assert (plain.spec.mirrored, kept.spec.mirrored) == (False, True)
    with torch.no_grad():
        right = (kept(choose.images).argmax(1) == choose.labels).float().mean().item()
        assert torch.equal(kept(choose.images), kept(choose.images.flip(-1)))
    assert choice.row.validation_accuracy == pytest.approx(right)
    before, after = (read_epochs(tmp_path / name) for name in ("plain", "mirrored"))
    assert [row.train_loss for row in before] == [row.train_loss for row in after]


def test_no_average_takes_no_room(train_for, tmp_path):
    train_for(tmp_path, epochs=1)
    assert "average" not in read_state(tmp_path)


def test_norms_and_biases_do_not_decay(fresh):
    decayed, free = _optimiser(fresh(), TrainSettings(weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert [parameter.dim() for parameter in decayed["params"]] == [4, 4, 2]
    assert all(parameter.dim() == 1 for parameter in free["params"])


def test_a_body_rate_spares_all_but_the_last_layer(fresh):
    groups = _optimiser(fresh(), TrainSettings(body_rate=0.1)).param_groups
    shares = {parameter.shape: group["share"] for group in groups for parameter in group["params"]}
    last = {parameter.shape for parameter in list(fresh().parameters())[-2:]}
    assert {shape: share == 1.0 for shape, share in shares.items()} == {
        shape: shape in last for shape in shares
    }
    assert set(shares.values()) == {1.0, 0.1}


def test_robust_validation_is_at_the_full_radius_from_the_first_epoch(train_for, tmp_path):
    """The ramp is for training; a number measured at another radius each epoch could not be
    compared.
    """
    _, _ = train_for(tmp_path, epochs=3, **{**ADVERSARIAL, "eps": "0.5", "learning_rate": 1e-6})
    assert {float(row["validation_robust_accuracy"]) for row in epochs_of(tmp_path)} == {0.0}


def test_the_worst_class_is_measured_as_all_are(train_for, tmp_path):
    train_for(tmp_path, epochs=2, **{**ADVERSARIAL, "eps": "0.001"})
    for row in epochs_of(tmp_path):
        clean, robust = (
            (float(row[f"validation_{name}"]), float(row[f"worst_class_{name}"]))
            for name in ("accuracy", "robust_accuracy")
        )
        assert all(worst <= whole for whole, worst in (clean, robust))
    assert _worst_class(torch.tensor([True, False, True]), torch.tensor([0, 2, 2])) == 0.5


@pytest.mark.parametrize(
    "settings", [{}, {**ADVERSARIAL, "weight_perturbation": "sam"}], ids=["standard", "adversarial"]
)
def test_a_step_in_parts_is_the_step_of_the_whole(train_for, tmp_path, fresh, settings):
    """16, 16 and 10 images in 3 parts each, of 5 and 6 and of 3 and 4; without batch-norm, which
    sees a part alone.
    """
    states = []
    for parts in (1, 3):
        run, start = tmp_path / str(parts), fresh(batch_norm=False)
        train_for(
            run, start=start, accumulate=parts, precision="fp32", learning_rate=0.02, **settings
        )
        states.append(read_state(run)["classifier"])
    before = fresh(batch_norm=False).state_dict()
    for name, value in states[0].items():
        # The order of sums differs, and momentum carries that through nine steps.
        torch.testing.assert_close(value, states[1][name], rtol=1e-4, atol=1e-6)
        assert not torch.allclose(value, before[name], rtol=1e-3, atol=1e-4)


def test_free_passes_once_for_each_of_its_replays(train_for, tmp_path):
    said = []
    train_for(
        tmp_path,
        epochs=6,
        objective="free",
        replays=3,
        eps="0.03",
        eps_ramp_epochs=4.0,
        progress=lambda task, done, total, note="": said.append((done, total)),
    )
    rows = epochs_of(tmp_path)
    assert said[-1] == (6, 6), "two passes of three steps"
    assert [float(row["eps"]) for row in rows] == pytest.approx([0.0225, 0.03])
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(
        [0.05 / 11, 0.05 * 0.5 * (1 + math.cos(0.4 * math.pi))]
    )
    state = read_state(tmp_path)["classifier"]
    assert state["network.1.num_batches_tracked"] == 2 * 3 * 3


def test_a_dual_batch_norm_ends_as_an_ordinary_one(train_for, tmp_path, fresh):
    hardened, _ = train_for(tmp_path, **{**BOTH, "epochs": 2})
    assert hardened.state_dict().keys() == fresh().state_dict().keys()


@pytest.fixture
def scripted(monkeypatch):
    """Accuracies of the epochs, clean, guard and one step, in place of measured ones."""

    def script(*accuracies):
        left = list(accuracies)

        def validate(classifier, validation, settings):
            return Measured(*left.pop(0))

        monkeypatch.setattr("robustmri.training.loop.validate", validate)
        monkeypatch.setattr(
            "robustmri.training.loop.clean_accuracy", lambda *given: validate(*given).clean
        )

    return script


FELL = ((0.9, 0.5, 0.5), (0.9, 0.6, 0.6), (0.9, 0.1, 0.9), (0.9, 0.5, 0.5))
ONE_STEP = {"objective": "one-step", "eps": "0.03", "epochs": 4}


def test_after_a_collapse_it_goes_on_from_the_best_epoch(train_for, tmp_path, scripted):
    scripted(*FELL)
    notes = []
    with pytest.raises(Killed):
        train_for(tmp_path / "4", **ONE_STEP, progress=stop_at(10))
    state = read_state(tmp_path / "4")
    assert state["optimiser"]["state"] == {}
    assert all(
        torch.equal(value, state["kept"][2][name]) for name, value in state["classifier"].items()
    )
    scripted(FELL[3])
    kept, choice = train_for(
        tmp_path / "4", **ONE_STEP, progress=lambda task, done, total, note="": notes.append(note)
    )
    assert notes[0].startswith("Epoch 3: the network withstands one step")
    assert notes[0].endswith("Going on from epoch 2.")
    scripted(*FELL)
    whole, choice_too = train_for(tmp_path / "whole", **ONE_STEP)
    assert same_weights(kept, whole)
    assert epochs_of(tmp_path / "4") == epochs_of(tmp_path / "whole")
    rows = epochs_of(tmp_path / "4")
    assert [row["alarm"] for row in rows] == ["", "", "collapse", ""]
    assert choice.row.epoch == choice_too.row.epoch == 2
    assert [alarm.kind for alarm in choice.alarms] == ["collapse"]
    sound = [
        learning_rate(3.0, TrainSettings(**ONE_STEP, warmup_epochs=1.0)),
        float(rows[3]["learning_rate"]),
    ]
    assert sound[1] == pytest.approx(sound[0] / 2)


def test_a_loss_that_is_lost_does_not_cost_the_epochs_before(
    train_for, tmp_path, scripted, monkeypatch
):
    scripted((0.9, 0.5, 0.5), (0.9, 0.6, 0.6), (0.3, 0.0, 0.0), (0.9, 0.55, 0.6))
    from robustmri.training import loop

    step, seen = loop._step, []

    def third_epoch_diverges(*arguments):
        seen.append(1)
        loss = step(*arguments)
        return loss * math.nan if len(seen) == 8 else loss

    monkeypatch.setattr(loop, "_step", third_epoch_diverges)
    kept, choice = train_for(tmp_path, **ONE_STEP)
    assert [alarm.kind for alarm in choice.alarms] == ["divergence"]
    assert choice.alarms[0].back_to == choice.row.epoch == 2
    assert all(torch.isfinite(value).all() for value in kept.state_dict().values())
    assert [row["alarm"] for row in epochs_of(tmp_path)] == ["", "", "divergence", ""]


def test_the_clean_cost_of_a_resumed_run_is_counted_from_the_same_number(
    train_for, tmp_path, fresh, scripted
):
    settings = {
        "objective": "adversarial",
        "eps": "0.03",
        "attack_steps": 1,
        "clean_cost": 2,
        "epochs": 3,
    }
    scripted((0.92,), (0.91, 0.3), (0.90, 0.5))
    with pytest.raises(Killed):
        train_for(tmp_path, start=fresh(), **settings, progress=stop_at(7))
    scripted((0.85, 0.7))
    _, choice = train_for(tmp_path, start=fresh(), **settings)
    assert choice.row.epoch == 2, "2 points below 0.92, which is not measured again"


def test_without_momentum_there_is_none_of_nesterov(train_for, tmp_path):
    train_for(tmp_path, epochs=1, momentum=0.0)


def test_a_long_run_says_what_it_will_cost_and_is_not_changed_by_that(
    train_for, tmp_path, monkeypatch
):
    said = []
    whole, _ = train_for(
        tmp_path / "a",
        epochs=20,
        batch_size=32,
        progress=lambda task, done, total, note="": said.append((done, note)),
    )
    assert said[0][0] == 0
    assert re.fullmatch(r"about \d+ s on this machine, measured on 3 batches", said[0][1])
    monkeypatch.setattr("robustmri.training.loop.WORTH_MEASURING", 1000)
    unmeasured, _ = train_for(
        tmp_path / "b", epochs=20, batch_size=32, progress=lambda *words: said.append(words[1:2])
    )
    assert said[41][0] == 1
    assert same_weights(whole, unmeasured)


def test_clean_cost_is_counted_from_the_start_of_a_repair(train_for, tmp_path, fresh, scripted):
    """From 0.92: the second epoch costs 2 points and is the most robust that may be kept."""
    epochs = ((0.91, 0.3), (0.90, 0.5), (0.85, 0.7))
    scripted((0.92,), *epochs)
    _, choice = train_for(
        tmp_path / "a",
        start=fresh(),
        objective="adversarial",
        eps="0.03",
        attack_steps=1,
        clean_cost=2,
    )
    assert choice.row.epoch == 2
    scripted(*epochs)
    _, choice = train_for(
        tmp_path / "b", objective="adversarial", eps="0.03", attack_steps=1, clean_cost=6
    )
    assert choice.row.epoch == 3, "from scratch it is counted from the best epoch"


@pytest.mark.parametrize("asked", [False, True])
def test_the_clean_cost_is_counted_from_the_checkpoint_as_it_answers(
    train_for, tmp_path, fresh, monkeypatch, asked
):
    """A repair that asks about mirror images too does not make the checkpoint do so."""
    seen = []

    def reference(classifier, validation, settings):
        seen.append(settings.mirrored)
        return 0.9

    monkeypatch.setattr("robustmri.training.loop.clean_accuracy", reference)
    made, _ = train_for(
        tmp_path,
        start=fresh().answering(mirrored=asked),
        objective="adversarial",
        eps="0.03",
        attack_steps=1,
        epochs=1,
        mirrored=True,
    )
    assert seen == [asked]
    assert made.spec.mirrored
