"""A disk that is full: said in one line, nothing half-written, and once there is room the same
command goes on.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robustmri.core.errors import RobustMRIError
from robustmri.models.checkpoint import WEIGHTS_FILE, load_checkpoint, save_checkpoint
from robustmri.verbs.evaluate import evaluate
from robustmri.verbs.prepare import prepare
from robustmri.verbs.train import train

FAST = {"epochs": 2, "batch_size": 16, "precision": "fp32"}
QUICK = {"attacks": ("fgsm",), "precision": "fp32", "limit": 6, "batch_size": 3}

FLUSH = os.fsync


def verbs(place, scans, cohort, run):
    return {
        "prepare": lambda: prepare(scans, place / "cohort", size=32),
        "train": lambda: train(cohort, place / "run", **FAST),
        "evaluate": lambda: evaluate(run, cohort, place / "result", **QUICK),
    }


@pytest.fixture
def full_after(monkeypatch):
    """Number of files that can still be written, before the disk is full."""

    def limit(files):
        left = [files]

        def sync(descriptor):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            FLUSH(descriptor)

        monkeypatch.setattr("os.fsync", sync)

    return limit


# The files of each verb, in their order. prepare: head, split. train: settings, then state and log
# of two epochs. evaluate: settings, two shards for each of the clean slices and FGSM, table,
# pictures, result.
PLACES = [
    (verb, n)
    for verb, files in (("prepare", 2), ("train", 5), ("evaluate", 9))
    for n in range(files)
]


@pytest.mark.parametrize(("verb", "files"), PLACES)
def test_wherever_it_happens(
    verb,
    files,
    full_after,
    monkeypatch,
    tiny_scans,
    tiny_cohort,
    tiny_run,
    use_tiny_networks,
    tmp_path,
):
    use_tiny_networks(monkeypatch)
    act = verbs(tmp_path, tiny_scans, tiny_cohort, tiny_run)[verb]
    full_after(files)
    with pytest.raises(
        RobustMRIError, match=r"The disk that holds .* is full; .*Free some space and run it again"
    ):
        act()
    finished = (
        tmp_path
        / {"prepare": "cohort", "train": "run/checkpoint", "evaluate": "result/robustness.json"}[
            verb
        ]
    )
    assert not finished.exists()
    assert list(tmp_path.rglob("*.partial")) == []
    full_after(99)
    act()
    assert finished.exists()


def test_the_count_above_is_right(
    full_after, tiny_scans, tiny_cohort, tiny_run, tiny_networks, tmp_path
):
    """With one file more there is room for all."""
    for verb, act in verbs(tmp_path, tiny_scans, tiny_cohort, tiny_run).items():
        full_after(sum(name == verb for name, _ in PLACES))
        act()


def test_a_checkpoint_is_written_by_python_itself(tiny_run, tiny_networks, tmp_path, monkeypatch):
    """The writer of safetensors raises an error of its own kind, which does not say that the disk
    is full.
    """
    classifier, _ = load_checkpoint(tiny_run)

    write = Path.write_bytes

    def full(path, content):
        if path.name != WEIGHTS_FILE:
            return write(path, content)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RobustMRIError, match="is full"):
        save_checkpoint(classifier, tmp_path / "checkpoint")
    assert list(tmp_path.iterdir()) == []


# Runs where nobody else sees what it mounts: each verb on a small disk of its own, then again with
# room.
SCRIPT = """
import contextlib, io, json, pathlib, subprocess, sys
sys.path.insert(0, {tests!r})
from tiny import tiny_network
import robustmri.models.backbones, robustmri.models.checkpoint
robustmri.models.backbones.build_network = robustmri.models.checkpoint.build_network = tiny_network
from robustmri.app import cli

told = {{}}
for name, (size, words) in json.loads({jobs!r}).items():
    disk = pathlib.Path({disk!r})
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={{size}}", "none", disk], check=True)
    told[name] = []
    for _ in range(2):
        sys.argv, said = ["robustmri", *words], io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                cli.main()
                status = 0
            except SystemExit as end:
                status = end.code or 0
        files = sorted(
            path.relative_to(disk).as_posix() for path in disk.rglob("*") if path.is_file()
        )
        told[name].append([status, said.getvalue(), files])
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    subprocess.run(["umount", disk], check=True)
print(json.dumps(told))
"""


@pytest.mark.slow
def test_on_a_disk_that_is_really_full(tiny_scans, tiny_cohort, tiny_run, tmp_path):
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [*alone, "mount", "-t", "tmpfs", "none", disk]
    if (
        not shutil.which("unshare")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("needs to mount a disk of its own")
    fast = ["--epochs", "2", "--set", "train.batch_size=16", "--set", "train.precision=fp32"]
    jobs = {
        "prepare": ("96k", ["prepare", str(tiny_scans), "--out", f"{disk}/cohort", "--size", "32"]),
        "train": ("24k", ["train", str(tiny_cohort), "--out", f"{disk}/run", *fast]),
        "evaluate": (
            "48k",
            ["evaluate", str(tiny_run), str(tiny_cohort), "--out", f"{disk}/result"],
        ),
    }
    script = SCRIPT.format(
        tests=str(Path(__file__).parents[1]), disk=str(disk), jobs=json.dumps(jobs)
    )
    done = subprocess.run(
        [*alone, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    whole = {
        "prepare": "cohort/cohort.json",
        "train": "run/checkpoint/classifier.json",
        "evaluate": "result/robustness.json",
    }
    for name, (first, again) in told.items():
        status, said, files = first
        assert status == 1, (name, said)
        assert said.splitlines()[-1].startswith("robustmri: The disk that holds "), (name, said)
        assert "Traceback" not in said
        assert not [path for path in files if ".partial" in path or path == whole[name]], name
        status, said, files = again
        assert status == 0, (name, said)
        assert whole[name] in files, name
        assert not [path for path in files if ".partial" in path], name
