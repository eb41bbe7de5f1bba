"""The stages' frame, with commands that take a moment."""

from __future__ import annotations

import json
import os
import sys
import time
import zipfile
from types import SimpleNamespace

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustmri.core.errors import CheckpointError, DataError, ResultError, SettingsError
from robustmri.core.files import write_json
from robustmri.data.cohort import Cohort
from robustmri.data.packed import pack_cohort
from robustmri.models.checkpoint import load_checkpoint
from robustmri.verbs import run_bundle as module
from robustmri.verbs.run_bundle import Limits, _Home, describe_device, read_stages, run_bundle
from robustmri.verbs.unpack import _recorded, unpack, unpack_travelled

HELLO = "import pathlib, sys; pathlib.Path('a.txt').write_text(sys.argv[1]); print('said')"


def stage(name, code, *arguments, **others):
    command = json.dumps(["{python}", "-c", code, *arguments])
    lines = [f'name = "{name}"', 'about = "a test"', f"command = {command}"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in {"minutes": 0.1, **others}.items()]
    return "\n".join(["[[stages]]", *lines, ""])


@pytest.fixture
def bundled(tiny_cohort, tmp_path):
    def make(*stages, overrides=()):
        folder = tmp_path / "bundle"
        folder.mkdir()
        pack_cohort(Cohort.open(tiny_cohort), folder / "cohort.zip")
        (folder / "stages.toml").write_text("\n".join(stages))
        write_json(folder / "bundle.json", {"minutes": 0.5, "overrides": list(overrides)})
        return folder

    return make


def test_stages_run_and_what_they_leave_goes_home(bundled, tmp_path):
    folder = bundled(
        stage("one", HELLO, "{minutes}", "{set}", keep=["*.txt"]),
        stage("two", "raise SystemExit('it broke')"),
        stage("three", "print('no')", needs="checks/nothing"),
        stage("late", "print('no')", extra=True, at_least=9.0),
        overrides=["train.epochs=1"],
    )
    outcomes = run_bundle(folder, tmp_path / "results")
    assert [one.status for one in outcomes] == ["done", "failed", "left out", "left out"]
    assert outcomes[1].detail == "it broke"
    assert "checks/nothing" in outcomes[2].detail
    with zipfile.ZipFile(tmp_path / "results" / "summary.zip") as bag:
        assert float(bag.read("a.txt")) == pytest.approx(0.1)
        assert {"stages.json", "machine.json", "logs/one.txt", "logs/two.txt"} <= set(
            bag.namelist()
        )
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["summary.zip"]


def test_a_stage_that_does_not_end_is_stopped_with_what_it_started(bundled, tmp_path):
    code = (
        "import subprocess, sys, time, pathlib\n"
        "pathlib.Path('a.txt').write_text('there')\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "time.sleep(60)\n"
    )
    folder = bundled(stage("endless", code, keep=["*.txt"]), stage("next", "print('still')"))
    began = time.monotonic()
    outcomes = run_bundle(folder, tmp_path / "results", minutes=0.05, grace=0.0)
    assert time.monotonic() - began < 30
    assert [one.status for one in outcomes] == ["stopped", "done"]
    with zipfile.ZipFile(tmp_path / "results" / "summary.zip") as bag:
        assert bag.read("a.txt") == b"there"


def test_a_stage_ends_with_the_command_that_is_interrupted(bundled, tmp_path, monkeypatch):
    there = tmp_path / "pid.txt"
    code = (
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    folder = bundled(stage("endless", code, str(there)))

    def interrupt(home):
        if there.exists() and there.read_text():
            raise KeyboardInterrupt

    monkeypatch.setattr(module._Home, "bring", interrupt)
    monkeypatch.setattr(module, "LOOK_EVERY", 0.1)
    with pytest.raises(KeyboardInterrupt):
        run_bundle(folder, tmp_path / "results")
    with pytest.raises(ProcessLookupError):
        os.kill(int(there.read_text()), 0)


def test_only_some_stages(bundled, tmp_path):
    folder = bundled(stage("one", "print(1)"), stage("two", "print(2)", extra=True))
    assert [one.name for one in run_bundle(folder, tmp_path / "r", only=["two"])] == ["two"]
    with pytest.raises(SettingsError, match="Did you mean 'two'"):
        run_bundle(folder, tmp_path / "r", only=["tow"])


@pytest.mark.usefixtures("tiny_networks")
def test_a_stage_that_runs_later_takes_nothing_of_the_others_away(bundled, tiny_run, tmp_path):
    code = f"import shutil; shutil.copytree({str(tiny_run)!r}, 'made'); open('a.txt', 'w')"
    folder = bundled(
        stage("make", code, keep=["a.txt"], weights=["made"]),
        stage("gone", "print('no')", needs="checks/nothing"),
        stage("later", "open('b.txt', 'w')", extra=True, at_least=9.0, keep=["b.txt"]),
    )
    run_bundle(folder, tmp_path / "results")
    (folder / "checks" / "nothing").mkdir(parents=True)
    run_bundle(folder, tmp_path / "results", only=["later"], minutes=9.5)
    (joined,) = unpack(tmp_path / "results", tmp_path / "home")
    assert joined.run == tmp_path / "home" / "made"
    assert {"a.txt", "b.txt"} <= {path.name for path in (tmp_path / "home").iterdir()}

    def told():
        with zipfile.ZipFile(tmp_path / "results" / "summary.zip") as bag:
            return {one["name"]: one["status"] for one in json.loads(bag.read("stages.json"))}

    assert told() == {"make": "done", "gone": "left out", "later": "done"}
    # Too little time for what was done before: that it was done stays true.
    run_bundle(folder, tmp_path / "results", only=["gone", "later"], minutes=0.1)
    assert told() == {"make": "done", "gone": "done", "later": "done"}


@pytest.mark.usefixtures("tiny_networks")
def test_weights_come_home_and_are_tested(bundled, tiny_run, tiny_cohort, tmp_path):
    copy = f"import shutil; shutil.copytree({str(tiny_run)!r}, 'made/hardened')"
    folder = bundled(
        stage("make", copy, keep=["made/*/checkpoint/classifier.json"], weights=["made/hardened"])
    )
    run_bundle(folder, tmp_path / "results", limits=Limits(part_mib=0.002, max_files=8))
    parts = sorted(path.name for path in (tmp_path / "results").glob("weights-*"))
    assert 2 <= len(parts) <= 7
    unpack_travelled(folder, tmp_path / "cohort")
    (joined,) = unpack(tmp_path / "results", tmp_path / "home", cohort=tmp_path / "cohort")
    assert joined.run == tmp_path / "home" / "made" / "hardened"
    assert joined.accuracy > 0.5
    load_checkpoint(joined.run)
    (tmp_path / "results" / parts[0]).unlink()
    with pytest.raises(CheckpointError, match="1-of"):
        unpack(tmp_path / "results", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_most_wanted_weights_come_first(bundled, tiny_run, tmp_path):
    code = (
        "import shutil, time\n"
        f"shutil.copytree({str(tiny_run)!r}, 'standard')\n"
        f"shutil.copytree({str(tiny_run)!r}, 'hardened')\n"
    )
    folder = bundled(stage("make", code, weights=["hardened", "standard"]))
    run_bundle(folder, tmp_path / "results", limits=Limits(max_files=2))
    names = [path.name for path in (tmp_path / "results").glob("weights-*")]
    assert names == ["weights-hardened.1-of-1"]


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ResultError, match=r"summary\.zip"):
        unpack(tmp_path, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "summary.zip", "w") as bag:
        bag.writestr("../evil.txt", "x")
    with pytest.raises(DataError, match="leads out"):
        unpack(tmp_path, tmp_path / "out")
    assert not (tmp_path.parent / "evil.txt").exists()
    checkpoint = {
        "spec": {"backbone": "vit", "classes": ["a", "b"], "size": 32},
        "weights_sha256": "",
    }
    halved = {
        "checkpoint": checkpoint,
        "parts": ["weights-x.1-of-1"],
        "sha256": "",
        "largest_change": 0.0,
    }
    with zipfile.ZipFile(tmp_path / "summary.zip", "w") as bag:
        bag.writestr("weights.json", json.dumps({"../evil": halved}))
    with pytest.raises(ResultError, match="leads out"):
        unpack(tmp_path, tmp_path / "out")


def test_every_packaged_stage_can_be_read():
    from importlib import resources
    from pathlib import Path

    from robustmri.verbs.run_bundle import read_stages

    with resources.as_file(resources.files("robustmri.verbs.carried")) as carried:
        stages = read_stages(Path(carried))
    assert [one.name for one in stages if not one.extra] == ["check", "speed", "poster"]
    assert sum(one.minutes for one in stages if not one.extra) <= 9
    assert sys.executable


@pytest.mark.parametrize("text", ["title = 1", "stages = 1", '[[stages]]\nname = "one"'])
def test_a_file_that_lists_no_stages_is_named(tmp_path, text):
    (tmp_path / "stages.toml").write_text(text)
    with pytest.raises(SettingsError, match="does not list stages as it should"):
        read_stages(tmp_path)


def test_a_bundle_may_be_run_again_where_its_cohort_lies(bundled, tmp_path):
    folder = bundled(stage("one", "print('said')"))
    run_bundle(folder, tmp_path / "results")
    (folder / "cohort.zip").unlink()
    (again,) = run_bundle(folder, tmp_path / "results")
    assert again.status == "done"


def test_a_card_is_described(monkeypatch):
    assert describe_device()["card"] is None
    card = SimpleNamespace(name="abacus", total_memory=3 << 29, multi_processor_count=7)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda place: card)
    said = describe_device()
    assert (said["card"], said["gib"], said["multiprocessors"]) == ("abacus", 1.5, 7)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "work").mkdir()
    stages = [
        module.Stage(name=name, about="", command=[], minutes=1, weights=[name])
        for name in ("first", "second")
    ]
    return _Home(stages, tmp_path / "work", tmp_path / "out", Limits(max_files=2))


def finish(home, name):
    (home.work / name / "checkpoint").mkdir(parents=True)
    (home.work / name / "checkpoint" / "weights.safetensors").write_bytes(bytes(100))


class Parts(msgspec.Struct):
    parts: tuple[str, ...]


def test_weights_that_are_wanted_more_take_the_place_of_others(home, monkeypatch):
    def halve(run, out, name, *, part_mib):
        (out / f"{name}.part").write_text(name)
        return Parts((f"{name}.part",))

    monkeypatch.setattr(module, "halve", halve)
    monkeypatch.setattr(module, "count_parts", lambda run, part_mib: 1)
    finish(home, "second")
    home.bring()
    assert {"second.part"} <= {path.name for path in home.out.iterdir()}
    finish(home, "first")
    home.bring()
    assert {path.name for path in home.out.iterdir()} == {"first.part", "summary.zip"}


def test_what_cannot_be_brought_yet_is_said_and_brought_later(home, monkeypatch, capsys):
    (home.work / "a.json").write_text("{}")
    with monkeypatch.context() as patch:
        patch.setattr(module.zipfile, "ZipFile", broken)
        home.bring()
    assert "not brought home yet: no room" in capsys.readouterr().err
    assert not list(home.out.iterdir())
    home.bring()
    before = (home.out / "summary.zip").stat().st_mtime_ns
    home.bring()  # Nothing is new.
    assert (home.out / "summary.zip").stat().st_mtime_ns == before


def broken(*_, **__):
    raise OSError("no room")


def test_a_process_that_is_gone_needs_no_stop(monkeypatch):
    asked = []

    class Ended:
        pid = 1

        def wait(self, timeout):
            raise module.subprocess.TimeoutExpired("it", timeout)

    def kill(group, kind):
        asked.append(kind)
        if len(asked) == 2:
            raise ProcessLookupError

    monkeypatch.setattr(module.os, "killpg", kill)
    module._stop(Ended())
    assert asked == [module.signal.SIGTERM, module.signal.SIGKILL]
    asked.clear()
    monkeypatch.setattr(module.os, "killpg", lambda group, kind: asked.append(kind))
    module._stop(Ended())  # It cannot be stopped: not for ever.
    assert asked == [module.signal.SIGTERM, module.signal.SIGKILL]


def test_what_was_said_of_untouched_slices_there_is_compared(tmp_path):
    rows = {
        "case_id": ["1", "2", "1"],
        "attack": ["none", "none", "pgd"],
        "clean_prediction": ["a", "b", "a"],
    }
    assert _recorded(tmp_path / "hardened") == {}
    (tmp_path / "after").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "after" / "outcomes.parquet")
    assert _recorded(tmp_path / "hardened") == {"1": "a", "2": "b"}
    (tmp_path / "after" / "outcomes.parquet").write_bytes(b"PAR1")
    with pytest.raises(ResultError, match="is damaged"):
        _recorded(tmp_path / "hardened")
    with pytest.raises(DataError, match="is no bundle"):
        unpack_travelled(tmp_path, tmp_path / "cohort")
