"""Work on many files at once, with the answers in the order of the questions."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
MOST_BYTES = 1 << 30
"""Of what waits between two steps; a single thing may be larger."""


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    function: Callable[[Item], Answer],
    items: Iterable[Item],
    threads: int | None = None,
    weigh: Callable[[Any], int] = lambda thing: 0,
) -> Iterator[Answer]:
    """Like `map`, in threads and a few items ahead, so that thousands of slices never lie in memory
    together.

    Args:
        function: of an item.
        items: what to work on.
        threads: how many; by default one for each core, at most 8.
        weigh: bytes that an item or an answer holds; fewer wait where they are heavy.

    >>> list(map_in_order(abs, [-3, 2, -1]))
    [3, 2, 1]
    """
    threads = threads or min(8, usable_cores())
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[int, Future[Answer]]] = deque()

    def too_much() -> bool:
        if len(waiting) > 4 * threads:
            return True
        answers = [done.result() for _, done in waiting if done.done() and not done.exception()]
        return sum(weight for weight, _ in waiting) + sum(map(weigh, answers)) > MOST_BYTES

    try:
        for item in items:
            waiting.append((weigh(item), pool.submit(function, item)))
            while waiting and too_much():
                yield waiting.popleft()[1].result()
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
