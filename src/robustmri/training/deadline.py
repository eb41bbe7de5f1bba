"""A run that must end on time: how many epochs fit, and what is left of them where it is slower
than was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from robustmri.core.files import read_json, write_json
from robustmri.training.settings import TrainSettings

FILE = "time.json"
MARGIN = 0.95
"""Share of the time that the fitted epochs are to fill."""
FASTEST_AVERAGE = 0.5
"""However short the run, its averaged weights move by at most this share in a step."""
LEAST = 0.3
"""Share of the training set that a pass is worth beginning for."""


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out once, before the first epoch; a resumed run goes by it.

    Attributes:
        minutes: asked for.
        seconds: left for the epochs, once everything was set up and measured.
        seconds_per_epoch: as measured on a few batches and a validation; None: there was no time.
        epochs: that fit.
    """

    minutes: float
    seconds: float
    seconds_per_epoch: float | None
    epochs: Annotated[int, msgspec.Meta(ge=1)]


def fitting_epochs(seconds: float, seconds_per_epoch: float, most: int, *, replays: int = 1) -> int:
    """Epochs that fit into the time: at least one pass, and no more than the settings ask for.

    Args:
        seconds: that there are.
        seconds_per_epoch: as measured.
        most: epochs of the settings.
        replays: epochs that a pass over the training set counts for; whole passes fit.

    >>> [fitting_epochs(100.0, each, most=60) for each in (4.0, 1.0, 200.0)]
    [23, 60, 1]
    >>> [fitting_epochs(100.0, 4.0, most, replays=4) for most in (60, 3)]
    [20, 3]
    """
    fit = int(MARGIN * seconds / max(seconds_per_epoch, 1e-9))
    return min(most, max(fit // replays, 1) * replays)


def fit_settings(settings: TrainSettings, epochs: int) -> TrainSettings:
    """The settings of a run of so many epochs: warm-up, ramp of eps and averages shrink with it.

    >>> short = fit_settings(TrainSettings(epochs=40, warmup_epochs=2.0, ema_decay=0.995), 10)
    >>> short.epochs, short.warmup_epochs, round(short.ema_decay, 3)
    (10, 0.5, 0.98)
    """
    share = epochs / settings.epochs
    if share >= 1:
        return settings
    decay = (
        1 - min(FASTEST_AVERAGE, (1 - settings.ema_decay) / share) if settings.ema_decay else 0.0
    )
    return msgspec.structs.replace(
        settings,
        epochs=epochs,
        ema_decay=decay,
        warmup_epochs=settings.warmup_epochs * share,
        eps_ramp_epochs=settings.eps_ramp_epochs * share,
        swa_from_epoch=int(settings.swa_from_epoch * share),
    )


def write_fitted(run: Path, fitted: Fitted) -> None:
    """Keep it in the run folder."""
    write_json(run / FILE, msgspec.to_builtins(fitted))


def read_fitted(run: Path) -> Fitted | None:
    """What a run was fitted to; None where its epochs are those of its settings."""
    path = run / FILE
    if not path.exists():
        return None
    fitted: Fitted = read_json(path, Fitted, again="Start the run again, in another --out.")
    return fitted


def fitted_settings(run: Path, settings: TrainSettings) -> TrainSettings:
    """The settings as the run in that folder was trained: with the epochs that fitted."""
    fitted = read_fitted(run)
    return fit_settings(settings, fitted.epochs) if fitted else settings


def next_pass(
    taken: Sequence[float],
    passes: int,
    seconds: float | None,
    each: float | None = None,
) -> tuple[float, float, float]:
    """Where the next pass begins in a schedule of `passes`, how much of it the pass goes through
    (0: none is left), and the share of the training set that there is time for.

    A run that is on time goes through one pass of the schedule in each. One that is late is left
    with fewer passes than were planned; they go through the rest in equal parts, so that the
    learning rate still ends at zero. Where not even one is left, the last goes through the rest
    with a part of the training set. It is a function of the times alone, so that a resumed run goes
    the same way.

    Args:
        taken: seconds of each pass that is done.
        passes: planned.
        seconds: for all of them; None: as long as it takes.
        each: seconds of a pass, as they were measured before the first; None: unknown.

    >>> next_pass([9.0] * 4, 10, seconds=100.0), next_pass([25.0] * 2, 10, seconds=100.0)
    ((4.0, 1.0, 1.0), (4.0, 3.0, 1.0))
    >>> next_pass([60.0], 2, seconds=90.0)
    (1.0, 1.0, 0.5)
    """
    if seconds is None:
        return float(len(taken)), float(len(taken) < passes), 1.0
    begins, length, share = 0.0, 1.0, 1.0
    for done in range(len(taken) + 1):
        left, spent = round((passes - begins) / length), sum(taken[:done])
        usual = spent / done if done else each
        if left and usual:
            room = (seconds - spent) / max(usual, 1e-9)
            share = min(1.0, room) if done else min(1.0, max(room, LEAST))
            left = min(left, max(int(room), share >= LEAST))
        if left < 1:
            return float(passes), 0.0, 0.0
        length = (passes - begins) / left
        if done < len(taken):
            begins += length
    return begins, length, share
