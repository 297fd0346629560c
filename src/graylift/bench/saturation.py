"""How much a server answers when it is never idle: a closed loop with a bound on requests under way and on time.

Beside `load`, which measures latency: here a slower server is asked less, so a duration tells what one of `in_flight`
callers who wait for each other gets, and nothing of users. Called by the performance check and by `graylift bench`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import aiohttp

from graylift.bench.load import PreparedRequest
from graylift.domain.histogram import EMPTY, Histogram, bin_of, histogram_from_counts


@dataclass(frozen=True, slots=True)
class Saturated:
    """answers: below 400, that came within `elapsed_s`; failed: other answers, and requests without one; latency: sent
    to last byte, of the answers"""

    answers: int
    failed: int
    elapsed_s: float
    latency: Histogram = EMPTY


async def saturate(
    url: str, requests: Iterator[PreparedRequest], *, in_flight: int, duration_s: float, timeout_s: float = 30.0
) -> Saturated:
    """Keep `in_flight` requests under way for `duration_s`. What is under way at its end is cut off and not counted."""
    answers = failed = 0
    latency: Counter[int] = Counter()
    # A request that hangs is held by `timeout_s` or the end, whichever comes first.
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    connector = aiohttp.TCPConnector(limit=0)

    async def keep_asking(session: aiohttp.ClientSession) -> None:
        nonlocal answers, failed
        for request in requests:
            sent = time.perf_counter()
            try:
                async with session.post(
                    request.path, data=request.body, headers=request.headers, allow_redirects=False
                ) as answer:
                    await answer.read()
                    good = answer.status < 400
            except (TimeoutError, aiohttp.ClientError):
                good = False
            if good:
                answers += 1
                latency[bin_of(time.perf_counter() - sent)] += 1
            else:
                failed += 1
                await asyncio.sleep(0.01)  # a server that is gone is not asked as fast as the loop turns

    began = time.perf_counter()
    async with aiohttp.ClientSession(
        url, connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        workers = [asyncio.create_task(keep_asking(session)) for _ in range(in_flight)]
        try:
            await asyncio.wait(workers, timeout=duration_s)
            elapsed_s = time.perf_counter() - began
            counted = answers, failed
            seen = histogram_from_counts(latency)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)
    for worker in workers:
        if not worker.cancelled():
            worker.result()
    return Saturated(*counted, elapsed_s, seen)
