"""Commands on a cluster: submitted by submitit instead of run here (`--on slurm`).

    python -m robustmri.app.cluster slurm LOGS -- WORDS OF A COMMAND

waits for it, says what it says, and ends as it does; the workbench starts its jobs so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from robustmri.app.terminal import say
from robustmri.core.errors import SettingsError, did_you_mean

CLUSTERS = ("slurm", "local")
PARAMETERS = ("partition", "account", "qos", "time", "gpus_per_node", "cpus_per_task", "mem_gb")
"""What may be asked of it; `time` in minutes."""
DAY = 24 * 60
EVERY = 1.0
"""Seconds between two looks at a job."""


class Place(NamedTuple):
    """Where commands run, and what is asked of the cluster."""

    cluster: str
    parameters: dict[str, str]


def read_place(text: str) -> Place:
    """The meaning of `--on`.

    Raises:
        SettingsError: no such cluster or parameter.

    >>> read_place("slurm:partition=gpu,time=600").parameters
    {'partition': 'gpu', 'time': '600'}
    """
    cluster, _, rest = text.partition(":")
    if cluster not in CLUSTERS:
        raise SettingsError(f"--on cannot be {cluster!r}. {did_you_mean(cluster, CLUSTERS)}")
    parameters = {}
    for part in filter(None, rest.split(",")):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in PARAMETERS:
            raise SettingsError(
                f"--on {cluster} has no parameter {name!r}. {did_you_mean(name, PARAMETERS)}"
            )
        numeric = name not in ("partition", "account", "qos")
        if not value or (numeric and not value.isdecimal()):
            what = "a whole number" if numeric else "a value"
            raise SettingsError(f"--on {cluster}: {name} needs {what}, got {value!r}.")
        parameters[name] = value
    return Place(cluster, parameters)


def submit(
    words: Sequence[str],
    logs: Path,
    place: Place,
    *,
    nodes: int = 1,
    tasks: int = 1,
    after: Sequence[Any] = (),
) -> Any:
    """Submit a command of ours; returns submitit's job.

    Args:
        words: the command without its program.
        logs: folder for what it says, made if it is not there.
        place: where.
        nodes: machines that share the work.
        tasks: processes on each of them.
        after: jobs that must have ended well before it begins.

    Raises:
        SettingsError: submitit, or the cluster, is not there.
    """
    try:
        import submitit
    except ImportError as error:
        raise SettingsError(
            "--on needs submitit. Install it with: pip install 'robustmri[slurm]'"
        ) from error
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=place.cluster)
    except RuntimeError as error:
        raise SettingsError(f"{place.cluster} is not there ({error}).") from error
    executor.update_parameters(**_asked(place, nodes, tasks, after))
    if after and place.cluster == "local":
        for job in after:
            job.wait()
    command = [sys.executable, "-m", "robustmri.app.cli", *words]
    return executor.submit(submitit.helpers.CommandFunction(command))


def _asked(place: Place, nodes: int, tasks: int, after: Sequence[Any]) -> dict[str, Any]:
    given = place.parameters
    asked: dict[str, Any] = {"name": "robustmri", "timeout_min": int(given.get("time", DAY))}
    asked |= {name: int(given[name]) for name in PARAMETERS[4:] if name in given}
    if place.cluster == "slurm":
        asked |= {"nodes": nodes, "tasks_per_node": tasks}
        asked |= {f"slurm_{name}": given[name] for name in PARAMETERS[:3] if name in given}
        if after:
            ids = ":".join(str(job.job_id) for job in after)
            asked["slurm_additional_parameters"] = {"dependency": f"afterok:{ids}"}
    return asked


def words_without(words: Sequence[str], *options: str) -> list[str]:
    """A command without some of its options and their values.

    >>> words_without(["ablate", "c", "--on", "slurm", "--only=a", "--out", "o"], "--on", "--only")
    ['ablate', 'c', '--out', 'o']
    """
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = True
        elif word.partition("=")[0] not in options:
            kept.append(word)
    return kept


def submit_parts(on: str, out: Path, parts: Sequence[str], *, first: str = "") -> None:
    """Submit this command once for each part, by `--only`, and then for all of them, which gathers
    what is done.

    Args:
        on: see `read_place`.
        out: where the result goes; what the jobs say lies beside it.
        parts: what `--only` names.
        first: a part that the others need, if there is one.
    """
    place, logs = read_place(on), out.with_name(f"{out.name}.jobs")
    words = words_without(sys.argv[1:], "--on", "--only")
    jobs: list[Any] = []
    before: list[Any] = []
    for part in sorted(parts, key=lambda part: part != first):
        job = submit([*words, f"--only={part}"], logs, place, after=before)
        say(f"{part}: job {job.job_id}")
        jobs.append(job)
        if part == first:
            before = [job]
    chosen = any(word.partition("=")[0] == "--only" for word in sys.argv[1:])
    # Another machine may do the others; whichever ends last gathers them.
    whole = [*words, f"--only={','.join(parts)}"] if chosen else words
    last = submit(whole, logs, place, after=jobs)
    say(f"{out}: job {last.job_id}, when all of them have ended well; what they say: {logs}")


def submit_whole(on: str, out: Path, *, nodes: int, tasks: int) -> None:
    """Submit this command as it is, its processes and machines asked of the cluster."""
    logs = out.with_name(f"{out.name}.jobs")
    words = words_without(sys.argv[1:], "--on")
    job = submit(words, logs, read_place(on), nodes=nodes, tasks=tasks)
    say(f"{out}: job {job.job_id}; what it says: {logs}")


def wait(words: Sequence[str], logs: Path, place: Place) -> int:
    """Submit a command, say what it says as it says it, and return its exit status; Ctrl-C cancels
    it there, too.
    """
    job = submit(words, logs, place)
    said = {"stdout": 0, "stderr": 0}

    def tell() -> None:
        for name in said:
            path = Path(getattr(job.paths, name))
            if path.is_file():
                with open(path, "rb") as stream:
                    stream.seek(said[name])
                    news = stream.read()
                said[name] += len(news)
                sys.stdout.write(news.decode("utf-8", "replace"))
                sys.stdout.flush()

    try:
        while not job.done():
            tell()
            time.sleep(EVERY)
    except KeyboardInterrupt:
        job.cancel()
        raise
    tell()
    return 0 if job.exception() is None else 1


def main(words: Sequence[str]) -> int:
    """See above."""
    try:
        on, logs, mark, *command = words
        if mark != "--":
            raise ValueError(mark)
    except ValueError:
        say("usage: python -m robustmri.app.cluster ON LOGS -- WORDS", error=True)
        return 2
    try:
        return wait(command, Path(logs), read_place(on))
    except SettingsError as error:
        say(f"robustmri: {error}", error=True)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
