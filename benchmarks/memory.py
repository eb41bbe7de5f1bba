"""Peak memory of PGD at one batch, each contender in a process of its own: `python -m
benchmarks.memory --help`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender
from benchmarks.inputs import Inputs, is_there, read_classifier, read_images
from benchmarks.lineups import PGD
from benchmarks.setting import QUICK, Setting, Work
from robustmri.data.cohort import Cohort

STATUS = Path("/proc/self/status")


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    if STATUS.exists():
        # Not ru_maxrss: on Linux a process inherits that of its parent, which holds every library
        # and result.
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1024)


def peaks(inputs: Inputs, contenders: Sequence[Contender]) -> dict[str, Any]:
    """The record of the task: the hardened network, where ours keeps its images longest, one
    batch.
    """
    _, hardened, cohort = inputs.paths
    present = [one for one in contenders if is_there(one.library)]
    if inputs.work == QUICK:
        present = present[:1]
    batch = min(Setting.batch, len(inputs.images))
    rows = []
    for one in present:
        command = [
            sys.executable,
            "-m",
            "benchmarks.memory",
            one.name,
            str(hardened),
            str(cohort),
            str(batch),
        ]
        command += ["--eps", str(inputs.eps), "--steps", str(inputs.work.pgd_steps)]
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
            check=False,
        )
        if ran.returncode:
            raise RuntimeError(f"memory of {one.name}: {ran.stderr.strip().splitlines()[-1:]}")
        rows.append(
            {"contender": one.name, **json.loads(ran.stdout.splitlines()[-1]), "note": one.note}
        )
        inputs.say(f"{one.name}: {rows[-1]['peak_mib']} MiB")
    spec = inputs.hardened.spec
    return {
        "title": "Peak memory of PGD-20 at one batch, hardened network",
        "setting": {
            "backbone": spec.backbone,
            "size": spec.size,
            "batch": batch,
            "eps": inputs.eps,
        },
        "rows": rows,
        "ratios": [],
        "missing": [one.name for one in contenders if one not in present],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Attack one batch and print, as JSON, the peak before (everything loaded) and after."""
    parser = argparse.ArgumentParser(description="Peak memory of one contender.")
    parser.add_argument("contender", choices=[one.name for one in PGD])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("batch", type=int)
    parser.add_argument("--eps", type=float, default=0.04)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args(arguments)
    (contender,) = (one for one in PGD if one.name == given.contender)
    cohort = Cohort.open(given.cohort)
    images, labels = read_images(cohort, given.batch)
    classifier = read_classifier(given.checkpoint, cohort)
    setting = Setting(
        classifier, images, labels, given.eps, batch=given.batch, work=Work(pgd_steps=given.steps)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        is_there(contender.library)
        loaded = peak_mib()
        contender.attack(setting)
    print(json.dumps({"loaded_mib": round(loaded, 1), "peak_mib": round(peak_mib(), 1)}))


if __name__ == "__main__":
    main()
