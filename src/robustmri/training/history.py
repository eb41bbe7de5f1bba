"""What lies behind a run: its epochs, the weights that may still be chosen, and where it went
astray.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from torch import Tensor, nn

from robustmri.training.selection import (
    Alarm,
    Epoch,
    alarms,
    choose,
    explain_choice,
    rollback_epoch,
    watch,
    worth_keeping,
)
from robustmri.training.settings import TrainSettings

Weights = dict[str, Tensor]
RATE_AFTER_ROLLBACK = 0.5
"""Share of the learning rate that is left each time that training goes back."""


class Choice(NamedTuple):
    """The epoch that is kept, why, and what went wrong on the way."""

    row: Epoch
    reason: str
    alarms: list[Alarm]


@dataclass
class TrainingHistory:
    """The epochs so far and what follows from them; alarms are a function of the rows, so a resumed
    run has the same.

    Args:
        clean_cost: see `choose`.
        reference: see `choose`.
        epochs: a row for each epoch, also those that training went back from.
        kept: weights of the epochs that may still be chosen or gone back to, by their number.
    """

    clean_cost: float | None = None
    reference: float | None = None
    epochs: list[Epoch] = field(default_factory=list)
    kept: dict[int, Weights] = field(default_factory=dict)
    alarms: list[Alarm] = field(init=False)

    def __post_init__(self) -> None:
        self.alarms = alarms(self.epochs, clean_cost=self.clean_cost, reference=self.reference)

    @property
    def over(self) -> bool:
        """Whether more epochs would not help."""
        return any(alarm.ends_training for alarm in self.alarms)

    @property
    def rate_factor(self) -> float:
        """What the learning rate is multiplied with."""
        return float(RATE_AFTER_ROLLBACK ** sum(_rolls_back(alarm) for alarm in self.alarms))

    def add(self, row: Epoch, network: nn.Module) -> Weights | None:
        """Take in an epoch and, if it may be chosen or gone back to, the weights of `network`.

        Returns:
            Weights to go back to, where the epoch shows that training went astray.
        """
        self.epochs.append(row)
        alarm = watch(self.epochs, clean_cost=self.clean_cost, reference=self.reference)
        back = None
        if alarm:
            self.alarms.append(alarm)
            back = (
                self.kept[alarm.back_to]
                if _rolls_back(alarm) and alarm.back_to is not None
                else None
            )
        rows = [
            *worth_keeping(self.epochs, clean_cost=self.clean_cost, reference=self.reference),
            rollback_epoch(self.epochs),
        ]
        wanted = {at.epoch for at in rows if at}
        self.kept = {epoch: weights for epoch, weights in self.kept.items() if epoch in wanted}
        if row.epoch in wanted:
            self.kept[row.epoch] = {
                name: value.detach().clone() for name, value in network.state_dict().items()
            }
        return back

    def choice(self) -> Choice:
        """The epoch to keep, of those so far."""
        cost = {"clean_cost": self.clean_cost, "reference": self.reference}
        return Choice(choose(self.epochs, **cost), explain_choice(self.epochs, **cost), self.alarms)

    @property
    def note(self) -> str:
        """How the last epoch went, for whoever waits."""
        if not self.epochs:
            return ""
        last = self.epochs[-1]
        if self.alarms and self.alarms[-1].epoch == last.epoch:
            alarm = self.alarms[-1]
            return alarm.sentence + (
                f" Going on from epoch {alarm.back_to}." if _rolls_back(alarm) else ""
            )
        robust = last.validation_robust_accuracy
        return f"epoch {last.epoch}: validation {last.validation_accuracy:.1%}" + (
            "" if robust is None else f", robust {robust:.1%}"
        )


def safer(settings: TrainSettings, alarms: list[Alarm]) -> TrainSettings:
    """The settings; after a collapse one-step training takes two steps, which together are as long
    as the one was.
    """
    if settings.objective == "one-step" and any(alarm.kind == "collapse" for alarm in alarms):
        return msgspec.structs.replace(
            settings, objective="adversarial", attack_steps=2, attack_step_size=0.625
        )
    return settings


def _rolls_back(alarm: Alarm) -> bool:
    return alarm.back_to is not None and not alarm.ends_training
