"""What the command line shows: tables, and how far a step is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from robustmri.app.terminal import printable, say
from robustmri.core import processes
from robustmri.core.progress import silent

if TYPE_CHECKING:
    from robustmri.core.progress import Progress
    from robustmri.report.tables import Table


def print_table(table: Table, *, words: int = 2) -> None:
    """A table with its notes, as wide as the terminal; its first columns are words, the others
    numbers.
    """
    from rich.console import Console
    from rich.table import Table as Drawing
    from rich.text import Text

    def plain(words: str) -> Text:
        """Without rich's markup: a class may be called "[red]"."""
        return Text(printable(words))

    drawing = Drawing(box=None, header_style="bold", pad_edge=False)
    for place, header in enumerate(table.headers):
        drawing.add_column(plain(header), justify="left" if place < words else "right")
    for row in table.rows:
        drawing.add_row(*map(plain, row))
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(drawing)
    for note in table.notes:
        console.print(plain(note), style="dim")


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A bar for each task on a terminal; elsewhere a line now and then; of several processes on the
    first one alone.
    """
    if not processes.is_main_process():
        yield silent
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def draw(task: str, done: int, total: int, note: str = "") -> None:
            task, note = printable(task), printable(note)
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total or None, note=note)
            bars.update(tasks[task], completed=done, total=total or None, note=note)

        yield draw


class _Lines:
    """Progress for log files: a line at the first and last part of a task, and every half minute
    between; the workbench, which shows it, asks for one every second.
    """

    EVERY_SECONDS = 1.0 if "ROBUSTMRI_WORKBENCH" in os.environ else 30.0

    def __init__(self) -> None:
        self.started: dict[str, tuple[float, int]] = {}
        self.done: dict[str, int] = {}
        self.said = 0.0

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        first = task not in self.started
        started, before = self.started.setdefault(task, (now, done))
        # What an earlier run has left is told part by part, with what is done in all.
        ends = done == total != self.done.get(task)
        self.done[task] = done
        if not (first or ends or now - self.said > self.EVERY_SECONDS):
            return
        self.said = now
        left = (now - started) / (done - before) * (total - done) if done > before else None
        eta = "" if left is None or done == total else f", about {left / 60:.0f} min left"
        say(f"{task}: {done}/{total}{eta}{' - ' + note if note else ''}", error=True)
        sys.stderr.flush()


@contextmanager
def main_process_output() -> Iterator[None]:
    """Of several processes only the first one prints results."""
    if processes.is_main_process():
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield
