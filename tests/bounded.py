"""What one damaged input may cost."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

MOST_SECONDS = 10.0
"""Of computing: those of the wall depend on who else computes."""
MOST_MEMORY_KIB = 1 << 20
"""More than this process ever had before."""


@contextmanager
def bounded() -> Iterator[None]:
    """Fail where the block takes too long or too much memory."""
    began, before = time.process_time(), _most_memory()
    yield
    seconds, grown = time.process_time() - began, _most_memory() - before
    assert seconds < MOST_SECONDS, f"it took {seconds:.1f} s of computing"
    assert grown < MOST_MEMORY_KIB, f"it took {grown} KiB more than anything before"


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
