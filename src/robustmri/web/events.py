"""What the jobs do, told to every page that listens as it happens (server-sent events)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from robustmri.core.errors import SettingsError

MOST_PAGES = 64
"""Pages that may listen at once."""
STILL_HERE = 15.0
"""Seconds without news after which a page is told that the server lives."""


class Events:
    """News for many pages from one look at the files.

    Args:
        look: what there is, as one line of JSON; it may take a while.
        every: seconds between two looks.
    """

    def __init__(self, look: Callable[[], bytes], *, every: float = 0.5) -> None:
        self._look, self._every = look, every
        self._news, self._looked = b"", float("-inf")
        self._looking = asyncio.Lock()
        self.pages = 0
        self.closed = False

    def listen(self) -> AsyncIterator[bytes]:
        """What to send to one more page: all there is, and again whenever it changes.

        Raises:
            SettingsError: too many listen.
        """
        if self.pages >= MOST_PAGES:
            raise SettingsError(f"{MOST_PAGES} pages listen already. Close one.")
        return self._tell()

    async def _tell(self) -> AsyncIterator[bytes]:
        self.pages += 1
        told, when = b"", time.monotonic()
        try:
            while not self.closed:
                news = await self._latest()
                if news != told:
                    yield b"data: " + news + b"\n\n"
                    told, when = news, time.monotonic()
                elif time.monotonic() - when > STILL_HERE:
                    yield b": still here\n\n"
                    when = time.monotonic()
                await asyncio.sleep(self._every)
        finally:
            self.pages -= 1

    async def _latest(self) -> bytes:
        async with self._looking:
            if time.monotonic() - self._looked >= self._every:
                self._news = await run_in_threadpool(self._look)
                self._looked = time.monotonic()
        return self._news
