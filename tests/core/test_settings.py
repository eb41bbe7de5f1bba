"""Numbers that no run could be meant to have: one sentence, before any work."""

from __future__ import annotations

import math

import pytest

from robustmri.core.errors import RobustMRIError
from robustmri.evaluation.settings import EvaluateSettings
from robustmri.recipes import PrepareSettings, Recipe, change_settings, load_recipe
from robustmri.training.launch import launch
from robustmri.training.settings import TrainSettings

ODD = [
    (TrainSettings, "seed", -1),
    (TrainSettings, "seed", 2**64),
    (EvaluateSettings, "seed", -1),
    (EvaluateSettings, "seed", 2**64),
    (PrepareSettings, "seed", 2**64),
    (PrepareSettings, "size", 10**12),
    (PrepareSettings, "size", 0),
    (TrainSettings, "learning_rate", 1e300),
    (TrainSettings, "learning_rate", math.nan),
    (TrainSettings, "weight_decay", 1e300),
    (TrainSettings, "batch_size", 0),
    (TrainSettings, "batch_size", 10**12),
    (TrainSettings, "epochs", 10**5000),
    (TrainSettings, "devices", 100_000),
    (TrainSettings, "minutes", 1e300),
    (TrainSettings, "clean_cost", 101.0),
    (EvaluateSettings, "batch_size", 0),
    (EvaluateSettings, "batch_size", 10**12),
    (EvaluateSettings, "limit", -1),
    (EvaluateSettings, "max_seconds", math.inf),
]


@pytest.mark.parametrize(
    ("kind", "name", "value"), ODD, ids=[f"{kind.__name__}-{name}" for kind, name, _ in ODD]
)
def test_odd_numbers_are_refused(kind, name, value):
    for make in (lambda: kind(**{name: value}), lambda: change_settings(kind(), {name: value})):
        with pytest.raises(RobustMRIError, match=name) as told:
            make()
        assert len(str(told.value)) < 200


def test_seeds_of_a_recipe_are_seeds():
    for seeds in ((), (-1,), (2**64,)):
        with pytest.raises(RobustMRIError, match="seeds must be"):
            Recipe(about="", seeds=seeds)


def test_more_processes_than_a_machine_has_cores_are_refused_before_any_starts():
    with pytest.raises(RobustMRIError, match=r"1000 devices .* cannot be had"):
        launch(devices=1000)


@pytest.mark.parametrize(
    "text", ["train.seed=99999999999999999999999", "train.epochs=" + "9" * 5000]
)
def test_odd_numbers_on_the_command_line_are_refused(text):
    with pytest.raises(RobustMRIError) as told:
        load_recipe("standard", [text])
    assert len(str(told.value)) < 300
