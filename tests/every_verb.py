"""Every verb on a tiny cohort, each run in a fork of one process that has loaded everything: for
what happens to a run from outside.

The small network stands in the place of all others, and the clock stands still, so that two runs
differ in no byte.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from robustmri.app import cli
from robustmri.core import provenance
from robustmri.core.errors import RobustMRIError
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


def command(*words: object) -> Callable[[], None]:
    """A command line."""

    def run() -> None:
        sys.argv = ["robustmri", *map(str, words)]
        cli.main()

    return run


def told(work: Callable[[], Any]) -> Callable[[], None]:
    """A verb that is called from Python, with its errors told as the command line tells them."""

    def run() -> None:
        try:
            work()
        except RobustMRIError as error:
            print(f"robustmri: {error}", file=sys.stderr)
            sys.exit(1)

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
        "pool": told(lambda: pool(folds, "pooled", title="All folds")),
        "bundle": command(
            *("bundle", given / "cohort", "--out", "packed", "--recipe", given / "mine.toml"),
            *("--max-mib", 0, "--set", "train.weights=none"),
        ),
        "unpack": command("unpack", given / "bundle", "--out", "cohort"),
    }


def pretend() -> None:
    """Make this process a tiny one: small networks, one thread, nothing fetched."""
    torch.set_num_threads(1)
    backbones.build_network = checkpoint.build_network = tiny_network  # type: ignore[attr-defined]
    bundling.fetch_wheels = lambda packages, folder, *_: [  # type: ignore[attr-defined,assignment]
        (folder / f"{name}.whl").write_bytes(name.encode()) for name in packages
    ]


def build(given: Path) -> None:
    """Make everything that the commands start from, unless it is there; see `pretend`."""
    pretend()
    if (given / "story").exists():
        return
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
        ended = run(command(*words), given)
        if ended.status:
            raise RuntimeError(f"{words}: {ended.said}")
    shutil.copytree(given / "folds" / "fold-1", given / "story")


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        status: exit status, or the negative number of the signal that ended it.
        said: everything that it printed.
        seconds: that it took.
    """

    status: int
    said: str
    seconds: float

    @property
    def fault(self) -> str:
        """What is wrong with its words; "" where a run that failed says why in one line."""
        if "Traceback" in self.said:
            return self.said
        lines = self.said.splitlines() or ["nothing was said"]
        told = [line for line in lines if line.startswith("robustmri: ")]
        if self.status in (1, 2, 130, 143) and told != lines[-1:]:
            return self.said or lines[0]
        return ""


def start(work: Callable[[], Any], place: Path) -> int:
    """Begin it in a process of its own, which is in `place`; its number."""
    place.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if not child:
        _be_the_child(work, place)
    return child


def end(child: int, place: Path) -> Ended:
    """Wait for what `start` began."""
    began = time.perf_counter()
    _, how = os.waitpid(child, 0)
    seconds = time.perf_counter() - began
    said = _words(place, child)
    text = said.read_text(errors="replace") if said.exists() else ""
    said.unlink(missing_ok=True)
    return Ended(os.waitstatus_to_exitcode(how), text, seconds)


def run(work: Callable[[], Any], place: Path) -> Ended:
    """Do it in a process of its own."""
    return end(start(work, place), place)


def _words(place: Path, child: int) -> Path:
    return place.with_name(f"{place.name}-{child}.txt")


def _be_the_child(work: Callable[[], Any], place: Path) -> None:
    status = 70
    try:
        file = os.open(_words(place, os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(place)
        time.monotonic = lambda: 0.0
        provenance.now = lambda: "2026-01-01T00:00:00+00:00"
        provenance.commit = bundling.commit = lambda: "0123456789ab"  # type: ignore[attr-defined]
        try:
            work()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
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
