"""What the command line shows: on a terminal, in a log file, where a process is not the first."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

import robustmri as package
from robustmri.app import cli, console
from robustmri.app.console import main_process_output, shown_progress
from robustmri.core import processes
from robustmri.core.progress import silent


@pytest.fixture
def second(monkeypatch):
    monkeypatch.setattr(processes, "is_main_process", lambda: False)


def test_the_second_process_says_nothing(second, capsys):
    with shown_progress() as progress, main_process_output():
        assert progress is silent
        print("a result")
    print("after it")
    assert capsys.readouterr().out == "after it\n"


def test_a_terminal_has_a_bar_for_each_task(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    with shown_progress() as progress:
        progress("reading", 1, 0)
        progress("training", 1, 4)
        progress("training", 4, 4, "all done")
    shown = sys.stderr.getvalue()
    assert "reading" in shown
    assert "4/4" in shown
    assert "all done" in shown


def test_a_log_file_has_a_line_now_and_then(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with shown_progress() as progress:
        for done in range(1, 5):
            progress("training", done, 5)
            now[0] += 29.0
        for _ in range(2):
            progress("training", 5, 5, "kept")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["training: 1/5", "training: 3/5, about 1 min left", "training: 5/5 - kept"]


@pytest.fixture
def said(monkeypatch, capsys):
    """Words of a command, and what stands in for a verb, to its exit status and what it printed."""

    def run(*words, **verbs):
        for name, verb in verbs.items():
            monkeypatch.setattr(package, name, verb, raising=False)
        monkeypatch.setattr(sys, "argv", ["robustmri", *map(str, words)])
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        return status, capsys.readouterr().out

    return run


def test_a_bundle_is_weighed(said, tmp_path):
    asked = {}

    def bundle(cohort, out, **settings):
        asked.update(settings)
        return SimpleNamespace(mib={"wheels": 1.25, "cohort": 2.0, "all": 3.25}, loss="No loss.")

    words = ("bundle", tmp_path, "--out", "there", "--also", "torchattacks, foolbox")
    status, out = said(*words, bundle=bundle)
    assert status == 0
    assert "there: 3.2 MiB (wheels 1.2, cohort 2.0). No loss." in out
    assert list(asked["also"]) == ["torchattacks", "foolbox"]
    assert list(asked["have"]) == ["torch", "torchvision", "timm"]
    assert asked["stages"] is None


@pytest.mark.parametrize(
    ("statuses", "status"),
    [(("done", "failed"), 0), (("failed", "stopped"), 1), (("left out",), 0)],
)
def test_a_bundle_that_came_to_nothing_fails(said, tmp_path, statuses, status):
    def run_bundle(folder, out, **settings):
        assert (settings["limits"].max_files, settings["work"]) == (5, None)
        return [
            SimpleNamespace(name="one", status=status, seconds=2.0, detail="it broke")
            for status in statuses
        ]

    words = ("run-bundle", tmp_path, "--out", tmp_path / "results", "--max-files", "5")
    found, out = said(*words, run_bundle=run_bundle)
    assert found == status
    assert f"{statuses[0]:9}     2.0 s  it broke" in out


def test_what_comes_home_is_told(said, tmp_path):
    (tmp_path / "results").mkdir()

    def unpack(folder, out, *, cohort):
        base = {"run": "hardened", "largest_change": 4e-4, "slices": 60}
        yield SimpleNamespace(**base, accuracy=None, changed=None)
        yield SimpleNamespace(**base, accuracy=0.95, changed=None)
        yield SimpleNamespace(**base, accuracy=0.95, changed=2)

    _, out = said("unpack", tmp_path / "results", "--out", tmp_path / "home", unpack=unpack)
    assert [line.partition("; ")[2] for line in out.splitlines()] == [
        "not tested; give --cohort",
        "clean accuracy 95.00% in 16 bit",
        "clean accuracy 95.00% in 16 bit, 2 of 60 slices named differently than there",
    ]


def test_a_cohort_that_travelled_is_told(said, tmp_path):
    class Travelled:
        size, fingerprint = 64, "abc"

        def __len__(self):
            return 12

    (tmp_path / "cohort.zip").write_bytes(b"")
    words = ("unpack", tmp_path / "cohort.zip", "--out", "there")
    _, out = said(*words, unpack_travelled=lambda folder, out: Travelled())
    assert out == "there: 12 slices of 64 px, fingerprint abc\n"


def test_the_release_is_fetched_and_the_next_step_named(said, tmp_path, monkeypatch):
    def fetch(out, *, progress):
        progress("brain.zip", 5, None)
        return out

    monkeypatch.setattr("robustmri.data.fetch_figshare.download_release", fetch)
    _, out = said("download", "--out", tmp_path)
    assert out == f"wrote {tmp_path}; go on with: robustmri prepare {tmp_path} --out cohort\n"


class Prepared:
    n_patients, classes, groups = 3, ("a", "b"), "inferred"

    def __init__(self, left_out):
        self.left_out = [SimpleNamespace(source=f"{k}.png", reason="bad") for k in range(left_out)]

    notes = ()

    def __len__(self):
        return 7


@pytest.mark.parametrize(("left_out", "more"), [(10, False), (13, True)])
def test_of_many_slices_left_out_ten_are_named(said, tmp_path, monkeypatch, left_out, more):
    made = SimpleNamespace(train=(0, 1), validation=(2,), test=(3, 4, 5), note="By patient.")
    monkeypatch.setattr("robustmri.data.split.Split.load", lambda out: made)
    words = ("prepare", "phantom", "--out", tmp_path / "cohort")
    _, out = said(*words, prepare=lambda source, out, **settings: Prepared(left_out))
    lines = out.splitlines()
    assert lines[0].endswith("7 slices of 3 inferred groups; classes a, b")
    assert lines[1] == "train 2, validation 1, test 3 slices. By patient."
    assert lines[2:12] == [f"left out: {k}.png: bad" for k in range(10)]
    rest = [f"left out: 3 more, listed in {tmp_path / 'cohort' / 'cohort.json'}"]
    assert lines[12:] == (rest if more else [])


def test_alarms_of_a_training_are_told(monkeypatch, capsys):
    kept = {"epoch": 2, "validation_accuracy": 0.9, "validation_robust_accuracy": 0.5}
    stored = {"kept_epoch": kept, "kept_because": "It is the best.", "alarms": ["It overfits."]}
    made = SimpleNamespace(provenance=stored)
    rows = [
        SimpleNamespace(epoch=epoch, validation_accuracy=0.9, robust_accuracy=0.5)
        for epoch in (1, 2)
    ]
    monkeypatch.setattr("robustmri.models.checkpoint.read_checkpoint", lambda run: made)
    monkeypatch.setattr("robustmri.training.selection.read_epochs", lambda run: rows)
    monkeypatch.setattr("robustmri.training.selection.pareto_front", lambda rows: rows)
    cli._print_run("run")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run: kept epoch 2, validation accuracy 90.0%, robust 50.0%"
    assert [line.endswith("kept") for line in lines[-3:-1]] == [False, True]
    assert lines[-1] == "warn: It overfits."
