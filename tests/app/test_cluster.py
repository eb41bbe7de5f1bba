"""Commands that are submitted: to submitit's executor for this machine, and what would be asked of
SLURM.
"""

from __future__ import annotations

import sys

import pytest

from robustmri.app import cluster
from robustmri.app.cli import main
from robustmri.app.cluster import Place, read_place, submit
from robustmri.core.errors import SettingsError

submitit = pytest.importorskip("submitit")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slrum", "Did you mean 'slurm'"),
        ("slurm:partitoin=gpu", "Did you mean 'partition'"),
        ("slurm:time=soon", "whole number"),
        ("slurm:partition=", "needs a value"),
    ],
)
def test_a_place_that_is_none(text, said):
    with pytest.raises(SettingsError, match=said):
        read_place(text)


def test_a_command_runs_elsewhere_and_says_what_it_says(tmp_path, capfd):
    assert cluster.main(["local", str(tmp_path / "logs"), "--", "--version"]) == 0
    assert "robustmri 0." in capfd.readouterr().out
    assert cluster.main(["local", str(tmp_path / "logs"), "--", "recipes", "--no-such"]) == 1


def test_what_is_asked_of_slurm(tmp_path, monkeypatch):
    asked = {}

    class Executor:
        def __init__(self, folder, cluster):
            asked["where"] = (folder, cluster)

        def update_parameters(self, **parameters):
            asked.update(parameters)

        def submit(self, function):
            asked["command"] = function.command
            return self

        job_id = "17"

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    place = read_place("slurm:partition=gpu,time=600,gpus_per_node=2")
    first = submit(["evaluate"], tmp_path, place, nodes=3, tasks=2)
    assert asked["where"] == (tmp_path, "slurm")
    assert asked["command"][1:] == ["-m", "robustmri.app.cli", "evaluate"]
    kept = ("nodes", "tasks_per_node", "timeout_min", "slurm_partition", "gpus_per_node")
    assert [asked[name] for name in kept] == [3, 2, 600, "gpu", 2]
    submit(["pool"], tmp_path, place, after=[first])
    assert asked["slurm_additional_parameters"] == {"dependency": "afterok:17"}


@pytest.fixture
def submitted(monkeypatch):
    """Words of a command to what it submits: words, and after how many others."""
    jobs = []

    class Job:
        job_id = "1"

    def submit(words, logs, place, *, nodes=1, tasks=1, after=()):
        jobs.append((words, logs.name, nodes, tasks, len(after)))
        return Job()

    def run(*words):
        monkeypatch.setattr(cluster, "submit", submit)
        monkeypatch.setattr(sys, "argv", ["robustmri", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None)
        return jobs

    return run


def test_folds_are_submitted_one_by_one_and_pooled_at_the_end(submitted, tmp_path):
    words = ("cross-validate", "phantom", "--out", tmp_path / "o", "--on", "slurm")
    jobs = submitted(*words)
    rest = ["cross-validate", "phantom", "--out", str(tmp_path / "o")]
    assert [job[0] for job in jobs] == [*([*rest, f"--only={k}"] for k in range(1, 6)), rest]
    assert [job[4] for job in jobs] == [0, 0, 0, 0, 0, 5]
    assert {job[1] for job in jobs} == {"o.jobs"}
    assert list(tmp_path.iterdir()) == []


def test_those_that_nobody_asked_for_are_not_run(submitted, tmp_path):
    """Another machine may do them: the last job gathers, and begins none."""
    words = ("cross-validate", "phantom", "--out", tmp_path / "o", "--on", "slurm")
    jobs = submitted(*words, "--only", "2,4")
    assert [job[0][-1] for job in jobs] == ["--only=2", "--only=4", "--only=2,4"]


@pytest.mark.parametrize("only", ["", "2,1,3"])
def test_within_a_time_folds_wait_for_the_first(submitted, tmp_path, only):
    """As its epochs and slices are fitted, theirs are."""
    words = ("cross-validate", "phantom", "--out", tmp_path / "o", "--on", "slurm")
    jobs = submitted(*words, "--minutes", 50, *(("--only", only) if only else ()))
    assert jobs[0][0][-1] == "--only=1"
    assert [job[4] for job in jobs] == [0, *[1] * (len(jobs) - 2), len(jobs) - 1]


def test_variants_wait_for_the_first_one(submitted, tmp_path):
    jobs = submitted("ablate", tmp_path, "--out", tmp_path / "o", "--on=local")
    assert len(jobs) > 3
    assert [job[4] for job in jobs] == [0, *[1] * (len(jobs) - 2), len(jobs) - 1]


def test_an_evaluation_is_submitted_with_its_machines(submitted, tmp_path):
    jobs = submitted(
        *("evaluate", "run", "cohort", "--out", tmp_path / "o", "--on", "slurm:time=9"),
        *("--nodes", 2, "--devices", 4),
    )
    ((words, _, nodes, tasks, _),) = jobs
    assert (nodes, tasks) == (2, 4)
    assert words[-4:] == ["--nodes", "2", "--devices", "4"]
    assert "--on" not in words


def test_jobs_of_the_workbench_are_submitted(tmp_path):
    from robustmri.web.folder import Folder
    from robustmri.web.jobs import Jobs
    from robustmri.web.routes import Workbench

    bench = Workbench(Folder(tmp_path), Jobs(tmp_path), read_only=False, on="local")
    command = [sys.executable, "-m", "robustmri.app.cli", "prepare", "phantom"]
    assert bench._placed(command)[1:4] == ["-m", "robustmri.app.cluster", "local"]
    assert bench._placed(command)[-3:] == ["--", "prepare", "phantom"]
    assert Place("local", {}) == read_place("local")
