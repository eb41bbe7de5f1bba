"""What a run will cost, measured before it starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from robustmri.core.progress import duration

MEASURED = 3
"""Batches that are timed."""


@dataclass(frozen=True)
class TimeEstimate:
    """Expected time of a run on this machine.

    Attributes:
        seconds: of all steps and validations that are left.
        batches: how many batches were timed.
    """

    seconds: float
    batches: int

    def __str__(self) -> str:
        """In words.

        >>> print(TimeEstimate(seconds=2040, batches=3))
        about 34 min on this machine, measured on 3 batches
        """
        return f"about {duration(self.seconds)} on this machine, measured on {self.batches} batches"


def estimate_time(
    learn: Callable[[], object],
    judge: Callable[[], object],
    *,
    batches: int,
    validations: float,
    most: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> TimeEstimate:
    """Time a few batches and one validation, and extrapolate to the run.

    The first batch is not timed: memory is laid out and kernels are chosen in it. Of the others the
    median counts, so that another process's moment on the machine does not.

    Args:
        learn: everything that is done with one batch, at full eps; to a copy, where the run is to
            stay untouched.
        judge: a validation, or a part of one.
        batches: batches of the run.
        validations: how often `judge` fits into the run's validations.
        most: seconds after which no further batch is timed; where the first takes as long, it
            counts itself.
        clock: seconds, from any beginning.
    """

    def timed(work: Callable[[], object]) -> float:
        started = clock()
        work()
        return clock() - started

    began, first = clock(), timed(learn)
    times: list[float] = []
    while len(times) < MEASURED and clock() - began < most:
        times.append(timed(learn))
    each = median(times or [first])
    seconds = each * batches + timed(judge) * validations
    return TimeEstimate(seconds=seconds, batches=len(times) or 1)
