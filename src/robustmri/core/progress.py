"""How long steps say how far they are and what they take; the command line draws it, Python users
may listen or not.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by steps that take a while."""

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` parts of `task` are finished; `note` is a short remark, such as the
        accuracy so far.
        """


def part_of(name: str, progress: Progress) -> Progress:
    """For a part of the work: each of its tasks is told with the part's name before it."""

    def told(task: str, done: int, total: int, note: str = "") -> None:
        progress(f"{name}, {task}", done, total, note)

    return told


def silent(task: str, done: int, total: int, note: str = "") -> None:
    """Say nothing."""


def duration(seconds: float) -> str:
    """In the unit that suits it.

    >>> [duration(seconds) for seconds in (4, 89, 100, 5400, 6000, 90000, 200000)]
    ['4 s', '89 s', '2 min', '90 min', '1.7 h', '25.0 h', '56 h']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds <= 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 3600:.0f} h"
