"""A race: contenders take turns within each round, in rotating order, so that a slow minute of the
machine hits all.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch


class Entry(NamedTuple):
    """One contender: `prepare(warm_up)` is not timed and gives what is.

    `rounds` is the most it takes part in (0: all). A foreign one `may_fail`: its error is a result,
    and it is out.
    """

    name: str
    prepare: Callable[[bool], Callable[[], Any]]
    rounds: int = 0
    may_fail: bool = False


@dataclass
class Finish:
    """What came of one contender: seconds by round, what it returned last, or the error that
    stopped it.
    """

    seconds: dict[int, float] = field(default_factory=dict)
    output: Any = None
    failed: str = ""


class Ratio(NamedTuple):
    """How many times as long one took as the other: the median over the rounds that both ran, and
    the extremes.
    """

    median: float
    lowest: float
    highest: float


def race(
    entries: Sequence[Entry],
    *,
    rounds: int,
    warm_up: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Finish]:
    """Run every entry once to warm up, unless no time will be believed, then in each of `rounds`
    rounds.
    """
    finishes = {entry.name: Finish() for entry in entries}
    for number in range(-1 if warm_up else 0, rounds):
        if number <= 0:
            # Libraries stay: to search them for garbage before every run takes longer than the run.
            gc.collect()
            gc.freeze()
        turn = max(number, 0) % len(entries) if entries else 0
        for entry in (*entries[turn:], *entries[:turn]):
            finish = finishes[entry.name]
            if finish.failed or (entry.rounds and number >= entry.rounds):
                continue
            try:
                seconds, output = _clocked(entry.prepare(number < 0), seed=number + 1)
            except Exception as error:
                if not entry.may_fail:
                    raise
                finish.failed = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                say(f"{entry.name}: {finish.failed}")
                continue
            if number >= 0:
                finish.seconds[number], finish.output = seconds, output
                say(f"round {number + 1} of {rounds}: {entry.name} {seconds:.2f} s")
    gc.unfreeze()
    return finishes


def _clocked(run: Callable[[], Any], seed: int) -> tuple[float, Any]:
    # The peers draw from the global generators.
    torch.manual_seed(seed)
    np.random.seed(seed)
    gc.collect()
    start = time.perf_counter()
    output = run()
    return time.perf_counter() - start, output


def ratio(one: Finish, other: Finish) -> Ratio | None:
    """Of the seconds of each round that both ran.

    >>> ratio(Finish({0: 6.0, 1: 8.0, 2: 9.0}), Finish({0: 2.0, 1: 2.0, 2: 1.0}))
    Ratio(median=4.0, lowest=3.0, highest=9.0)
    """
    each = [seconds / other.seconds[k] for k, seconds in one.seconds.items() if k in other.seconds]
    return Ratio(statistics.median(each), min(each), max(each)) if each else None


def row_of(name: str, finish: Finish, **facts: Any) -> dict[str, Any]:
    """A row of a task's table."""
    seconds = [round(finish.seconds[k], 4) for k in sorted(finish.seconds)]
    median = statistics.median(seconds) if seconds else None
    return {"contender": name, "median_seconds": median, "seconds": seconds, **facts}


def ratios_of(
    finishes: dict[str, Finish], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Rows of (seconds of, divided by those of), for pairs that both ran."""
    rows = []
    for one, other in pairs:
        found = ratio(finishes[one], finishes[other])
        if found:
            numbers = {name: round(value, 3) for name, value in found._asdict().items()}
            rows.append({"seconds_of": one, "by_those_of": other, **numbers})
    return rows
