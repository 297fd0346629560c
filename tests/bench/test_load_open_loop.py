"""The load generator against small real servers, one of which freezes."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest
import uvloop
from aiohttp import web

from graylift.bench.load import REVISION_HEADER, Answer, LoadPlan, PreparedRequest, load
from graylift.bench.report import LoadReport, json_from_report
from graylift.bench.schedule import Arrivals
from graylift.domain.histogram import Histogram, bin_of, histogram_from_counts

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def forever(path: str = "/x", **more: Any) -> Iterator[PreparedRequest]:
    return itertools.repeat(PreparedRequest(path, {}, b"body", **more))


def fates(report: LoadReport) -> int:
    answers = sum(revision.answers for revision in report.revisions)
    return answers + sum(n for _, n in report.errors) + report.shed + report.abandoned + report.not_due


class Freezing:
    """Answers at once, except that it stands still for the first `frozen` seconds of every `period`."""

    def __init__(self, period: float, frozen: float) -> None:
        self.period, self.frozen = period, frozen
        self.start = asyncio.get_running_loop().time()

    async def answer(self, _: web.Request) -> web.Response:
        into = (asyncio.get_running_loop().time() - self.start) % self.period
        if into < self.frozen:
            await asyncio.sleep(self.frozen - into)
        return web.Response(headers={REVISION_HEADER: "v1"})


async def closed_loop(url: str, seconds: float, rate: float) -> Histogram:
    """One polite user: sends, waits for the answer, then for the rest of its pause."""
    loop = asyncio.get_running_loop()
    seen: list[float] = []
    end = loop.time() + seconds
    async with aiohttp.ClientSession(url) as session:
        while (sent := loop.time()) < end:
            async with session.post("/x", data=b"body") as response:
                await response.read()
            seen.append(loop.time() - sent)
            await asyncio.sleep(max(0.0, sent + 1 / rate - loop.time()))
    return histogram_from_counts(Counter(bin_of(latency) for latency in seen))


async def test_a_server_that_freezes_is_seen_by_the_open_loop_and_missed_by_a_closed_one() -> None:
    # Frozen for a fifth of the time: a fifth of all users wait U(0, 0.2) s, so the truth is p90 0.1 s and p99 0.19 s.
    server = Freezing(period=1.0, frozen=0.2)
    async with serving(server.answer) as url:
        report, closed = await asyncio.gather(
            load(LoadPlan(url, rate_per_s=150, duration_s=4, seed=7), forever()),
            closed_loop(url, seconds=4, rate=150),
        )
    (arm,) = report.revisions
    p90, p99 = arm.latency.quantile(0.90), arm.latency.quantile(0.99)
    assert p90 is not None
    assert p99 is not None
    assert 0.06 < p90 < server.frozen
    assert 0.15 < p99 < 2 * server.frozen
    closed_p90 = closed.quantile(0.90)
    assert closed_p90 is not None
    assert closed_p90 < p90 / 2, "coordinated omission: the closed loop hardly asks while the server stands still"


async def test_requests_that_are_due_beyond_the_bound_are_shed_and_counted() -> None:
    release = asyncio.Event()

    async def stuck(_: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async with serving(stuck) as url:
        plan = LoadPlan(url, rate_per_s=100, duration_s=0.5, arrivals=Arrivals.CONSTANT, max_in_flight=8)
        running = asyncio.create_task(load(plan, forever()))
        await asyncio.sleep(0.6)
        release.set()
        report = await running
    assert (report.scheduled, report.shed, report.sent) == (50, 42, 8)
    assert fates(report) == report.scheduled


async def test_a_stop_ends_it_at_once_with_a_report_that_accounts_for_every_request() -> None:
    arrived = asyncio.Event()

    async def stuck(_: web.Request) -> web.Response:
        arrived.set()
        await asyncio.sleep(60)
        return web.Response()

    stop = asyncio.Event()
    async with serving(stuck) as url:
        running = asyncio.create_task(load(LoadPlan(url, rate_per_s=200, duration_s=3600), forever(), stop))
        await arrived.wait()
        stop.set()
        report = await asyncio.wait_for(running, 10)
    assert report.abandoned > 0
    assert report.not_due > 0
    assert fates(report) == report.scheduled


async def test_a_cancelled_load_leaves_no_task_behind() -> None:
    arrived = asyncio.Event()

    async def stuck(_: web.Request) -> web.Response:
        arrived.set()
        await asyncio.sleep(60)
        return web.Response()

    before = asyncio.all_tasks()
    async with serving(stuck) as url:
        running = asyncio.create_task(load(LoadPlan(url, rate_per_s=200, duration_s=60), forever()))
        await arrived.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() - before if "_send" in repr(task)} == set()


async def test_answers_are_counted_by_revision_and_status_and_scored_only_when_good() -> None:
    turns = itertools.cycle([("v1", 200), ("v1", 200), ("v2", 200), ("v2", 500)])

    async def handler(_: web.Request) -> web.Response:
        revision, status = next(turns)
        return web.Response(status=status, headers={REVISION_HEADER: revision}, body=revision.encode())

    def score(answer: Answer) -> float | None:
        return 1.0 if answer.body == b"v2" else None

    async with serving(handler) as url:
        report = await load(
            LoadPlan(url, rate_per_s=200, duration_s=0.2, arrivals=Arrivals.CONSTANT), forever(score=score)
        )
    v1, v2 = report.revisions
    assert (v1.revision, v1.statuses, v1.failed, v1.score) == ("v1", ((200, 20),), 0, None)
    assert (v2.revision, v2.statuses, v2.failed, v2.scored, v2.score) == ("v2", ((200, 10), (500, 10)), 10, 10, 1.0)
    assert v2.latency.count == 10, "a failure has no honest latency"
    assert report.failed == 10


async def test_a_score_that_raises_is_not_swallowed() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    def broken(_: Answer) -> float | None:
        raise ZeroDivisionError

    async with serving(handler) as url:
        with pytest.raises(ExceptionGroup) as caught:
            await load(LoadPlan(url, rate_per_s=50, duration_s=60), forever(score=broken))
    assert caught.group_contains(ZeroDivisionError)


async def test_a_server_that_is_not_there_is_an_error_count_and_no_exception(unused_tcp_port: int) -> None:
    plan = LoadPlan(f"http://127.0.0.1:{unused_tcp_port}", rate_per_s=100, duration_s=0.1, arrivals=Arrivals.CONSTANT)
    report = await load(plan, forever())
    assert report.errors == (("ClientConnectorError", 10),)
    assert report.revisions == ()


async def test_an_answer_that_does_not_come_in_time_is_a_timeout() -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async with serving(slow) as url:
        plan = LoadPlan(url, rate_per_s=50, duration_s=0.1, arrivals=Arrivals.CONSTANT, timeout_s=0.2)
        report = await load(plan, forever())
    assert report.errors == (("timeout", 5),)
    assert report.failed == 5


async def test_it_ends_when_the_requests_do() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    async with serving(handler) as url:
        report = await load(LoadPlan(url, rate_per_s=200, duration_s=600), itertools.islice(forever(), 3))
    assert report.sent == 3
    assert fates(report) == report.scheduled


async def test_the_json_is_what_a_script_reads() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(headers={REVISION_HEADER: "v1"})

    async with serving(handler) as url:
        report = await load(LoadPlan(url, rate_per_s=100, duration_s=0.2, arrivals=Arrivals.CONSTANT), forever())
    document = orjson.loads(json_from_report(report))
    assert document["scheduled"] == document["sent"] == 20
    assert document["revisions"][0]["statuses"] == {"200": 20}
    assert set(document["revisions"][0]["latency_ms"]) == {"p50", "p90", "p99"}
    assert document["on_schedule"] in (True, False)


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def test_latency_counts_from_when_a_request_was_due_and_the_lag_tells_on_the_generator() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    turns = itertools.count()

    def stalls_once(_: Answer) -> float | None:
        if next(turns) == 2:
            time.sleep(0.3)  # the generator's own fault, long enough to tell from noise
        return None

    async with serving(handler) as url:
        plan = LoadPlan(url, rate_per_s=100, duration_s=1, arrivals=Arrivals.CONSTANT)
        report = await load(plan, forever(score=stalls_once))
    late = report.revisions[0].latency.above(bin_of(0.1))
    assert late >= 15, "some twenty requests were due more than 0.1 s before the stall ended"
    assert not report.on_schedule


def test_on_a_loop_that_counts_in_milliseconds_no_request_is_early_and_no_answer_before_its_request() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    async def run() -> LoadReport:
        async with serving(handler) as url:
            return await load(LoadPlan(url, rate_per_s=1000, duration_s=1), forever())

    report = uvloop.run(run())
    assert report.failed == 0
    assert report.revisions[0].latency.above(bin_of(10e-6)) == report.sent, "nothing is answered within 10 us"
