"""Every verb, killed at random moments and started again until it ends, beside one that nobody
killed: `python tests/random_kills.py 200`, and which bytes differ.

Each command runs in a fork of one process that has loaded everything, with the small network in
place of all others; the clock stands still, so that times do not differ.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from robustmri.app import cli
from robustmri.core import provenance
from robustmri.models import backbones, checkpoint
from robustmri.verbs import bundle as bundling
from robustmri.verbs.pool import pool
from tiny import draw_slice, tiny_network, write_scans

TRAIN = "epochs = 3\nbatch_size = 8\nprecision = 'fp32'\naugment = 'none'\nwarmup_epochs = 0.0\n"
RECIPE = f"""about = "Seconds on a toy."
[prepare]
size = 32
[train]
{TRAIN}
[harden]
objective = "one-step"
guard_steps = 2
guard_slices = 6
{TRAIN}
[evaluate]
attacks = ["fgsm", "pgd"]
eps = ["0.04"]
curve = ["2/255"]
batch_size = 4
precision = "fp32"
options.pgd.steps = 4
[variants.base]
about = "as it is"
[variants.fresh]
about = "no start"
start = "scratch"
"""
HAVE = "torch,torchvision,timm,scipy,pyarrow,monai,kornia,lightning-fabric,h5py,typer,jinja2"


def command(*words: object) -> Callable[[], None]:
    """A command line."""

    def run() -> None:
        sys.argv = ["robustmri", *map(str, words)]
        cli.main()

    return run


def verbs(given: Path) -> dict[str, Callable[[], Any]]:
    """What is run in an empty folder, by verb.

    Args:
        given: a folder that `build` has filled.
    """
    mine = ("--recipe", given / "mine.toml")
    folds = [given / "folds" / f"fold-{fold}" / "after" for fold in range(1, 6)]
    page = ("--out", "page.html")
    return {
        "prepare": command("prepare", given / "scans", "--out", "cohort", "--size", 32),
        "train": command("train", given / "cohort", "--out", "run", *mine),
        "harden": command("harden", given / "run", given / "cohort", "--out", "run", *mine),
        "evaluate": command("evaluate", given / "run", given / "cohort", "--out", "result", *mine),
        "report": command("report", given / "story" / "before", given / "story" / "after", *page),
        "reproduce": command(
            *("reproduce", "poster", "--data", given / "scans", "--out", "story"),
            *("--preset", given / "mine.toml"),
        ),
        "cross-validate": command("cross-validate", given / "scans", "--out", "folds", *mine),
        "ablate": command("ablate", given / "cohort", "--out", "study", *mine),
        "import": command("import", given / "model.onnx", "--out", "model"),
        "export": command("export", given / "run", "--out", "model.onnx"),
        "case": command("case", given / "slice.png", given / "run", "--out", "case"),
        "pool": lambda: pool(folds, "pooled", title="All folds"),
        "bundle": command(
            *("bundle", given / "cohort", "--out", "packed", "--recipe", given / "mine.toml"),
            *("--max-mib", 0, "--set", "train.weights=none"),
        ),
        "unpack": command("unpack", given / "bundle", "--out", "cohort"),
    }


def build(given: Path) -> None:
    """Everything that the commands start from."""
    scans = write_scans(given / "scans", patients=6, each=2)
    (given / "mine.toml").write_text(RECIPE)
    Image.fromarray(draw_slice(1, 50, 0)).save(given / "slice.png")
    mine = ("--recipe", given / "mine.toml")
    for words in (
        ("prepare", scans, "--out", "cohort", "--size", 32),
        ("train", "cohort", "--out", "run", *mine),
        ("cross-validate", scans, "--out", "folds", *mine),
        ("export", "run", "--out", "model.onnx"),
        (
            *("bundle", "cohort", "--out", "bundle", "--recipe", given / "mine.toml"),
            *("--max-mib", 0, "--set", "train.weights=none"),
        ),
    ):
        status, said, _ = fork(command(*words), given)
        if status:
            raise RuntimeError(f"{words}: {said}")
    shutil.copytree(given / "folds" / "fold-1", given / "story")


def fork(
    work: Callable[[], Any], place: Path, *, kill_after: float | None = None
) -> tuple[int, str, float]:
    """Do it in a process of its own.

    Returns:
        Its exit status, or the negative number of the signal that ended it; what it said; seconds.
    """
    place.mkdir(parents=True, exist_ok=True)
    said = place.with_name(f"{place.name}.txt")
    began = time.perf_counter()
    child = os.fork()
    if not child:
        _be_the_child(work, place, said)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, how = os.waitpid(child, 0)
    seconds = time.perf_counter() - began
    return os.waitstatus_to_exitcode(how), said.read_text(errors="replace"), seconds


def _be_the_child(work: Callable[[], Any], place: Path, said: Path) -> None:
    status = 70
    try:
        os.chdir(place)
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        time.monotonic = lambda: 0.0
        provenance.now = lambda: "2026-01-01T00:00:00+00:00"
        try:
            work()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def tree(place: Path) -> dict[str, bytes]:
    """Every file below a folder, and every empty folder."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(place.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def kill_often(
    work: Callable[[], Any], room: Path, chance: random.Random, kills: int
) -> dict[str, Any]:
    """Kill it so many times, a few times in a row each, and let it end between.

    Returns:
        "kills" that met a living process, "ended" runs, and the files that "differ" from those of
        a run that nobody killed, with how often they did.
    """
    status, said, seconds = fork(work, room / "whole")
    told: dict[str, Any] = {"kills": 0, "ended": 0, "differ": {}, "seconds": round(seconds, 1)}
    if status:
        return told | {"failed": said}
    whole, cut = tree(room / "whole"), room / "cut"
    while told["kills"] < kills:
        shutil.rmtree(cut, ignore_errors=True)
        for _ in range(chance.choice((1, 1, 2, 3))):
            status, said, _ = fork(work, cut, kill_after=chance.uniform(0, seconds))
            told["kills"] += status == -signal.SIGKILL
            if status not in (0, -signal.SIGKILL):
                return told | {"failed": said}
        status, said, _ = fork(work, cut)
        if status:
            return told | {"failed": said}
        told["ended"] += 1
        found = tree(cut)
        for name in sorted({*whole, *found}):
            if whole.get(name) != found.get(name):
                told["differ"][name] = told["differ"].get(name, 0) + 1
    return told


def main() -> None:
    """Kill all verbs, and print what came of it as JSON, a line for each verb."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("kills", type=int, nargs="?", default=200, help="in all")
    asked.add_argument("--seed", type=int, default=None)
    asked.add_argument("--only", default="", help="verbs, divided by commas")
    asked.add_argument("--keep", type=Path, default=None, help="folder to leave behind")
    given = asked.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed
    torch.set_num_threads(1)
    backbones.build_network = checkpoint.build_network = tiny_network  # type: ignore[assignment]
    bundling.fetch_wheels = lambda packages, folder, *_: [  # type: ignore[assignment]
        (folder / f"{name}.whl").write_bytes(name.encode()) for name in packages
    ]
    with contextlib.ExitStack() as after:
        room = given.keep or Path(after.enter_context(tempfile.TemporaryDirectory()))
        build(room / "given")
        chosen = {
            name: work
            for name, work in verbs(room / "given").items()
            if not given.only or name in given.only.split(",")
        }
        print(json.dumps({"seed": seed}), flush=True)
        for place, (name, work) in enumerate(chosen.items()):
            share = (place + 1) * given.kills // len(chosen) - place * given.kills // len(chosen)
            told = kill_often(work, room / name, random.Random(f"{seed} {name}"), share)
            print(json.dumps({"verb": name, **told}), flush=True)


if __name__ == "__main__":
    main()
