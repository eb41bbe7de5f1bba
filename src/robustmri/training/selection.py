"""Which epoch is kept, chosen on validation patients only."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One row of epochs.csv; accuracies are on the validation set, and the robust one only where it was measured."""

    epoch: int
    learning_rate: float
    eps: float
    train_loss: float
    validation_accuracy: float
    validation_robust_accuracy: float | None
    seconds: float

    @property
    def merit(self) -> float:
        """Clean accuracy; where robust accuracy was measured, the mean of the two."""
        if self.validation_robust_accuracy is None:
            return self.validation_accuracy
        return (self.validation_accuracy + self.validation_robust_accuracy) / 2


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """The epoch of the highest merit, the latest among equals.

    While eps is still growing an epoch has not met the full threat: only epochs at the largest eps count.
    """
    full = max(epoch.eps for epoch in epochs)
    return max((epoch for epoch in epochs if epoch.eps == full), key=lambda epoch: (epoch.merit, epoch.epoch))
