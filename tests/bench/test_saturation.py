"""The closed loop: never more under way than allowed, over in its time, and only whole good answers counted."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from graylift.bench.load import PreparedRequest
from graylift.bench.saturation import saturate

ASKED = PreparedRequest("/infer", {}, b"x")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    runners: list[web.AppRunner] = []

    async def serve_it(handler: Handler) -> str:
        application = web.Application()
        application.router.add_post("/infer", handler)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield serve_it
    for runner in runners:
        await runner.cleanup()


async def test_it_keeps_exactly_as_many_under_way_as_it_may(serve) -> None:
    now = most = served = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal now, most, served
        await request.read()
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        served += 1
        return web.Response()

    seen = await saturate(await serve(handler), itertools.repeat(ASKED), in_flight=3, duration_s=0.3)
    assert most == 3
    assert 3 <= seen.answers <= served
    assert seen.failed == 0


async def test_bad_answers_are_no_throughput(serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=503)

    seen = await saturate(await serve(handler), itertools.repeat(ASKED), in_flight=2, duration_s=0.1)
    assert seen.answers == 0
    assert seen.failed > 0


async def test_a_server_that_hangs_cannot_hold_it(serve) -> None:
    never = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    seen = await asyncio.wait_for(
        saturate(await serve(handler), itertools.repeat(ASKED), in_flight=2, duration_s=0.1), timeout=20
    )
    assert (seen.answers, seen.failed) == (0, 0)
    never.set()


async def test_requests_that_run_out_end_it(serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    seen = await saturate(await serve(handler), iter([ASKED] * 5), in_flight=2, duration_s=20.0)
    assert seen.answers == 5
    assert seen.elapsed_s < 20.0
