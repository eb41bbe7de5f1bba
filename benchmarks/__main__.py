"""`python -m benchmarks CHECKPOINT_STANDARD CHECKPOINT_HARDENED COHORT --out FOLDER`."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks.inputs import Inputs, read_classifier, read_images
from benchmarks.report import add_task, open_results
from benchmarks.setting import FULL, QUICK
from benchmarks.tasks import TASKS
from robustmri.core.errors import RobustMRIError
from robustmri.data.cohort import Cohort
from robustmri.models.checkpoint import read_checkpoint


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tasks, one after another; each is written as soon as it is done."""
    given = _parser().parse_args(arguments)
    cohort = Cohort.open(given.cohort)
    images, labels = read_images(cohort, given.images)
    inputs = Inputs(
        read_classifier(given.standard, cohort),
        read_classifier(given.hardened, cohort),
        images,
        labels,
        paths=(given.standard.resolve(), given.hardened.resolve(), given.cohort.resolve()),
        eps=given.eps,
        rounds=given.rounds,
        work=QUICK if given.quick else FULL,
        device=given.device,
        say=_say,
    )
    facts = {
        "cohort": cohort.name,
        "cohort_fingerprint": cohort.fingerprint,
        "images": len(images),
        "standard": read_checkpoint(given.standard).weights_sha256[:12],
        "hardened": read_checkpoint(given.hardened).weights_sha256[:12],
        "eps": given.eps,
        "rounds": given.rounds,
        "quick": given.quick,
    }
    results = open_results(given.out, facts)
    for name in given.only or TASKS:
        _say(f"== {name}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The peers' own.
            record = TASKS[name](inputs)
        add_task(given.out, results, name, record)


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Time robustmri beside its peers."
    )
    parser.add_argument(
        "standard", type=Path, metavar="CHECKPOINT_STANDARD", help="of an undefended network"
    )
    parser.add_argument(
        "hardened", type=Path, metavar="CHECKPOINT_HARDENED", help="of a hardened one, same cohort"
    )
    parser.add_argument(
        "cohort", type=Path, metavar="COHORT", help="folder; its test slices are attacked"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder; tasks that it holds already stay, or are renewed",
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(TASKS), metavar="NAME", help=", ".join(TASKS)
    )
    parser.add_argument(
        "--images", type=int, default=128, help="test slices, evenly spaced; slow tasks take fewer"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--eps", type=float, default=0.04, help="linf radius, a fraction of the [0, 1] range"
    )
    parser.add_argument(
        "--device", default="cpu", help="of gradient-step; all else is timed on the CPU"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few steps of everything, to see that it runs"
    )
    return parser


if __name__ == "__main__":
    try:
        main()
    except RobustMRIError as error:
        sys.exit(str(error))
