"""The files of a run in progress: resume.pt, from which a killed run goes on, and epochs.csv."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch

from robustmri.core.errors import CheckpointError
from robustmri.core.files import atomic_file
from robustmri.core.sealed import read_sealed, write_sealed
from robustmri.training.history import TrainingHistory
from robustmri.training.selection import Epoch

STATE = "resume.pt"


class Stateful(Protocol):
    """What gives its state away and takes it back: networks, optimisers, averages."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that it needs to go on."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Be as it was."""


class Storing:
    """After which epochs the state is stored: all, unless that takes a noticeable share of the
    time.

    On a GPU an epoch can take as long as writing down what it leaves.
    """

    QUICK = 0.5
    """Seconds that never matter."""
    SHARE = 0.05
    """Of the time that storing may take otherwise."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._took, self._ended = clock, 0.0, -math.inf

    def maybe(self, store: Callable[[], None], *, last: bool) -> None:
        """Store, unless it is too early again; after the last epoch in any case."""
        began = self._clock()
        due = self._took < self.QUICK or began - self._ended > self._took / self.SHARE
        if due or last:
            store()
            self._ended = self._clock()
            self._took = self._ended - began


def save(run: Path, parts: Mapping[str, Stateful], history: TrainingHistory) -> None:
    """Write resume.pt, whole or not at all.

    Args:
        run: run folder.
        parts: what is trained, by name.
        history: what lies behind it.
    """
    state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    state |= {"history": [msgspec.to_builtins(row) for row in history.epochs], "kept": history.kept}
    # Not to be measured again: which weights were let go was decided by this very number.
    state["reference"] = history.reference
    content = io.BytesIO()
    torch.save(state, content)
    write_sealed(run / STATE, content.getbuffer())


def read_state(run: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `save` wrote; nothing is unpickled but tensors and plain values.

    Raises:
        DataError: the file was damaged since.
    """
    state: dict[str, Any] = torch.load(
        io.BytesIO(read_sealed(run / STATE)), map_location=device, weights_only=True
    )
    return state


def write_epochs(run: Path, history: TrainingHistory) -> None:
    """Write epochs.csv, a row for every epoch so far."""
    kinds = {alarm.epoch: alarm.kind for alarm in history.alarms}
    with atomic_file(run / "epochs.csv") as partial, open(partial, "w", newline="") as stream:
        *columns, seconds = Epoch.__struct_fields__
        table = csv.DictWriter(stream, [*columns, "alarm", seconds])
        table.writeheader()
        table.writerows(
            {**msgspec.to_builtins(row), "alarm": kinds.get(row.epoch, "")}
            for row in history.epochs
        )


def resume(
    run: Path,
    parts: Mapping[str, Stateful],
    device: torch.device,
    *,
    clean_cost: float | None,
) -> TrainingHistory | None:
    """Put a stored state back, if there is one; returns what lies behind the run, None where
    nothing does.

    Raises:
        CheckpointError: the file is damaged, or of another run.
    """
    path = run / STATE
    if not path.exists():
        return None
    try:
        state = read_state(run, device)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        history = msgspec.convert(state["history"], list[Epoch])
        return TrainingHistory(clean_cost, state["reference"], history, state["kept"])
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be used to go on ({error}). Remove it to start this run from its "
            "beginning."
        ) from error
