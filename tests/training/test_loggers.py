from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.training.loggers import check_installed
from robustmri.training.selection import read_epochs
from robustmri.verbs.train import train

NUMBERS = ["eps", "learning_rate", "seconds", "train_loss", "validation_accuracy"]


def curves(folder):
    """Names to the steps and values of each curve."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def losses(run):
    return [(row.epoch, pytest.approx(row.train_loss)) for row in read_epochs(run)]


def test_tensorboard_has_the_rows(train_for, tmp_path):
    train_for(tmp_path, epochs=2, logger="tensorboard")
    found = curves(tmp_path / "tensorboard" / "version_0")
    assert sorted(found) == NUMBERS
    assert found["train_loss"] == losses(tmp_path)


def test_a_run_that_goes_on_has_a_whole_curve(train_for, tmp_path):
    def stop(task, done, total, note=""):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_for(tmp_path, logger="tensorboard", progress=stop)
    train_for(tmp_path, logger="tensorboard")
    assert curves(tmp_path / "tensorboard" / "version_1")["train_loss"] == losses(tmp_path)


@pytest.fixture
def mlflow(monkeypatch):
    """A stand-in with the five calls that are made; what was said to it."""
    said = SimpleNamespace(metrics=[], params={}, ended=[], broken=False)

    class Client:
        def get_experiment_by_name(self, name):
            if said.broken == "always":
                raise ConnectionError("no answer")

        def create_experiment(self, name):
            return f"experiment {name}"

        def create_run(self, experiment, run_name):
            return SimpleNamespace(info=SimpleNamespace(run_id=f"{run_name} in {experiment}"))

        def log_param(self, run, name, value):
            said.params[name] = value

        def log_metric(self, run, name, value, step):
            if said.broken:
                raise ConnectionError("no answer")
            said.metrics.append((run, name, value, step))

        def set_terminated(self, run):
            if said.broken:
                raise ConnectionError("no answer")
            said.ended.append(run)

    module = ModuleType("mlflow")
    module.tracking = SimpleNamespace(MlflowClient=Client)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return said


def test_mlflow_has_the_rows(train_for, tmp_path, mlflow):
    train_for(tmp_path / "one", epochs=2, logger="mlflow", seed=7)
    assert mlflow.params["seed"] == 7
    assert (
        {run for run, *_ in mlflow.metrics} == {"one in experiment robustmri"} == set(mlflow.ended)
    )
    assert sorted({name for _, name, *_ in mlflow.metrics}) == NUMBERS
    assert [
        (step, value) for _, name, value, step in mlflow.metrics if name == "train_loss"
    ] == losses(tmp_path / "one")


def test_a_server_that_does_not_answer_costs_no_run(train_for, tmp_path, mlflow):
    mlflow.broken = True
    with (
        pytest.warns(UserWarning, match="does not record epoch 1: no answer"),
        pytest.warns(UserWarning, match="does not record that the run has ended: no answer"),
    ):
        train_for(tmp_path, epochs=1, logger="mlflow")
    assert len(read_epochs(tmp_path)) == 1


def test_a_server_that_never_answered_is_said_at_once(train_for, tmp_path, mlflow):
    mlflow.broken = "always"
    with pytest.raises(RobustMRIError, match=r"mlflow does not begin a run \(no answer\)"):
        train_for(tmp_path, epochs=1, logger="mlflow")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_said_before_anything_is_written(
    tiny_cohort, tmp_path, monkeypatch, name
):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=rf'pip install "robustmri\[{name}\]"'):
        train(tiny_cohort, tmp_path / "run", logger=name)
    assert not (tmp_path / "run").exists()
    check_installed("none")
