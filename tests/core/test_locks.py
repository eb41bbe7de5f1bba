"""Two processes and one place: one writes, the other is told so at once, and nothing is lost."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from robustmri.core.errors import DataError, RobustMRIError
from robustmri.core.files import atomic_file, atomic_folder
from robustmri.core.locks import locked
from robustmri.data.cohort import Cohort
from robustmri.verbs.prepare import prepare
from robustmri.verbs.run_folder import claimed_folder

WRITING = "is being written by another process"
# Each says that it is in the middle of it, and goes on when it is told so.
FOLDER = """
import sys
from robustmri.core.files import atomic_folder
with atomic_folder(sys.argv[1]) as partial:
    (partial / "big").write_text("whole")
    print("busy", flush=True)
    sys.stdin.readline()
"""
FILE = """
import sys
from robustmri.core.files import atomic_file
with atomic_file(sys.argv[1]) as partial:
    partial.write_text("whole")
    print("busy", flush=True)
    sys.stdin.readline()
"""
RUN = """
import sys
from pathlib import Path
from robustmri.verbs.run_folder import claimed_folder
with claimed_folder(Path(sys.argv[1]), {"train": {"seed": 1}}, done="checkpoint"):
    print("busy", flush=True)
    sys.stdin.readline()
"""
PREPARE = """
import sys
from robustmri.verbs.prepare import prepare
def tell(task, done, total, note=""):
    if done == 5:
        print("busy", flush=True)
        sys.stdin.readline()
prepare("phantom:patients=12,slices=1", sys.argv[1], size=32, progress=tell)
"""


@contextmanager
def another_process(script, out):
    """A process in the middle of its writing; yields it."""
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline() == "busy\n"
        yield other
    finally:
        other.kill()
        other.communicate()


def go_on(other):
    other.stdin.write("\n")
    other.stdin.flush()
    assert other.wait(60) == 0


def fill(out):
    with atomic_folder(out) as partial:
        (partial / "mine").write_text("")


def write(path):
    with atomic_file(path) as partial:
        partial.write_text("mine")


def claim(out, seed=1):
    with claimed_folder(out, {"train": {"seed": seed}}, done="checkpoint"):
        pass


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_second_process_is_told_and_takes_nothing(tmp_path):
    out = tmp_path / "cohort"
    with another_process(FOLDER, out) as other:
        before = names(tmp_path)
        with pytest.raises(RobustMRIError, match=f"cohort {WRITING}"):
            fill(out)
        assert names(tmp_path) == before
        go_on(other)
    assert (names(tmp_path), names(out)) == (["cohort"], ["big"])


def test_a_killed_process_lets_go_and_what_it_left_is_cleared(tmp_path):
    out = tmp_path / "cohort"
    with another_process(FOLDER, out) as other:
        other.kill()
        other.wait()
        assert len(names(tmp_path)) == 2  # Its lock and its partial folder.
        fill(out)
    assert (names(tmp_path), names(out)) == (["cohort"], ["mine"])


def test_a_process_killed_once_its_folder_had_the_name_leaves_no_lock(tmp_path):
    out, lock = tmp_path / "cohort", tmp_path / ".cohort.lock"
    fill(out)
    with locked(lock, out):
        with pytest.raises(DataError, match="exists already"):
            fill(out)
        assert lock.exists(), "somebody holds it"
    lock.touch()
    with pytest.raises(DataError, match="exists already"):
        fill(out)
    assert (names(tmp_path), names(out)) == (["cohort"], ["mine"])


def test_what_a_killed_process_left_of_a_file_is_cleared_but_not_what_still_grows(tmp_path):
    with another_process(FILE, tmp_path / "page.html") as other:
        write(tmp_path / "page.html")
        assert len(names(tmp_path)) == 2
        other.kill()
        other.wait()
    write(tmp_path / "page.html")
    assert names(tmp_path) == ["page.html"]
    with another_process(FILE, tmp_path / "page.html") as other:
        write(tmp_path / "page.html")
        go_on(other)
    assert (tmp_path / "page.html").read_text() == "whole"


def test_where_disks_cannot_lock_nothing_is_taken_for_left_behind(tmp_path, monkeypatch):
    def cannot(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    growing = tmp_path / ".page.html.0badcafe.partial"
    growing.write_text("of another machine")
    monkeypatch.setattr(fcntl, "flock", cannot)
    write(tmp_path / "page.html")
    assert (names(tmp_path), growing.read_text()) == (
        [growing.name, "page.html"],
        "of another machine",
    )


def test_two_preparations_of_one_cohort(tmp_path):
    out = tmp_path / "cohort"
    with another_process(PREPARE, out) as other:
        with pytest.raises(RobustMRIError, match=WRITING):
            prepare("phantom:patients=12,slices=1", out, size=32)
        go_on(other)
    Cohort.open(out).verify()
    assert names(tmp_path) == ["cohort"]


def test_two_commands_in_one_run_folder(tmp_path):
    with another_process(RUN, tmp_path / "run") as other:
        with pytest.raises(RobustMRIError, match=f"run {WRITING}"):
            claim(tmp_path / "run")
        go_on(other)
    claim(tmp_path / "run")
    assert names(tmp_path / "run") == ["settings.json"]


@pytest.mark.parametrize("done", [False, True])
def test_a_killed_run_is_taken_up_again(tmp_path, done):
    with another_process(RUN, tmp_path / "run") as other:
        if done:
            (tmp_path / "run" / "checkpoint").mkdir()
        other.kill()
        other.wait()
    claim(tmp_path / "run")
    assert names(tmp_path / "run") == ["checkpoint"] * done + ["settings.json"]


def test_the_processes_of_one_command_share_its_run_folder(tmp_path, monkeypatch):
    with another_process(RUN, tmp_path / "run"):
        monkeypatch.setenv("RANK", "1")
        claim(tmp_path / "run")


@pytest.mark.parametrize("end", ["finished", "of others"])
def test_a_run_folder_that_is_not_written_is_not_touched(tmp_path, end):
    (tmp_path / "run").mkdir()
    if end == "finished":
        claim(tmp_path / "run")
        (tmp_path / "run" / "checkpoint").mkdir()
    else:
        (tmp_path / "run" / "photo.png").write_text("")
    before = (tmp_path / "run").stat().st_mtime_ns
    if end == "finished":
        claim(tmp_path / "run")
    else:
        with pytest.raises(DataError, match="holds no run"):
            claim(tmp_path / "run")
    assert (tmp_path / "run").stat().st_mtime_ns == before


def test_a_folder_whose_name_begins_alike_is_left_alone(tmp_path):
    with another_process(FOLDER, tmp_path / "cohort.small") as other:
        fill(tmp_path / "cohort")
        go_on(other)
    assert names(tmp_path / "cohort.small") == ["big"]


def test_a_lock_file_that_was_removed_while_one_waited_lets_nobody_else_in(tmp_path, monkeypatch):
    """Who waited has then locked a file without a name, and the next one would make a new one."""
    lock, flock, left = tmp_path / "lock", fcntl.flock, [1]

    def flock_late(descriptor, how):
        flock(descriptor, how)
        if left:
            left.pop()
            lock.unlink()

    monkeypatch.setattr(fcntl, "flock", flock_late)
    with locked(lock, "it", wait=True) as alone:
        assert alone
        with pytest.raises(RobustMRIError, match=WRITING), locked(lock, "it"):
            pass
    assert names(tmp_path) == []


def test_many_that_wait_are_inside_one_at_a_time(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with locked(tmp_path / "lock", "it", wait=True):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert most == [1] * 80
    assert names(tmp_path) == []


def test_a_disk_that_cannot_lock_loses_nothing(tmp_path, monkeypatch):
    """Then nobody knows whose a partial folder is: it stays; and who comes last is refused."""

    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    out = tmp_path / "cohort"
    (tmp_path / ".cohort.0badcafe.partial").mkdir()

    def overtaken():
        with atomic_folder(out) as partial:
            (partial / "second").write_text("")
            fill(out)

    with pytest.raises(DataError, match="not empty"):
        overtaken()
    assert names(out) == ["mine"]
    assert names(tmp_path) == [".cohort.0badcafe.partial", "cohort"]


def test_every_lock_of_the_package_is_this_one():
    """But those of the workbench's jobs and queue, which look for the processes that they start."""
    package = Path(__file__).parents[2] / "src" / "robustmri"
    users = [
        path.name
        for path in package.rglob("*.py")
        if path.parent.name != "web" and "import fcntl" in path.read_text(encoding="utf-8")
    ]
    assert users == ["locks.py"]
