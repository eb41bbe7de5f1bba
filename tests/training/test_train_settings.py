from __future__ import annotations

import pytest

from robustmri.core.errors import SettingsError, ThreatModelError
from robustmri.training.objectives import OBJECTIVES, check_objective
from robustmri.training.settings import TrainSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"attack_steps": 0},
        {"guard_steps": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"attack_step_size": -1.0},
        {"momentum": 1.0},
        {"ema_decay": 1.0},
        {"label_smoothing": -0.1},
        {"warmup_epochs": -1.0},
        {"weight_decay": -1e-4},
        {"weight_decay": float("nan")},
        {"learning_rate": float("inf")},
        {"beta": float("inf")},
        {"eps_ramp_epochs": -1.0},
        {"guard_slices": -1},
        {"clean_cost": -1.0},
        {"clean_cost": float("nan")},
        {"devices": 0},
        {"nodes": 0},
    ],
    ids=str,
)
def test_a_number_out_of_range_is_named(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(SettingsError, match=f"^{name} must be .* got {value}"):
        TrainSettings(**wrong)


@pytest.mark.parametrize("eps", ["four", "-0.1", "0.04@pixels", "nan"])
def test_an_eps_that_is_none_is_refused_before_training(eps):
    with pytest.raises(ThreatModelError, match="eps"):
        TrainSettings(eps=eps)


@pytest.mark.parametrize(
    ("together", "message"),
    [
        (
            {"average": "swa", "swa_from_epoch": 30},
            "swa_from_epoch must be below epochs, got 30 and 30",
        ),
        ({"objective": "trades", "clean_share": 0.5}, "clean_share belongs to .* not to 'trades'"),
        ({"logit_pairing": 1.0}, "logit_pairing needs attacked images"),
        ({"objective": "mart", "label_smoothing": 0.1}, "label_smoothing has no meaning in 'mart'"),
        (
            {"objective": "adversarial", "dual_batch_norm": True},
            "dual_batch_norm needs .* clean and at attacked",
        ),
        ({"dual_batch_norm": True}, "dual_batch_norm needs"),
        (
            {"objective": "trades", "dual_batch_norm": True, "average": "swa"},
            "re-estimates batch-norm on clean images",
        ),
    ],
    ids=str,
)
def test_a_setting_that_another_leaves_without_effect_is_refused(together, message):
    with pytest.raises(SettingsError, match=message):
        check_objective(TrainSettings(**together))


@pytest.mark.parametrize(
    "together",
    [
        {"objective": "adversarial", "dual_batch_norm": True, "clean_share": 0.5},
        {"objective": "adversarial", "dual_batch_norm": True, "logit_pairing": 0.5},
        {"objective": "trades", "dual_batch_norm": True, "label_smoothing": 0.1},
        {"objective": "mart", "dual_batch_norm": True},
        {"average": "swa", "swa_from_epoch": 29},
    ],
    ids=str,
)
def test_settings_that_go_together(together):
    check_objective(TrainSettings(**together))


def test_all_but_standard_training_meets_attacked_images():
    """Or noise, under which it is validated as the others are."""
    unattacked = [name for name, method in OBJECTIVES.items() if method.attack is None]
    assert unattacked == ["standard", "noisy"]
    for name in OBJECTIVES:
        assert TrainSettings(objective=name).attacked == (name != "standard")
    with pytest.raises(SettingsError, match=r"no objective 'trade'\. Did you mean 'trades'"):
        check_objective(TrainSettings(objective="trade"))


def test_a_short_run_meets_the_whole_eps_too():
    assert TrainSettings(epochs=1, eps_ramp_epochs=5.0).ramp_epochs == 0
    assert TrainSettings(epochs=40, eps_ramp_epochs=5.0).ramp_epochs == 5.0
    assert TrainSettings(epochs=3, eps_ramp_epochs=5.0).ramp_epochs == 2
