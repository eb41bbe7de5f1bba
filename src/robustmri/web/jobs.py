"""Jobs: verbs as processes of their own group, their state in files, so that nothing is lost when
the page or the server goes away.

    FOLDER/.jobs/000001/  job.json    what was asked for: the command, how it is called, a seal
                          start.json  when it began and as which process
                          end.json    when it ended and with which status
                          cancel      it was to stop
                          lock        locked while it runs
                          log.txt     what it said
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, TypeVar

import msgspec

from robustmri.core.errors import DataError, RobustMRIError
from robustmri.core.files import read_json, write_json
from robustmri.core.provenance import now
from robustmri.web.folder import NotThereError
from robustmri.web.seal import Asked, is_sealed, read_asked, seal

State = Literal["waiting", "running", "done", "failed", "cancelled", "stopped"]
STATES: dict[State, str] = {
    "waiting": "Waiting for its turn",
    "running": "Running",
    "done": "Done",
    "failed": "Failed",
    "cancelled": "Cancelled; it can go on where it was",
    "stopped": "Stopped from outside; it can go on where it was",
}
PLACE = ".jobs"
MOST_LOG = 64_000
"""Bytes of a log that are shown: its end."""
PROGRESS = re.compile(r"^(?P<task>.+): (?P<done>\d+)/(?P<total>\d+)(?P<rest>.*)$")

REASON = re.compile(r"^robustmri: (.+)", re.MULTILINE)
MOST_REASON = 600


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its files tell it; `said` counts the bytes of its log, `why` is what it said of its
    failure.
    """

    id: str
    verb: str
    title: str
    asked: str
    state: State
    started: str = ""
    ended: str = ""
    status: int | None = None
    task: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    out: str = ""
    said: int = 0
    why: str = ""


class Began(msgspec.Struct, frozen=True):
    """start.json: the process, and when."""

    process: Annotated[int, msgspec.Meta(gt=1)]
    when: str


class Ended(msgspec.Struct, frozen=True):
    """end.json: the exit status, and when."""

    status: int
    when: str


Told = TypeVar("Told", Began, Ended)


class Jobs:
    """The jobs of a folder. One runs at a time; the others wait in the order of their numbers.

    Args:
        folder: the folder of runs and results.
        every: seconds between two looks at the queue.

    Raises:
        DataError: its queue holds links or pipes.
    """

    def __init__(self, folder: Path, *, every: float = 0.5) -> None:
        self.folder = folder / PLACE
        _refuse_links(self.folder)
        self._every = every
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._children: list[subprocess.Popen[bytes]] = []

    def add(
        self, verb: str, title: str, words: Sequence[str], out: str = "", *, guarded: bool = False
    ) -> Job:
        """Put a command into the queue.

        Args:
            verb: its first word.
            title: what it is called.
            words: the whole command, program first.
            out: what it makes, relative to the folder.
            guarded: whether it opens files from elsewhere, and may have so much memory and time
                and no more (see `run_job`).
        """
        with self._lock:
            taken = [int(path.name) for path in self._places()]
            place = self.folder / f"{max(taken, default=0) + 1:06d}"
            place.mkdir(parents=True)
            job = Asked(
                verb=verb, title=title, command=(*words,), guarded=guarded, out=out, asked=now()
            )
            job = msgspec.structs.replace(job, seal=seal(place, job))
            write_json(place / "job.json", msgspec.to_builtins(job))
        return self.read(place.name)

    def all(self) -> list[Job]:
        """All of them, the newest first."""
        found = []
        for place in sorted(self._places(), reverse=True):
            with contextlib.suppress(RobustMRIError):  # Half removed, or not ours.
                found.append(self.read(place.name))
        return found

    def read(self, id: str) -> Job:
        """One job.

        Raises:
            NotThereError: there is none.
            DataError: what was asked for cannot be read.
        """
        place = self._place(id)
        asked = read_asked(place)
        start, end = _read(place / "start.json", Began), _read(place / "end.json", Ended)
        state = self._state(place, start, end)
        if state == "waiting" and not is_sealed(place, asked):
            state = "stopped"
        log = self.log(id, most=4096) if state != "waiting" else ""
        return Job(
            id=id,
            verb=asked.verb,
            title=asked.title,
            out=asked.out,
            asked=asked.asked,
            state=state,
            started=start.when if start else "",
            ended=end.when if end else "",
            status=end.status if end else None,
            said=_size_of(place / "log.txt"),
            why=_reason(log) if state == "failed" else "",
            **_last_task(log),
        )

    def log(self, id: str, *, most: int = MOST_LOG) -> str:
        """The end of what it said, at most so many bytes."""
        path = self._place(id) / "log.txt"
        if not path.is_file():
            return ""
        with open(path, "rb") as stream:
            stream.seek(max(0, path.stat().st_size - most))
            return stream.read(most).decode("utf-8", "replace")

    def cancel(self, id: str, *, wait: float = 20.0) -> Job:
        """Stop a job, or take it out of the queue; first kindly, after `wait` seconds not."""
        place = self._place(id)
        if self.read(id).state not in ("waiting", "running"):
            return self.read(id)
        (place / "cancel").touch()
        began = _read(place / "start.json", Began)
        if began and _locked(place):
            _signal(began.process, signal.SIGINT)
            killer = threading.Timer(wait, self._kill, (place, began.process))
            killer.daemon = True
            killer.start()
        return self.read(id)

    def again(self, id: str) -> Job:
        """Put a job that ended back into the queue: the same command goes on from what it stored.

        Raises:
            DataError: it waits or runs.
        """
        place = self._place(id)
        with self._lock:
            if self.read(id).state in ("waiting", "running"):
                raise DataError("This job has not ended yet.")
            if not is_sealed(place, read_asked(place)):
                raise DataError(
                    "This job was not asked for here: it came with the folder, or the folder was "
                    "moved. Ask for it anew."
                )
            for name in ("start.json", "end.json", "cancel"):
                (place / name).unlink(missing_ok=True)
        return self.read(id)

    def step(self) -> None:
        """Start the next job if none runs."""
        self._children = [child for child in self._children if child.returncode is None]
        with self._lock:
            states = {job.id: job.state for job in self.all()}
            waiting = sorted(id for id, state in states.items() if state == "waiting")
            if "running" not in states.values() and waiting and not self._children:
                self._start(self._place(waiting[0]))

    def watch(self) -> threading.Thread:
        """Look after the queue until `close`, unless another server does so for this folder."""

        def run() -> None:
            with contextlib.suppress(OSError):  # A folder that cannot be written has no jobs.
                self.folder.mkdir(exist_ok=True)
                with open(self.folder / "queue.lock", "w") as lock:
                    look_after(lock)

        def look_after(lock: TextIO) -> None:
            while not self._closed.wait(self._every):
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self.step()

        thread = threading.Thread(target=run, name="jobs", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """No job is started from now on; one that runs goes on."""
        self._closed.set()

    def _start(self, place: Path) -> None:
        environment = os.environ | {"ROBUSTMRI_WORKBENCH": "1", "PYTHONUNBUFFERED": "1"}
        # A process group of its own: a signal reaches the verb and all that it starts, and what is
        # typed where the server runs reaches neither.
        child = subprocess.Popen(
            [sys.executable, "-m", "robustmri.web.run_job", str(place)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=os.sep,  # Python looks for modules where it is begun: never in the folder.
            env=environment,
            start_new_session=True,
        )
        self._children.append(child)
        threading.Thread(target=child.wait, daemon=True).start()

    def _kill(self, place: Path, process: int) -> None:
        # Only the very process: what was started again in the meantime has another number.
        began = _read(place / "start.json", Began)
        if began and began.process == process and _locked(place):
            _signal(process, signal.SIGKILL)

    def _state(self, place: Path, start: Began | None, end: Ended | None) -> State:
        cancelled = (place / "cancel").exists()
        if end:
            if not end.status:
                return "done"
            return "cancelled" if cancelled else "failed"
        if _locked(place):
            return "running"
        if start:
            return "cancelled" if cancelled else "stopped"
        return "cancelled" if cancelled else "waiting"

    def _places(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if re.fullmatch(r"\d{6}", path.name)]

    def _place(self, id: str) -> Path:
        if not re.fullmatch(r"[0-9]{6}", id) or not (self.folder / id / "job.json").is_file():
            raise NotThereError("There is no job of this number.")
        return self.folder / id


def _refuse_links(queue: Path) -> None:
    """What is written into a queue stays in it."""
    for path in [queue, *queue.rglob("*")]:
        if path.is_symlink() or (path.exists() and not path.is_dir() and not path.is_file()):
            raise DataError(
                f"{path} is a link or no plain file. A queue of jobs holds neither: remove it."
            )


def _read(path: Path, kind: type[Told]) -> Told | None:
    """What a file of a job tells; None where it is not there, or tells something else."""
    with contextlib.suppress(RobustMRIError):
        told: Told = read_json(path, kind)
        return told
    return None


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _locked(place: Path) -> bool:
    """Whether somebody holds the lock of a job."""
    try:
        with open(place / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, number)


def _reason(log: str) -> str:
    """The sentence in which a verb said why it gave up; empty where it said none."""
    found = REASON.findall(log)
    return str(found[-1])[:MOST_REASON] if found else ""


def _last_task(log: str) -> dict[str, Any]:
    """How far the log says the job is."""
    for line in reversed(log.splitlines()[-50:]):
        if found := PROGRESS.match(line):
            note = found["rest"].strip(" ,-")
            return {
                "task": found["task"],
                "done": int(found["done"]),
                "total": int(found["total"]),
                "note": note,
            }
    return {}
