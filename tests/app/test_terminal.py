"""What a terminal shows of the words of others, who reads what is printed, and a polite end."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from robustmri.app import cli, console
from robustmri.app.terminal import TERMINATED, printable, say, stoppable
from robustmri.core.errors import DataError
from robustmri.core.files import atomic_folder, write_json
from robustmri.report.tables import Table

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
NAMES = {
    "escape sequence": f"P1{ESCAPE}",
    "another line": "P1\nwarn: all is well",
    "carriage return": "P1\rP2",
    "right to left": "P1\u202egpj.exe",
    "C1": "P1\x9b2J",
    "not UTF-8": "P1\udcff",
}
MARKUP = "[red]glioma[/red] :skull: [/nothing]"

# The command line in a process of its own, with a verb that ends at once.
COMMAND = [sys.executable, "-m", "robustmri.app.cli"]


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C is heard, also where whoever runs the tests does so in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(*words, **how):
    # With a buffer, which Python empties when it ends.
    how["env"] = {**os.environ, "PYTHONUNBUFFERED": ""}
    return subprocess.run([*COMMAND, *words], stderr=subprocess.PIPE, text=True, check=False, **how)


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_only_shows(kind, capsys):
    say(f"left out: {NAMES[kind]}: bad")
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert said.rstrip("\n").isprintable()
    assert said.startswith("left out: P1\\")


def test_the_command_line_prints_by_it_alone():
    for path in Path(console.__file__).parent.glob("*.py"):
        prints = re.findall(r"(?<![\w.])print\(", path.read_text(encoding="utf-8"))
        assert len(prints) == (path.name == "terminal.py"), path.name


def test_letters_of_any_language_are_letters():
    assert printable("Mening\u00e9om \u8111\u819c\u7624 \u0645") == (
        "Mening\u00e9om \u8111\u819c\u7624 \u0645"
    )


def test_tables_show_names_as_they_are(capsys):
    console.print_table(Table([MARKUP, "n"], [[MARKUP, f"1{ESCAPE}"]], [f"{MARKUP}{ESCAPE}"]))
    said = capsys.readouterr().out
    assert said.count(MARKUP) == 3
    assert "\x1b" not in said
    assert "\x07" not in said


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_names_as_they_are(terminal, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    with console.shown_progress() as progress:
        progress(f"{MARKUP}{ESCAPE}", 1, 1, "[/note]")
    assert MARKUP in stream.getvalue()
    assert "[/note]" in stream.getvalue()
    assert "\x1b]0;owned" not in stream.getvalue()


def test_errors_show_names_as_they_are(tmp_path):
    done = run("report", str(tmp_path / f"x{ESCAPE}"), "--out", str(tmp_path / "report.html"))
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert "x\\x1b]0;owned" in done.stderr


def test_nobody_reads_on():
    """As `robustmri recipes | head -0` does; the work is done."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run("recipes", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_nobody_reads_errors():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*COMMAND, "report", "nothing", "--out", "x.html"], stderr=writing, check=False
        )
    finally:
        os.close(writing)
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_the_output_is_one_sentence():
    with open("/dev/full", "w") as full:
        done = run("recipes", stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "robustmri: what it printed could not be written (No space left on device). Its files are "
        "whole."
    ]


SAY = """
from robustmri.app.terminal import say, steady_output
with steady_output():
    say("P1 \\u8111")
"""


def test_a_terminal_of_ascii_shows_everything():
    done = subprocess.run(
        [sys.executable, "-c", SAY],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "P1 \\u8111\n", "")


def test_closed_from_the_beginning():
    done = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *COMMAND, "recipes"], check=False)
    assert done.returncode == 0


STOPPED = """
import os, signal, sys
from robustmri.app import cli
import robustmri

def prepare(source, out, progress, **settings):
    from robustmri.core.files import atomic_folder
    with atomic_folder(out) as partial:
        (partial / "half").write_text("")
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

robustmri.prepare = prepare
sys.argv = ["robustmri", "prepare", "phantom", "--out", sys.argv[1]]
cli.main()
"""


def test_sigterm_ends_as_ctrl_c_does(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(tmp_path / "cohort")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == TERMINATED, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "robustmri: stopped. The same command goes on where it was."
    )
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "by", [None, ImportError("initialization failed"), DataError("unreadable")]
)
def test_ctrl_c_outside_of_a_command_is_one_line_too(by, monkeypatch, capsys):
    """Before a command has begun, or as what a module that was being loaded makes of it."""

    def interrupted():
        if by:
            raise by from KeyboardInterrupt()
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == cli.INTERRUPTED
    assert capsys.readouterr().err == "robustmri: stopped. The same command goes on where it was.\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_a_library_took_for_a_fault_makes_no_file(number, tmp_path, monkeypatch):
    def work():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        (write_json if number == signal.SIGINT else write_folder)(tmp_path / "made", {})

    def write_folder(path, _):
        with atomic_folder(path) as partial:
            (partial / "file").touch()

    monkeypatch.setattr(cli, "app", work)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == (TERMINATED if number == signal.SIGTERM else cli.INTERRUPTED)
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "later", {})  # By whoever goes on in this process.


def test_signals_are_as_before_afterwards():
    with stoppable() as came:
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert came == []


def test_other_processes_of_a_command_end_at_once(monkeypatch):
    """They hold nothing, and may be waiting where no signal of Python's is heard."""
    monkeypatch.setenv("RANK", "1")
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
