"""News of the jobs: told to every page as it happens, from one look at the files."""

from __future__ import annotations

import asyncio

import pytest

from robustmri.core.errors import SettingsError
from robustmri.web import events
from robustmri.web.events import Events


def test_pages_hear_of_every_change_from_one_look():
    looked = []

    def look():
        looked.append(1)
        return b'{"n": %d}' % (len(looked) // 3)

    async def listen(told, count):
        async for news in told:
            heard.append(news)
            if len(heard) >= count:
                return

    async def all_pages():
        told = Events(look, every=0.001)
        pages = [listen(told.listen(), 6) for _ in range(3)]
        await asyncio.wait_for(asyncio.gather(*pages), 10)
        await asyncio.sleep(0)
        return told

    heard = []
    asyncio.run(all_pages())
    assert heard[:2] == [b'data: {"n": 0}\n\n', b'data: {"n": 0}\n\n']
    assert b'data: {"n": 1}\n\n' in heard
    assert len(looked) < 12, "each page looked by itself"


def test_a_page_that_hears_nothing_is_told_that_the_server_lives(monkeypatch):
    monkeypatch.setattr(events, "STILL_HERE", 0.0)

    async def two():
        told = Events(lambda: b"{}", every=0.001)
        page = told.listen()
        said = [await anext(page), await anext(page)]
        told.closed = True
        said += [one async for one in page]
        return said, told.pages

    said, pages = asyncio.run(two())
    assert said[:2] == [b"data: {}\n\n", b": still here\n\n"]
    assert pages == 0


def test_so_many_pages_and_no_more(monkeypatch):
    monkeypatch.setattr(events, "MOST_PAGES", 1)

    async def second():
        told = Events(lambda: b"{}")
        await anext(told.listen())
        told.listen()

    with pytest.raises(SettingsError, match="Close one"):
        asyncio.run(second())
