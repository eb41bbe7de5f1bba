"""Every verb under faults from outside: `python tests/outside_faults.py` prints, for each, what is
not as it should be; "full" and "read-only" need a mount namespace of their own (`unshare --user
--map-root-user --mount`).

Whatever happens, the command ends well or says why in one line, and once the fault is gone the same
command leaves what it leaves where nothing happened.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from every_verb import Ended, build, end, run, start, tree, verbs

Work = Callable[[], Any]


def two_at_once(work: Work, place: Path, chance: random.Random, size: int) -> list[Ended]:
    """Two processes with one --out."""
    both = [start(work, place) for _ in range(2)]
    return [end(child, place) for child in both]


def folder_removed(work: Work, place: Path, chance: random.Random, size: int) -> list[Ended]:
    """Somebody removes what it writes."""
    child = start(work, place)
    for _ in range(20):
        time.sleep(chance.uniform(0, 0.2))
        for path in (*place.glob("*"), *place.glob(".*")):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(True)
    return [end(child, place)]


def clock_jumps(work: Work, place: Path, chance: random.Random, size: int) -> list[Ended]:
    """Each look at the clock of the day says another day."""

    def odd() -> None:
        time.time = lambda: chance.uniform(0, 4e9)
        work()

    return [run(odd, place)]


def full(work: Work, place: Path, chance: random.Random, size: int) -> list[Ended]:
    """A disk of half the size of what is to be written, which then gets room."""
    with disk(place, f"size={size // 2}"):
        ended = run(work, place)
        subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
        return [ended, run(work, place), keep(place)]


def read_only(work: Work, place: Path, chance: random.Random, size: int) -> list[Ended]:
    """A disk that only can be read, until somebody mends it."""
    with disk(place, "ro"):
        ended = run(work, place)
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        return [ended, run(work, place), keep(place)]


def keep(place: Path) -> Ended:
    """Copy what lies on a disk, before it goes."""
    shutil.copytree(place, place.with_name("kept"))
    return Ended(0, "", 0)


@contextmanager
def disk(place: Path, how: str) -> Iterator[None]:
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", how, "none", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()
        if place.with_name("kept").exists():
            place.with_name("kept").rename(place)


FAULTS = {
    "two at once": two_at_once,
    "folder removed": folder_removed,
    "clock jumps": clock_jumps,
    "full": full,
    "read-only": read_only,
}
MUST_FAIL = ("full", "read-only")


def meet(fault: str, work: Work, room: Path, whole: dict[str, bytes], seed: str) -> list[str]:
    """What is not as it should be after a fault, and after the command was run once more."""
    place = room / "place"
    size = sum(map(len, whole.values()))
    ends = FAULTS[fault](work, place, random.Random(seed), size)
    wrong = [one.fault for one in ends if one.fault]
    wrong += [one.said or str(one.status) for one in ends if one.status not in (0, 1, 2)]
    if fault in MUST_FAIL and not ends[0].status:
        wrong.append("it did not notice")
    again = run(work, place)
    taken = "exists already" in again.said  # It was whole.
    if again.status and not taken:
        wrong.append(f"again: {again.said}")
    found = tree(place)
    wrong += [f"{name} differs" for name in {*whole, *found} if whole.get(name) != found.get(name)]
    shutil.rmtree(place)
    return wrong


def main() -> None:
    """Try all verbs, and print what came of it as JSON, a line for each verb and fault."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seed", type=int, default=random.randrange(2**32))
    asked.add_argument("--verbs", default="", help="divided by commas")
    asked.add_argument("--given", type=Path, help="what they start from; made if it is not there")
    asked.add_argument("--faults", default=",".join(FAULTS), help="divided by commas")
    given = asked.parse_args()
    print(json.dumps({"seed": given.seed}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        place = given.given or room / "given"
        build(place)
        chosen = verbs(place)
        for name in given.verbs.split(",") if given.verbs else chosen:
            ended = run(chosen[name], room / "whole" / name)
            if ended.status:
                raise RuntimeError(f"{name}: {ended.said}")
            whole = tree(room / "whole" / name)
            for fault in given.faults.split(","):
                wrong = meet(fault, chosen[name], room, whole, f"{given.seed} {name} {fault}")
                print(json.dumps({"verb": name, "fault": fault, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main()
