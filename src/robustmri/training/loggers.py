"""Where the rows of epochs.csv are shown beside those of other runs: TensorBoard or MLflow, if
asked for.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.training.selection import Epoch
from robustmri.training.settings import TrainSettings


class MetricLogger(Protocol):
    """What Fabric's loggers do, as far as it is needed."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record the numbers of an epoch."""

    def finalize(self, status: str) -> None:
        """Close, with "success"."""


def open_logger(settings: TrainSettings, run: Path, history: list[Epoch]) -> MetricLogger | None:
    """The logger that the settings ask for, with the epochs that are done; None if they ask for
    none.

    A run that goes on after a kill begins a curve of its own, whole from its first epoch, since the
    one that was cut off may lack its last.

    Raises:
        SettingsError: the package is not installed.
        RobustMRIError: the server does not answer, before the first epoch.
    """
    check_installed(settings.logger)
    if settings.logger == "none":
        return None
    try:
        logger = _tensorboard(run) if settings.logger == "tensorboard" else _MLflow(settings, run)
    except Exception as error:
        raise RobustMRIError(
            f'{settings.logger} does not begin a run ({error}). Set logger = "none" to go without.'
        ) from error
    for row in history:
        log_epoch(logger, row)
    return logger


def log_epoch(logger: MetricLogger | None, row: Epoch) -> None:
    """Every number of a row that was measured, under its name in epochs.csv."""
    if not logger:
        return
    numbers = {name: value for name, value in msgspec.to_builtins(row).items() if value is not None}
    try:
        logger.log_metrics(
            {name: value for name, value in numbers.items() if name != "epoch"}, step=row.epoch
        )
    except Exception as error:
        # A server that is down for a moment must not end a night's training; epochs.csv has the
        # row.
        warnings.warn(f"the logger does not record epoch {row.epoch}: {error}", stacklevel=2)


def close_logger(logger: MetricLogger | None) -> None:
    """The run has come to its end."""
    if not logger:
        return
    try:
        logger.finalize("success")
    except Exception as error:
        warnings.warn(f"the logger does not record that the run has ended: {error}", stacklevel=2)


def check_installed(logger: str) -> None:
    """Refuse a logger whose package is missing.

    Raises:
        SettingsError: it is; says how to install it.
    """
    if logger == "none":
        return
    try:
        importlib.import_module(logger)
    except ImportError as error:
        raise SettingsError(
            f'logger = "{logger}" needs the package {logger}, which cannot be imported ({error}). '
            "Install it: pip "
            f'install "robustmri[{logger}]", or set logger = "none".'
        ) from error


def _tensorboard(run: Path) -> MetricLogger:
    """Files in `run`/tensorboard: `tensorboard --logdir` on the folder of all runs shows them side
    by side.
    """
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    logger: MetricLogger = TensorBoardLogger(run, name="tensorboard")
    return logger


class _MLflow:
    """A run in MLflow's experiment "robustmri", where MLFLOW_TRACKING_URI says; Fabric has no
    logger for it.
    """

    def __init__(self, settings: TrainSettings, run: Path) -> None:
        mlflow: Any = importlib.import_module("mlflow")
        self._client = mlflow.tracking.MlflowClient()
        found = self._client.get_experiment_by_name("robustmri")
        experiment = found.experiment_id if found else self._client.create_experiment("robustmri")
        self._id = self._client.create_run(experiment, run_name=run.resolve().name).info.run_id
        for name, value in msgspec.to_builtins(settings).items():
            self._client.log_param(self._id, name, value)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._id, name, value, step=step)

    def finalize(self, status: str) -> None:
        self._client.set_terminated(self._id)
