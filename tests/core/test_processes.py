"""Several processes on one job: the weights and the outcomes of one, and nothing lost with one of
them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from robustmri.core import processes
from robustmri.core.errors import RobustMRIError, SettingsError
from robustmri.models.checkpoint import read_checkpoint
from robustmri.training.launch import _started, launch
from robustmri.training.resume import STATE, read_state
from robustmri.verbs.evaluate import evaluate
from tiny import alike
from two_processes import ATTACKS, TRAININGS, fresh, train

TESTS = Path(__file__).parents[1]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def environment(rank):
    """What torchrun gives each of two processes on one machine."""
    said = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "TORCHELASTIC_RUN_ID": "test",
    }
    return {name: str(value) for name, value in said.items()}


@pytest.fixture(scope="module")
def together(tiny_run, tiny_cohort, tmp_path_factory):
    """The folder that two processes have left."""
    folder, port = tmp_path_factory.mktemp("together"), free_port()
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, TESTS / "two_processes.py", folder, tiny_run, tiny_cohort],
            env={**common, **environment(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert [out for out, _ in said] == ["0 2\n", "1 2\n"]
    return folder


def weights(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", [name for name in TRAININGS if name != "batch-norm"])
def test_two_processes_give_the_weights_of_one(together, tmp_path, name):
    train(name, tmp_path)
    alone, shared = (read_state(folder / name)["classifier"] for folder in (tmp_path, together))
    before = fresh(name).state_dict()
    # Sums in another order. Where attacks step by the sign of a gradient, that flips it here and
    # there; other images or other random starts give 0.3.
    rounding = 1e-4 if name == "standard" else 5e-3
    for key, value in alone.items():
        way = (value - before[key]).norm()
        assert (shared[key] - value).norm() <= rounding * way
        assert way > 1e-3 * before[key].norm(), "it has learnt"


@pytest.mark.parametrize("name", TRAININGS)
def test_both_processes_end_with_the_same(together, name):
    """Bit for bit: also with batch-norm, where each has seen statistics of its own."""
    one, other = (weights(together / f"{name}-{rank}.pt") for rank in range(2))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert all(torch.isfinite(value).all() for value in one.values())


def test_two_processes_have_the_outcomes_of_one(
    together, tiny_run, tiny_cohort, tmp_path, tiny_networks
):
    evaluate(tiny_run, tiny_cohort, tmp_path / "result", **ATTACKS)
    alone, shared = (
        pq.read_table(folder / "result" / "outcomes.parquet") for folder in (tmp_path, together)
    )
    assert alike(shared, alone)
    names = [
        "examples.npz",
        "nearest_neighbour.parquet",
        "outcomes.parquet",
        "robustness.json",
        "settings.json",
    ]
    assert sorted(path.name for path in (together / "result").iterdir()) == names


def test_a_process_alone_is_the_first():
    assert (
        processes.rank(),
        processes.size(),
        processes.process_name(),
        processes.is_main_process(),
    ) == (
        0,
        1,
        "0",
        True,
    )
    done = []
    processes.on_one_process(lambda: done.append(1))
    assert done == [1]


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ({"RANK": "0", "LOCAL_RANK": "0"}, "0"),
        ({"RANK": "4", "LOCAL_RANK": "0"}, "4"),
        ({"SLURM_PROCID": "3"}, "3"),
        ({"LOCAL_RANK": "1"}, "1"),
        ({"NODE_RANK": "1"}, "0 of machine 1"),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, "0"),
    ],
)
def test_launchers_say_who_speaks(monkeypatch, said, number):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert processes.process_name() == number
    assert processes.is_main_process() == (number == "0")


@pytest.mark.parametrize(
    ("said", "started"),
    [
        ({}, (1, 1)),
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, (4, 2)),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_NTASKS": "8"}, (4, 2)),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, (1, 1)),
    ],
    ids=["alone", "torchrun", "srun", "in a batch script, without srun"],
)
def test_launchers_say_how_many_there_are(monkeypatch, said, started):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert _started() == started


def test_a_number_that_a_launcher_does_not_have_is_refused(monkeypatch):
    for name, value in environment(0).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"3 devices on 1 nodes cannot be had.*world size"):
        launch(3)


# The command line with the small network. On demand its second process is killed when the first
# step has been taken.
TINY = f"""
import os, signal, sys
sys.path.insert(0, {str(TESTS)!r})
from tiny import tiny_network
import robustmri.models.backbones, robustmri.models.checkpoint, robustmri.training.loop as loop
robustmri.models.backbones.build_network = robustmri.models.checkpoint.build_network = tiny_network
if os.environ.get("DIE") and os.environ.get("LOCAL_RANK") == "1":
    validate, wait = loop._average_statistics, [4]
    def die(*arguments):
        wait[0] -= 1
        if not wait[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return validate(*arguments)
    loop._average_statistics = die
from robustmri.app.cli import main
main()
"""


@pytest.mark.slow
def test_devices_on_the_command_line_and_one_that_is_killed(tiny_cohort, tmp_path):
    (tmp_path / "tiny_cli.py").write_text(TINY)
    words = (
        "harden",
        "scratch",
        tiny_cohort,
        "--out",
        tmp_path / "run",
        "--devices",
        2,
        "--epochs",
        2,
        "--set",
        "harden.batch_size=32",
        "--set",
        "harden.attack_steps=1",
        "--set",
        "harden.precision=fp32",
    )

    def run(**more):
        command = [sys.executable, str(tmp_path / "tiny_cli.py"), *map(str, words)]
        return subprocess.run(
            command, env={**os.environ, **more}, capture_output=True, text=True, timeout=200
        )

    cut = run(DIE="1")
    # Two steps an epoch: the second process dies in the second epoch. The first one says so, if it
    # is not killed too.
    assert cut.returncode in (1, -signal.SIGKILL)
    assert "Traceback" not in cut.stderr
    assert cut.returncode < 0 or "process 0 of 2 has lost another one" in cut.stderr
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "epochs.csv",
        STATE,
        "settings.json",
    ]
    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kept epoch") == 1, "the first process alone speaks"
    assert done.stderr.count("training: 4/4") == 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoint",
        "epochs.csv",
        "settings.json",
    ]
    assert len((tmp_path / "run" / "epochs.csv").read_text().splitlines()) == 3
    assert read_checkpoint(tmp_path / "run").training["devices"] == 2


class Met:
    """Two processes that have met; the second of them is gone."""

    def __init__(self, said="Connection closed by peer"):
        self.said = said

    def get_rank(self):
        return 1

    def get_world_size(self):
        return 2

    def barrier(self):
        raise RuntimeError(self.said)


@pytest.mark.parametrize("said", ["[Gloo] timed out", "NCCL error", "Connection closed by peer"])
def test_a_lost_process_is_said_in_a_sentence(monkeypatch, said):
    monkeypatch.setattr(processes, "_group", lambda: Met(said))
    assert processes.process_name() == "1"
    assert not processes.is_main_process()
    with pytest.raises(RobustMRIError, match="process 1 of 2 has lost another one"):
        processes.wait_for_all()


def test_other_failures_are_not_blamed_on_it(monkeypatch):
    monkeypatch.setattr(processes, "_group", lambda: Met("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        processes.on_one_process(lambda: None)
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="gloo"), processes.explain_lost_process():
        raise RuntimeError("gloo, in a process that is alone")
