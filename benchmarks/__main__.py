"""`python -m benchmarks CHECKPOINT_STANDARD CHECKPOINT_HARDENED COHORT --out FOLDER`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks.inputs import Inputs, make_small, read_classifier, read_images
from benchmarks.machine import Others, disturbances, features_of, load_now
from benchmarks.report import add_task, open_results
from benchmarks.setting import FULL, QUICK
from benchmarks.tasks import TASKS
from robustmri.core.errors import RobustMRIError
from robustmri.data.cohort import Cohort
from robustmri.models.checkpoint import read_checkpoint


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tasks, one after another; each is written as soon as it is done."""
    parser = _parser()
    given = parser.parse_args(arguments)
    paths = [given.standard, given.hardened, given.cohort]
    if all(paths):
        if not given.out:
            parser.error("--out is missing: where shall the results go?")
        run(given, *paths, out=given.out)
    elif given.quick and not any(paths):
        with tempfile.TemporaryDirectory(prefix="robustmri-benchmarks-") as folder:
            run(given, *make_small(Path(folder)), out=given.out or Path(folder) / "results")
    else:
        parser.error("give CHECKPOINT_STANDARD CHECKPOINT_HARDENED COHORT, or --quick alone")


def run(
    given: argparse.Namespace, standard: Path, hardened: Path, root: Path, *, out: Path
) -> None:
    """The same, with what is compared on."""
    load = load_now()  # Before the work of our own.
    cohort = Cohort.open(root)
    images, labels = read_images(cohort, min(given.images, 4) if given.quick else given.images)
    inputs = Inputs(
        read_classifier(standard, cohort),
        read_classifier(hardened, cohort),
        images,
        labels,
        paths=(standard.resolve(), hardened.resolve(), root.resolve()),
        eps=given.eps,
        rounds=1 if given.quick else given.rounds,
        work=QUICK if given.quick else FULL,
        device=given.device,
        say=_say,
    )
    facts = {
        "cohort": cohort.name,
        "cohort_fingerprint": cohort.fingerprint,
        "images": len(images),
        "standard": read_checkpoint(standard).weights_sha256[:12],
        "hardened": read_checkpoint(hardened).weights_sha256[:12],
        "eps": given.eps,
        "rounds": inputs.rounds,
        "quick": given.quick,
    }
    results = open_results(out, facts)
    _say(features_of(results["machine"]))
    _warn(disturbances(load))
    for name in given.only or TASKS:
        _say(f"== {name}")
        others = Others()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The peers' own.
            record = TASKS[name](inputs)
        _warn(add_task(out, results, name, record, load=load, others=others.cores()))
    _say(f"{len(given.only or TASKS)} tasks ran")


def _warn(noise: Sequence[str]) -> None:
    if noise:
        _say(f"WARNING: the machine is not quiet: {'; '.join(noise)}")


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Time robustmri beside its peers."
    )
    parser.add_argument(
        "standard",
        type=Path,
        nargs="?",
        metavar="CHECKPOINT_STANDARD",
        help="undefended",
    )
    parser.add_argument(
        "hardened",
        type=Path,
        nargs="?",
        metavar="CHECKPOINT_HARDENED",
        help="hardened",
    )
    parser.add_argument(
        "cohort",
        type=Path,
        nargs="?",
        metavar="COHORT",
        help="its test slices are attacked",
    )
    parser.add_argument(
        "--out",
        type=Path,
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
        "--quick",
        action="store_true",
        help="a few steps on a few images, to see that all runs; makes its own inputs",
    )
    return parser


if __name__ == "__main__":
    try:
        main()
    except RobustMRIError as error:
        sys.exit(str(error))
