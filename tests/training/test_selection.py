from __future__ import annotations

import pytest

from robustmri.training.selection import Epoch, best_epoch


def row(epoch, clean, robust=None, eps=0.0):
    return Epoch(
        epoch=epoch, learning_rate=0.1, eps=eps, train_loss=1.0, validation_accuracy=clean,
        validation_robust_accuracy=robust, seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(1, 0.8), row(2, 0.9), row(3, 0.7)], 2),
        ([row(1, 0.9), row(2, 0.9), row(3, 0.7)], 2),
        ([row(1, 0.9, 0.1), row(2, 0.8, 0.3), row(3, 0.7, 0.2)], 2),
        ([row(1, 0.9, 0.9, 0.01), row(2, 0.8, 0.5, 0.02), row(3, 0.6, 0.5, 0.04), row(4, 0.6, 0.4, 0.04)], 3),
        ([row(1, 1.0, 1.0, 0.01), row(2, 0.1, 0.0, 0.02)], 2),
    ],
    ids=["the best", "the later of equals", "mean of clean and robust", "only at the full eps", "ramp not finished"],
)
def test_which_epoch(rows, expected):
    assert best_epoch(rows).epoch == expected
