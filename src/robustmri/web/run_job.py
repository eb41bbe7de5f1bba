"""The process around a job: it runs the verb, and writes down how that ended whatever becomes of
the server.

    python -m robustmri.web.run_job FOLDER/.jobs/JOB
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

from robustmri.core.files import write_json
from robustmri.core.provenance import now
from robustmri.web.seal import is_sealed, read_asked

MEMORY, SECONDS = 8 * 2**30, 30 * 60
"""Bytes and seconds of a verb that opens what came from elsewhere; on the CPU alone, whose memory
can be bounded."""


def run_job(folder: Path) -> int:
    """Run the command of a job's file; its output goes into the log, its exit status into
    `end.json`.

    While it, or the verb, lives, the file `lock` is locked: that is how a server knows.
    """
    with open(folder / "lock", "w") as lock, open(folder / "log.txt", "ab") as log:
        if not _take(lock):
            return 1  # It runs already.
        job = read_asked(folder)
        if not is_sealed(folder, job):
            return 1  # Exchanged since it was looked at.
        # A handler and not SIG_IGN, which the verb would inherit: the signal that stops the verb
        # goes to the whole group, and this process stays to tell the end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        write_json(folder / "start.json", {"process": os.getpid(), "when": now()})
        if (folder / "cancel").exists():
            write_json(folder / "end.json", {"status": -signal.SIGINT, "when": now()})
            return 1
        guarded = job.guarded
        process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock.fileno(),),
            preexec_fn=limit_process if guarded else None,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} if guarded else None,
        )
        try:
            status = process.wait(SECONDS if guarded else None)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
            log.write(b"stopped: it took longer than %d minutes.\n" % (SECONDS // 60))
        with contextlib.suppress(OSError):  # A full disk: then it counts as stopped.
            write_json(folder / "end.json", {"status": status, "when": now()})
    return status


def limit_process() -> None:
    """Bound the memory, the time and the files of this process, for good: what it opens came from
    elsewhere, and may be made to exhaust the machine.
    """
    # Of data and not of addresses: torch maps far more than it ever uses.
    bounds = [
        (resource.RLIMIT_DATA, MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_FSIZE, MEMORY),
        (resource.RLIMIT_CORE, 0),
    ]
    for kind, most in bounds:
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _take(lock: TextIO) -> bool:
    # Whoever asks whether the job runs holds the lock for a moment: try for longer than that.
    for _ in range(20):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


if __name__ == "__main__":
    sys.exit(run_job(Path(sys.argv[1])))
