"""A batch that does not fit into memory is worked through in halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Row = TypeVar("Row")
Part = TypeVar("Part")


class Room:
    """How many rows fit at a time, as far as is known; 0: nothing has failed yet."""

    most = 0


def in_halves(
    work: Callable[[Sequence[Row]], Part],
    rows: Sequence[Row],
    generator: torch.Generator,
    room: Room | None = None,
) -> list[Part]:
    """`work` on all rows; where memory runs out, on their halves, down to single rows.

    A failed try gives its random numbers back, so that a row that takes one number gets the same
    one in the end.

    Args:
        work: rows to a result.
        rows: at least one.
        generator: what `work` draws from.
        room: what earlier batches have taught, and this one learns for later ones.

    Raises:
        RuntimeError: a single row does not fit, or `work` failed in another way.
    """
    room = room or Room()
    if not room.most or len(rows) <= room.most:
        state = generator.get_state()
        try:
            return [work(rows)]
        except RuntimeError as error:
            if len(rows) < 2 or not is_out_of_memory(error):
                raise
        # Only here, after the exception is gone and with it what it held of the failed try.
        generator.set_state(state)
        room.most = (len(rows) + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    middle = (len(rows) + 1) // 2
    return [
        *in_halves(work, rows[:middle], generator, room),
        *in_halves(work, rows[middle:], generator, room),
    ]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an accelerator, or torch's allocator on the CPU, had no memory left.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes."))
    True
    """
    said = str(error).lower()
    return "out of memory" in said or "can't allocate memory" in said
