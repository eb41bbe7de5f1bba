from __future__ import annotations

import pytest

from robustmri.errors import SettingsError, ThreatModelError
from robustmri.training.settings import TrainSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"batch_size": 0}, {"attack_steps": 0}, {"guard_steps": 0}, {"learning_rate": 0.0},
        {"learning_rate": float("nan")}, {"attack_step_size": -1.0}, {"momentum": 1.0}, {"ema_decay": 1.0},
        {"label_smoothing": -0.1}, {"warmup_epochs": -1.0}, {"weight_decay": -1e-4}, {"eps_ramp_epochs": -1.0},
        {"guard_slices": -1}, {"clean_cost": -1.0}, {"clean_cost": float("nan")}, {"devices": 0}, {"nodes": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_number_out_of_range_is_named(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(SettingsError, match=f"^{name} must be .* got {value}"):
        TrainSettings(**wrong)


@pytest.mark.parametrize("eps", ["four", "-0.1", "0.04@pixels", "nan"])
def test_an_eps_that_is_none_is_refused_before_training(eps):
    with pytest.raises(ThreatModelError, match="eps"):
        TrainSettings(eps=eps)
