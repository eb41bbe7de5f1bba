"""The loop alone: a small classifier, its examples, and settings that take a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.training.loop import Examples, fit
from robustmri.training.selection import Epoch
from robustmri.training.settings import TrainSettings
from tiny import CLASSES, SIZE, draw_slice, tiny_network


def examples(patients: range) -> Examples:
    cases = [(kind, patient, number) for kind in range(3) for patient in patients for number in range(2)]
    images = torch.stack([torch.from_numpy(draw_slice(*case)).float() / 255 for case in cases])[:, None]
    return Examples(images, torch.tensor([kind for kind, _, _ in cases]))


@pytest.fixture(scope="session")
def learn() -> Examples:
    """42 slices: at batches of 16 the last one is smaller."""
    return examples(range(7))


@pytest.fixture(scope="session")
def choose() -> Examples:
    return examples(range(7, 11))


@pytest.fixture
def fresh() -> Callable[..., Classifier]:
    """Seed to a classifier nobody has trained."""

    def make(seed: int = 0) -> Classifier:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = tiny_network("custom", 3, SIZE)
        return Classifier(network, ClassifierSpec(backbone="custom", classes=CLASSES, size=SIZE))

    return make


Fit = Callable[..., tuple[Classifier, Epoch]]


@pytest.fixture
def train_for(learn: Examples, choose: Examples, fresh: Callable[..., Classifier]) -> Fit:
    """Run folder and settings to a trained classifier and its epoch."""

    def train(run: Path, *, progress: Any = lambda *said: None, **settings: Any) -> tuple[Classifier, Epoch]:
        chosen = TrainSettings(**{"epochs": 3, "batch_size": 16, "warmup_epochs": 1.0, **settings})
        return fit(fresh(), learn, choose, chosen, run, progress=progress)

    return train
