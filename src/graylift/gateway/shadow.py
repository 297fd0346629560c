"""Copies of shadowed answers taken in from Envoy, paired, and compared: what becomes evidence of a shadow stage.

Taking in is the event loop's work and as short as can be; pairing and comparing is done in the thread that also counts
the access log, whenever that asks. In between lies a queue with a bound: what does not fit is dropped and counted, and
so is what cannot be compared in time. Bodies are in memory alone, and leave it as examples only where the release file
asks for them. Only `agent.py` and `evidence.py` use this.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from aiohttp import web

from graylift.domain.shadow import BrokenShadow, Example, Lost, Shadowed, ShadowLoss, ShadowPair
from graylift.domain.spec import KeepExamples
from graylift.envoy.copies import ANSWERED, ASKED, Answered, Asked, copy_from
from graylift.envoy.shadow import MAX_COPY_BYTES
from graylift.errors import GatewayError
from graylift.metrics.pairs import Matched, Pairing
from graylift.protocols.drift import compare, failure_of, told

MOST_QUEUED = 128
"""Copies that wait, each of up to MAX_COPY_BYTES, for the thread that counts; it comes by twenty times a second."""


class ShadowDesk:
    """Takes copies in at `socket` while it runs, and gives evidence when asked."""

    def __init__(self, socket: Path, now: Callable[[], float]) -> None:
        self._socket = socket
        self._now = now
        self._queue: deque[Asked | Answered] = deque()
        self._broken: list[BrokenShadow] = []
        self._dropped: deque[ShadowLoss] = deque()
        self._pairing = Pairing()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Idempotent. GatewayError if nothing can listen there."""
        if self._runner is not None:
            return
        app = web.Application(client_max_size=2 * MAX_COPY_BYTES)
        app.add_routes([web.post(ASKED, self._take), web.post(ANSWERED, self._take)])
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            # One that was killed left its socket behind; the agent's lock says that nobody listens on it.
            self._socket.unlink(missing_ok=True)
            await web.UnixSite(runner, str(self._socket)).start()
        except OSError as exc:
            await runner.cleanup()
            raise GatewayError(f"the agent cannot listen on {self._socket}: {exc.strerror}") from exc
        self._runner = runner

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def broken(self, record: BrokenShadow) -> None:
        """The candidate's answer broke off, says the access log. Called in the thread that counts."""
        self._broken.append(record)

    def evidence(self) -> Iterator[ShadowPair | ShadowLoss]:
        """The pairs that are complete by now, and what became none. Called in the thread that counts."""
        now = self._now()
        for _ in range(len(self._queue)):
            copy = self._queue.popleft()
            match copy:
                case Asked():
                    self._pairing.asked(copy.request_id, copy.shadowed, copy.request, now)
                case Answered():
                    found = self._pairing.answered(copy.request_id, copy.shadowed, copy.role, copy.answer, now)
                    if found is not None:
                        yield _evidence_from(found, now)
        # After the copies: that the candidate was asked is known before that it failed.
        for record in self._broken:
            self._pairing.broken(record.request_id, record.reason, now)
        self._broken.clear()
        for found in self._pairing.settle(now):
            yield _evidence_from(found, now)
        for _ in range(len(self._dropped)):
            yield self._dropped.popleft()

    async def _take(self, request: web.Request) -> web.Response:
        try:
            copy = copy_from(request.path, request.headers, await request.read())
        except ValueError as exc:
            return web.Response(status=400, text=str(exc))
        if len(self._queue) >= MOST_QUEUED:
            about = copy.shadowed
            loss = ShadowLoss(self._now(), about.service, about.split, about.revision_id, Lost.CROWDED)
            self._dropped.append(loss)
            return web.Response(status=503)
        self._queue.append(copy)
        return web.Response(status=204)


def _evidence_from(found: Matched | ShadowLoss, now: float) -> ShadowPair | ShadowLoss:
    return found if isinstance(found, ShadowLoss) else pair_from(found, now)


def pair_from(matched: Matched, now: float) -> ShadowPair:
    """The two answers, compared."""
    about, stable, candidate = matched.shadowed, matched.stable, matched.candidate
    stable_failure = failure_of(about.protocol, stable)
    reason = matched.reason if candidate is None else failure_of(about.protocol, candidate)
    if candidate is None or reason is not None or stable_failure is not None:
        return ShadowPair(
            ended_s=now,
            service=about.service,
            split=about.split,
            revision_id=about.revision_id,
            stable_failed=stable_failure is not None,
            candidate_failed=reason is not None,
            reason=reason,
        )
    comparison = compare(about.protocol, stable, candidate, about.tolerance)
    example = None
    if comparison is not None and comparison.differs is not None and about.keep is not KeepExamples.NONE:
        example = Example(
            request_id=matched.request_id,
            drift=comparison.drift,
            differs=comparison.differs,
            detail=comparison.detail,
            stable_hash=_hash(stable.body),
            candidate_hash=_hash(candidate.body),
            **(_texts(matched, about) if about.keep is KeepExamples.TEXT else {}),
        )
    return ShadowPair(
        ended_s=now,
        service=about.service,
        split=about.split,
        revision_id=about.revision_id,
        stable_failed=False,
        candidate_failed=False,
        comparison=comparison,
        stable_s=stable.elapsed_s,
        candidate_s=candidate.elapsed_s,
        example=example,
    )


def _texts(matched: Matched, about: Shadowed) -> dict[str, str]:
    assert matched.candidate is not None
    return {
        "request": matched.request.decode(errors="replace")[:MOST_REQUEST],
        "stable": told(about.protocol, matched.stable),
        "candidate": told(about.protocol, matched.candidate),
    }


MOST_REQUEST = 4_000
"""Characters of a request that an example keeps."""


def _hash(body: bytes | None) -> str:
    return hashlib.sha256(body or b"").hexdigest()
