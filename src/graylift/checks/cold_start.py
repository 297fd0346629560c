"""The cold start check: does the candidate's first user wait much longer than the ones after?

Warm-up is the server's own; what it missed (a shape, a code path, pages not yet read) is paid by the first request
after it said that it is ready. A single first request is a single number: one that took too long is measured again on
two more starts, and the median of the three decides. Called by `served`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import aiohttp

from graylift.checks.questions import ANSWER_WITHIN_S
from graylift.checks.servers import RunningServer
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import ColdStartCheck
from graylift.errors import DeployError, ProtocolError

CHECK = "cold start"

Ask = Callable[[aiohttp.ClientSession, RunningServer], Awaitable[None]]
"""One plain question, answered."""

_STARTS = 3
_STEADY_REQUESTS = 30
_UNNOTICED_S = 0.005
"""A first request that takes this much longer than the median is no wait, whatever the ratio."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One start: the first request after ready, and the median of those after it."""

    first_s: float
    steady_s: float

    @property
    def ratio(self) -> float:
        return self.first_s / self.steady_s

    def within(self, limit: float) -> bool:
        return self.ratio <= limit or self.first_s - self.steady_s <= _UNNOTICED_S


async def check_cold_start(
    spec: ColdStartCheck,
    candidate: RunningServer,
    ask: Ask,
    start_again: Callable[[], AbstractAsyncContextManager[RunningServer]],
) -> CheckResult:
    """candidate: just ready, and not asked anything yet; start_again: another server of its kind, just as fresh."""
    if candidate.process is None:
        sentence = f"{candidate.name} runs at {candidate.url} already: its start was not ours"
        return CheckResult(CHECK, CheckOutcome.SKIPPED, sentence)
    limit = spec.max_first_request_ratio
    seen: list[_Seen] = []
    evidence: list[str] = []
    try:
        seen.append(await _measured(candidate, ask))
        evidence += _told(candidate, seen[0])
        while not seen[0].within(limit) and len(seen) < _STARTS:
            async with start_again() as server:
                seen.append(await _measured(server, ask))
                evidence += _told(server, seen[-1])
    except (ProtocolError, aiohttp.ClientError, TimeoutError, DeployError) as error:
        why = await candidate.process.end() or str(error) or type(error).__name__
        sentence = f"{candidate.name} does not answer its first requests, which stable answers: {why}"
        return CheckResult(CHECK, CheckOutcome.FAIL, sentence, tuple(evidence))
    middle = sorted(seen, key=lambda one: one.ratio)[len(seen) // 2]
    good = middle.within(limit)
    start = candidate.process.start
    sentence = (
        f"{candidate.name} is ready {start.ready_s:.1f} s after its process starts; its first request takes "
        f"{middle.first_s * 1e3:.3g} ms, {middle.ratio:.2f}x the {middle.steady_s * 1e3:.3g} ms of the "
        f"{_STEADY_REQUESTS} after it (limit {limit:g}x, or {_UNNOTICED_S * 1e3:g} ms more; "
        f"{'1 start' if len(seen) == 1 else f'median of {len(seen)} starts'})"
    )
    if not good:
        sentence += "; run the shapes of real requests while it warms up, or allow more in checks.coldStart"
    return CheckResult(CHECK, CheckOutcome.PASS if good else CheckOutcome.FAIL, sentence, tuple(evidence))


async def _measured(server: RunningServer, ask: Ask) -> _Seen:
    durations: list[float] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)) as session:
        # The connection is there already, as the gateway's are: making it is no part of a cold start.
        async with session.get(f"{server.url}/v2/health/live") as answer:
            await answer.read()
        for _ in range(1 + _STEADY_REQUESTS):
            began = time.perf_counter()
            await ask(session, server)
            durations.append(time.perf_counter() - began)
    return _Seen(durations[0], statistics.median(durations[1:]))


def _told(server: RunningServer, seen: _Seen) -> list[str]:
    assert server.process is not None, "only servers of ours are started"
    start = server.process.start
    return [
        f"start: live after {start.live_s:.2f} s, ready after {start.ready_s:.2f} s",
        *(f"server: {line}" for line in start.said),
        f"first request {seen.first_s * 1e3:.3g} ms, then {seen.steady_s * 1e3:.3g} ms",
    ]
