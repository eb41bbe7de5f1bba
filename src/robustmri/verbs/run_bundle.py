"""The other end of `bundle`: its stages one after another within a time, each result brought home
as soon as it is there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec

from robustmri.core.errors import RobustMRIError, SettingsError, did_you_mean
from robustmri.core.files import atomic_file, read_json, write_json
from robustmri.core.progress import Progress, silent
from robustmri.core.provenance import describe_run
from robustmri.core.settings import check_number
from robustmri.data.packed import unpack_cohort
from robustmri.models.halves import MIB, Halved, count_parts, halve
from robustmri.recipes import load_toml
from robustmri.verbs.bundle import COHORT_FILE, HEAD, RECIPE_FILE

SUMMARY, STAGES, HALVED = "summary.zip", "stages.json", "weights.json"
LOOK_EVERY = 5.0
"""Seconds between two looks at what a stage has left so far."""
ROOM_FOR_SUMMARY = 4.0
"""MiB kept free beside the weights."""
GRACE = 0.5
"""Minutes by which a stage may be late before it is stopped, unless said otherwise."""


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command; see carried/stages.toml.

    Attributes:
        name: of the stage and its log.
        about: what it answers.
        command: arguments, with placeholders.
        minutes: that it gets, if the run has as many as all stages together that are not extra.
        at_least: minutes without which an extra stage is not begun.
        rest: whether it gets all the time that is left, in place of `minutes`.
        extra: run only where time is left after all others.
        needs: part of the bundle without which it is left out.
        keep: patterns of files that go home, in the work folder.
        weights: runs whose weights go home, the most wanted first.
    """

    name: str
    about: str
    command: list[str]
    minutes: float
    at_least: float = 0.0
    rest: bool = False
    extra: bool = False
    needs: str = ""
    keep: list[str] = []
    weights: list[str] = []


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a run asks of bundle.json."""

    minutes: Annotated[float, msgspec.Meta(gt=0)]
    overrides: list[str]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a stage.

    Attributes:
        status: "done", "failed", "stopped" (out of time) or "left out".
        detail: why, in words.
        given_minutes: what it was told that it has.
        seconds: what it took.
    """

    name: str
    about: str
    status: str
    detail: str = ""
    given_minutes: float = 0.0
    seconds: float = 0.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What may go home: files in all, MiB of a part of weights, MiB in all."""

    max_files: int = 8
    part_mib: float = 15.0
    max_mib: float = 60.0


def run_bundle(
    folder: str | Path,
    out: str | Path,
    *,
    minutes: float = 0.0,
    work: str | Path | None = None,
    only: Collection[str] = (),
    limits: Limits | None = None,
    grace: float = GRACE,
    progress: Progress = silent,
) -> list[Outcome]:
    """Run the stages of a bundle; what goes home lies in `out` after each of them, and while they
    run, with what earlier runs left in the same work folder.

    Args:
        folder: the bundle.
        out: for summary.zip and the parts of the weights.
        minutes: for everything; 0: what the bundle was made with.
        work: folder for everything that stays; none: "work" in the bundle.
        only: names of stages to run, extra ones too; none: all.
        limits: on what goes home.
        grace: minutes by which a stage may be late before it is stopped; a machine that is far too
            slow for `minutes` ends with a table nevertheless, if it is given some.
        progress: told before each stage.
    """
    limits = limits or Limits()
    for name, value in (("minutes", minutes), ("grace", grace), ("max_mib", limits.max_mib)):
        check_number(name, value)
    check_number("part_mib", limits.part_mib, above=True)
    began = time.monotonic()
    folder, out = Path(folder).resolve(), Path(out).resolve()
    work = Path(work).resolve() if work else folder / "work"
    made, told = read_head(folder)
    minutes = minutes or told.minutes
    every, stages = read_stages(folder), read_stages(folder, only)
    out.mkdir(parents=True, exist_ok=True)
    (work / "logs").mkdir(parents=True, exist_ok=True)
    if not (work / "cohort").is_dir():
        unpack_cohort(folder / COHORT_FILE, work / "cohort")
    known = {one.name: one for one in read_outcomes(work)}
    home = _Home(every, work, out, limits)
    write_json(
        work / "machine.json",
        {"run": describe_run(), "minutes": minutes, "bundle": made, "device": describe_device()},
    )
    planned = sum(stage.minutes for stage in stages if not stage.extra)
    outcomes: list[Outcome] = []
    for number, stage in enumerate(stages):
        progress("stages", number, len(stages), stage.name)
        left = minutes - (time.monotonic() - began) / 60
        after = sum(later.minutes for later in stages[number + 1 :] if not later.extra)
        share = min(1.0, minutes / planned) if planned else 1.0
        given = left - share * after if stage.rest else min(stage.minutes * share, left)
        reason = _left_out(stage, folder, left)
        if reason:
            one = Outcome(name=stage.name, about=stage.about, status="left out", detail=reason)
        else:
            given = left if stage.extra else max(given, share * stage.minutes / 3)
            one = _run(stage, given, grace, folder, work, told.overrides, home)
        outcomes.append(one)
        if not reason or known.get(stage.name, one).status == "left out":
            known[stage.name] = one
        write_json(
            work / STAGES,
            [msgspec.to_builtins(known[each.name]) for each in every if each.name in known],
        )
        home.bring()
    progress("stages", len(stages), len(stages))
    return outcomes


def read_head(folder: Path) -> tuple[dict[str, Any], _Told]:
    """What bundle.json says, and of that what a run asks of it.

    Raises:
        DataError: it is missing or damaged.
    """
    again = "Pack it again: robustmri bundle."
    made: dict[str, Any] = read_json(folder / HEAD, dict[str, Any], again=again)
    told: _Told = read_json(folder / HEAD, _Told, again=again)
    return made, told


def read_stages(folder: Path, only: Collection[str] = ()) -> list[Stage]:
    """The stages of a bundle, or those that are asked for.

    Raises:
        SettingsError: the file does not say what stages are, or not those asked for.
    """
    path = folder / "stages.toml"
    try:
        stages = msgspec.convert(load_toml(str(path))["stages"], list[Stage])
    except (KeyError, msgspec.ValidationError) as error:
        raise SettingsError(f"{path} does not list stages as it should ({error}).") from error
    known = [stage.name for stage in stages]
    for name in only:
        if name not in known:
            raise SettingsError(f"There is no stage {name!r}. {did_you_mean(name, known)}")
    return [stage for stage in stages if not only or stage.name in only]


def read_outcomes(work: Path) -> list[Outcome]:
    """What became of the stages that were run in this work folder; none: nothing was.

    Raises:
        DataError: the file is damaged.
    """
    path = work / STAGES
    if not path.exists():
        return []
    again = "Remove it: a stage that runs again is told again."
    outcomes: list[Outcome] = read_json(path, list[Outcome], again=again)
    return outcomes


def _left_out(stage: Stage, folder: Path, left: float) -> str:
    """Why a stage cannot be run, if it cannot."""
    if stage.needs and not (folder / stage.needs).exists():
        return f"the bundle has no {stage.needs}: it was not made from a checkout"
    if stage.extra and left < stage.at_least:
        return f"{max(left, 0):.1f} minutes are left, it needs {stage.at_least:g}"
    return ""


def _run(
    stage: Stage,
    given: float,
    grace: float,
    folder: Path,
    work: Path,
    overrides: list[str],
    home: _Home,
) -> Outcome:
    began = time.monotonic()
    log = work / "logs" / f"{stage.name}.txt"
    paths = [str(folder / "checks"), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    with open(log, "w", encoding="utf-8") as said:
        # In a session of its own, so that what it starts ends with it.
        process = subprocess.Popen(
            list(_filled(stage, given, folder, overrides)),
            cwd=work,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        ends, stopped = began + 60 * (given + max(grace, 0.05 * given)), False
        try:
            while process.poll() is None and not stopped:
                try:
                    process.wait(timeout=max(0.1, min(LOOK_EVERY, ends - time.monotonic())))
                except subprocess.TimeoutExpired:
                    home.bring()
                    stopped = time.monotonic() > ends
        finally:
            # Also after Ctrl-C, which a session of its own does not hear.
            if process.poll() is None:
                _stop(process)
    seconds = round(time.monotonic() - began, 1)
    status = "stopped" if stopped else "failed" if process.returncode else "done"
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    return Outcome(
        name=stage.name,
        about=stage.about,
        status=status,
        detail="".join(last)[:300],
        given_minutes=round(given, 2),
        seconds=seconds,
    )


def _filled(stage: Stage, given: float, folder: Path, overrides: list[str]) -> Iterator[str]:
    """The command with its placeholders replaced."""
    places = {
        "python": sys.executable,
        "bundle": str(folder),
        "recipe": str(folder / RECIPE_FILE),
        "minutes": f"{given:.3f}",
    }
    for part in stage.command:
        if part == "{set}":
            for override in overrides:
                yield from ("--set", override)
        else:
            for name, value in places.items():
                part = part.replace(f"{{{name}}}", value)
            yield part


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it and what it started to end, and see to it."""
    for kind, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, kind)
            process.wait(timeout=patience)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def describe_device() -> dict[str, Any]:
    """The accelerator, as torch and its driver see it; without torch's own start-up in this process
    where there is none.
    """
    import torch

    found: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda}
    if not torch.cuda.is_available():
        return found | {"card": None}
    card = torch.cuda.get_device_properties(0)
    return found | {
        "card": card.name,
        "gib": round(card.total_memory / 2**30, 1),
        "multiprocessors": card.multi_processor_count,
        "cudnn": torch.backends.cudnn.version(),
    }


class _Home:
    """The files that go home, kept up to date.

    Args:
        stages: all of the bundle, which say what is wanted.
        work: where it comes to be.
        out: where it is put.
        limits: on what is put there.
    """

    def __init__(self, stages: list[Stage], work: Path, out: Path, limits: Limits) -> None:
        self.stages, self.work, self.out, self.limits = stages, work, out, limits
        self._halved: dict[str, Halved] = {}
        self._seen: list[tuple[str, int, int]] = []

    def bring(self) -> None:
        """Put there what is new; a stage that is just writing a file must not be disturbed, nor end
        the run.
        """
        try:
            self._bring_weights()
            self._bring_files()
        except (OSError, RobustMRIError) as error:
            print(f"robustmri: not brought home yet: {error}", file=sys.stderr)

    def _bring_files(self) -> None:
        files = sorted(
            {
                path
                for pattern in ("*.json", "logs/*.txt", *self._patterns())
                for path in self.work.glob(pattern)
            }
        )
        seen = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files]
        if seen == self._seen:
            return
        with (
            atomic_file(self.out / SUMMARY) as partial,
            # The clock of a machine without network may say any time.
            zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as bag,
        ):
            for path in files:
                bag.write(path, path.relative_to(self.work))
        self._seen = seen

    def _patterns(self) -> list[str]:
        return [pattern for stage in self.stages for pattern in stage.keep]

    def _bring_weights(self) -> None:
        """Those that are most wanted and fit; what was brought before and has no room any more is
        removed.
        """
        runs = [name for stage in self.stages for name in stage.weights]
        there = [name for name in runs if (self.work / name / "checkpoint").is_dir()]
        chosen, files, mib = [], 1, ROOM_FOR_SUMMARY
        for name in there:
            parts = count_parts(self.work / name, self.limits.part_mib)
            size = (
                (self.work / name / "checkpoint" / "weights.safetensors").stat().st_size / 2 / MIB
            )
            if files + parts <= self.limits.max_files and mib + size <= self.limits.max_mib:
                chosen.append(name)
                files, mib = files + parts, mib + size
        for name in [name for name in self._halved if name not in chosen]:
            for part in self._halved.pop(name).parts:
                (self.out / part).unlink(missing_ok=True)
        for name in chosen:
            if name not in self._halved:
                short = name.replace("/", "-")
                self._halved[name] = halve(
                    self.work / name, self.out, short, part_mib=self.limits.part_mib
                )
        known = {name: msgspec.to_builtins(halved) for name, halved in self._halved.items()}
        if known != (read_json(self.work / HALVED) if (self.work / HALVED).exists() else {}):
            write_json(self.work / HALVED, known)
