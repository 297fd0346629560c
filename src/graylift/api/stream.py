"""The sections of a page that changed, to everybody who has it open, as server-sent events.

A page is made anew once a second while somebody looks, once for all who do: fifty open pages cost one making and fifty
sends. Who comes, or comes back, first gets every section, so nothing has to be remembered for those who are away.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeAlias

from graylift.errors import StoreError

EVERY_S = 1.0
SILENCE_S = 15.0
"""A page that nothing changes on hears at least this often, or something on the way takes the connection for dead."""

Make: TypeAlias = Callable[[], Mapping[str, str]]


class Broadcast:
    """One page and its lookers. `make` blocks and is called in a thread."""

    def __init__(self, make: Make, every_s: float = EVERY_S) -> None:
        self._make = make
        self._every_s = every_s
        self._sections: Mapping[str, str] | None = None
        self._changed = asyncio.Condition()
        self._lookers = 0
        self._task: asyncio.Task[None] | None = None

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events for one looker, for as long as it looks."""
        self._lookers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="broadcast")
        sent: Mapping[str, str] = {}
        try:
            while True:
                news = await self._news(sent)
                if news is None and self._task.done():
                    return  # a fault of ours ended it: the browser comes again, and says so meanwhile
                if news is None:
                    yield b": still here\n\n"
                    continue
                changed = {name: html for name, html in news.items() if sent.get(name) != html}
                sent = news
                yield b"event: sections\ndata: " + json.dumps(changed).encode() + b"\n\n"
        finally:
            self._lookers -= 1
            if self._lookers == 0:
                await self.close()

    async def close(self) -> None:
        task, self._task, self._sections = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _news(self, sent: Mapping[str, str]) -> Mapping[str, str] | None:
        """The sections as soon as they are not those that were sent; None after a silence."""
        try:
            async with asyncio.timeout(SILENCE_S), self._changed:
                await self._changed.wait_for(lambda: self._sections is not None and self._sections != sent)
                return self._sections
        except TimeoutError:
            return None

    async def _run(self) -> None:
        while True:
            try:
                made = await asyncio.to_thread(self._make)
            except (StoreError, KeyError):
                # The store is busy or away: the pages keep what they show, and the next second is another try.
                made = None
            if made is not None:
                async with self._changed:
                    self._sections = made
                    self._changed.notify_all()
            await asyncio.sleep(self._every_s)
