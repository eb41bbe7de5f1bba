"""The loop alone: a small classifier, its examples, and settings that take a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustmri.models.classifier import Classifier, ClassifierSpec
from robustmri.training.batches import Examples
from robustmri.training.history import Choice
from robustmri.training.loop import fit
from robustmri.training.settings import TrainSettings
from tiny import CLASSES, SIZE, draw_slice, tiny_network


def examples(patients: range) -> Examples:
    cases = [
        (kind, patient, number) for kind in range(3) for patient in patients for number in range(2)
    ]
    images = torch.stack([torch.from_numpy(draw_slice(*case)).float() / 255 for case in cases])[
        :, None
    ]
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

    def make(seed: int = 0, *, batch_norm: bool = True) -> Classifier:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = tiny_network("custom", 3, SIZE)
        if not batch_norm:
            network[1] = nn.Identity()
        return Classifier(network, ClassifierSpec(backbone="custom", classes=CLASSES, size=SIZE))

    return make


Fit = Callable[..., tuple[Classifier, Choice]]


@pytest.fixture
def train_for(learn: Examples, choose: Examples, fresh: Callable[..., Classifier]) -> Fit:
    """Run folder and settings to a trained classifier and the choice of its epoch."""

    def train(
        run: Path,
        *,
        start: Classifier | None = None,
        progress: Any = lambda *said: None,
        **settings: Any,
    ) -> tuple[Classifier, Choice]:
        chosen = TrainSettings(**{"epochs": 3, "batch_size": 16, "warmup_epochs": 1.0, **settings})
        return fit(
            start or fresh(),
            learn,
            choose,
            chosen,
            run,
            repair=start is not None,
            progress=progress,
        )

    return train
