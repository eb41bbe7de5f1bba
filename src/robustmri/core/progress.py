"""How long steps say how far they are; the command line draws it, Python users may listen or
not.
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
