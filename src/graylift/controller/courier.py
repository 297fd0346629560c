"""Tells receivers what happened: the stored events, each once for each receiver that wants its kind, in their order.

What is to be told waits in the outbox until it is told, so a restart loses nothing; one that comes between the telling
and its note tells once more, under the same id. A receiver that is away holds neither a release nor another receiver.
Called by the controller while it holds the lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from graylift.controller.troubles import Patience, Troubles
from graylift.domain.notices import Notice
from graylift.errors import NotTold, StoreError
from graylift.ports import Clock, Lease, Notifier, Outbox, Tracked, Unread

LONGEST_WAIT_S = 300.0
"""Between two tries to reach a receiver that is away."""
KEEP_S = 4 * 3600.0
"""What could not be told so long after it happened is given up: it would be taken for news."""
CLOSING_S = 5.0
"""How long a controller that ends waits for what it is just telling."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Sending:
    notice: Notice
    task: asyncio.Task[None]


class Courier:
    """One notice at a time for each receiver, in a task of its own."""

    def __init__(
        self, outbox: Outbox, notifier: Notifier, clock: Clock, troubles: Troubles, when_one_ends: Callable[[], None]
    ) -> None:
        self._outbox = outbox
        self._notifier = notifier
        self._clock = clock
        self._troubles = troubles
        self._when_one_ends = when_one_ends
        self._sending: dict[str, _Sending] = {}
        self._patience = Patience(LONGEST_WAIT_S)
        self._ill: set[str] = set()

    async def look(self, lease: Lease, services: Collection[Tracked], now: float) -> None:
        """Note what was told, find what is new, tell what waits. Waits for no receiver."""
        try:
            settled = list(self._ended(services, now))
            waiting = await asyncio.to_thread(self._sort, lease, settled)
        except StoreError as error:
            self._troubles.note("outbox", str(error), now)
            return
        self._troubles.over("outbox", now)
        late = [n for n in waiting if now - n.at_s > KEEP_S and not self._is_sending(n)]
        if late:
            await self._give_up(lease, late, services, now)
        for notice in waiting:
            name = str(notice.receiver)
            if name in self._sending or notice in late or not self._patience.allows(name, self._clock.monotonic()):
                continue
            task = asyncio.create_task(self._notifier.tell(notice), name=f"telling {name}")
            task.add_done_callback(lambda _: self._when_one_ends())
            self._sending[name] = _Sending(notice, task)

    def stand_by(self) -> None:
        """Another controller tells now."""
        for sending in self._sending.values():
            sending.task.cancel()

    async def close(self, lease: Lease | None) -> None:
        """Let what is being told come to its end, if that is soon: a release often ends just before its controller."""
        if lease is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSING_S):
                    while self._sending:
                        await asyncio.wait([s.task for s in self._sending.values()], return_when="FIRST_COMPLETED")
                        await self.look(lease, (), self._clock.now())
        self.stand_by()
        await asyncio.gather(*(s.task for s in self._sending.values()), return_exceptions=True)

    def _is_sending(self, notice: Notice) -> bool:
        sending = self._sending.get(str(notice.receiver))
        return sending is not None and sending.notice == notice

    def _ended(self, services: Collection[Tracked], now: float) -> Iterator[Notice]:
        """What was told, or refused for good."""
        for name, sending in list(self._sending.items()):
            if not sending.task.done():
                continue
            del self._sending[name]
            if sending.task.cancelled():
                continue
            error = sending.task.exception()
            if error is None:
                self._patience.succeeded(name)
                self._ill.discard(name)
                self._troubles.over(f"telling {name}", now, _concerned(services, sending.notice))
                yield sending.notice
            elif isinstance(error, NotTold):
                self._patience.tried(name, self._clock.monotonic())
                self._is_ill(sending.notice, str(error), services, now)
                if error.for_good:
                    yield sending.notice
            else:
                raise error

    def _is_ill(self, notice: Notice, why: str, services: Collection[Tracked], now: float) -> None:
        """Said once, until it is well again: each try may fail in words of its own."""
        name = str(notice.receiver)
        if name not in self._ill:
            self._ill.add(name)
            self._troubles.note(f"telling {name}", why, now, _concerned(services, notice))

    def _sort(self, lease: Lease, settled: Collection[Notice]) -> list[Notice]:
        """What waits, after the news were sorted."""
        if settled:
            self._outbox.settle(lease, list(settled))
        while unread := self._outbox.unread():
            notices = [notice for one in unread for notice in notices_of(one)]
            self._outbox.sort(lease, unread[-1].number, notices)
        return list(self._outbox.waiting())

    async def _give_up(self, lease: Lease, late: list[Notice], services: Collection[Tracked], now: float) -> None:
        for notice in late:
            told = f"{notice.receiver} was away too long and is not told of {notice.kind} of {notice.release_id}"
            _log.warning("%s", told)
            self._is_ill(notice, told, services, now)
        with suppress(StoreError):  # the next look tries again
            await asyncio.to_thread(self._outbox.settle, lease, late)


def notices_of(unread: Unread) -> Iterator[Notice]:
    """One for each receiver of the release file that wants this kind of event."""
    event, spec = unread.event, unread.spec
    if spec is None or event.release_id is None:
        return
    for place, receiver in enumerate(spec.notify):
        if event.kind in receiver.on:
            yield Notice(
                number=unread.number,
                place=place,
                receiver=receiver,
                release_id=event.release_id,
                service=event.service,
                candidate=spec.candidate.name,
                stable=spec.stable.name,
                at_s=event.at_s,
                kind=event.kind,
                text=event.text,
                by=event.by,
            )


def _concerned(services: Collection[Tracked], notice: Notice) -> Collection[Tracked]:
    return [tracked for tracked in services if tracked.service.name == notice.service]
