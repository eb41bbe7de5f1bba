"""Every verb, killed at random moments and started again until it ends, beside one that nobody
killed: `python tests/random_kills.py 200` prints how often, and which files differ.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from os import kill
from pathlib import Path
from typing import Any

from every_verb import build, end, run, start, tree, verbs

BY = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)
"""Only those by SIGKILL count; SIGTERM is what a batch system sends first."""
LONG = {"cross-validate": 1, "reproduce": 2, "ablate": 2, "export": 2}
"""Fewer kills than the others, of which each has a weight of 4."""


def kill_often(
    work: Callable[[], Any], room: Path, chance: random.Random, kills: int
) -> dict[str, Any]:
    """Kill it so many times, a few times in a row each, and let it end between.

    Returns:
        "kills" and "terms" that met a living process, "ended" runs, the files that "differ" from
        those of a run that nobody killed and how often, and what "failed".
    """
    once = run(work, room / "whole")
    told: dict[str, Any] = {"kills": 0, "terms": 0, "ended": 0, "differ": {}, "failed": []}
    if once.status:
        return told | {"failed": [once.said]}
    whole, cut = tree(room / "whole"), room / "cut"
    while told["kills"] < kills and not told["failed"]:
        shutil.rmtree(cut, ignore_errors=True)
        for _ in range(chance.choice((1, 1, 2, 3))):
            child = start(work, cut)
            time.sleep(chance.uniform(0, once.seconds))
            by = chance.choice(BY)
            kill(child, by)  # It may have ended; nobody has waited for it, so the number is its.
            ended = end(child, cut)
            told["kills"] += ended.status == -signal.SIGKILL
            told["terms"] += ended.status in (-signal.SIGTERM, 128 + signal.SIGTERM)
            whole_now = "exists already" in ended.said  # The last kill came after the last file.
            if ended.fault or not (whole_now or ended.status in (0, -by, 128 + by)):
                told["failed"].append(ended.said)
            if whole_now or not ended.status:
                break
        else:
            last = run(work, cut)
            if last.status and "exists already" not in last.said:
                told["failed"].append(last.said)
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
    asked.add_argument("--seed", type=int, default=random.randrange(2**32))
    asked.add_argument("--verbs", default="", help="divided by commas; their part of the kills")
    asked.add_argument("--given", type=Path, help="what they start from; made if it is not there")
    given = asked.parse_args()
    print(json.dumps({"seed": given.seed}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        place = given.given or room / "given"
        build(place)
        every = verbs(place)
        weights = {name: LONG.get(name, 4) for name in every}
        for name in given.verbs.split(",") if given.verbs else every:
            work = every[name]
            share = math.ceil(given.kills * weights[name] / sum(weights.values()))
            told = kill_often(work, room / name, random.Random(f"{given.seed} {name}"), share)
            print(json.dumps({"verb": name, **told}), flush=True)


if __name__ == "__main__":
    main()
