"""Streams outlive what happens around them: 200 weight changes, a promotion, a rollback, the end of the gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from envoy_lab import openai_routes, table, until
from openai_lab import LanguageModel, Manner

from graylift.domain.weights import NONE, Weights
from graylift.gateway.agent import GatewayAgent
from graylift.gateway.config import GatewayConfig

pytestmark = pytest.mark.real

STREAM: dict[str, Any] = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Say"}]}
STREAMS, CHANGES, TOKENS = 50, 200, 40


def waits(_: int) -> Manner:
    """Says half of it, and the rest when it is told to go on."""
    return Manner(tokens=TOKENS, stall_after=TOKENS // 2)


def flows_or_waits(number: int) -> Manner:
    return Manner(tokens=TOKENS, gap_s=0.1) if number % 2 else waits(number)


@asynccontextmanager
async def an_agent(folder: Path) -> AsyncIterator[tuple[GatewayAgent, str]]:
    """With the URL of its Envoy, which ends with it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    agent = GatewayAgent(GatewayConfig(name="g1", state_dir=folder / "gw", listen_port=port, workers=2))
    async with agent:
        try:
            yield agent, f"http://127.0.0.1:{port}"
        finally:
            await agent.shutdown()


async def stream(url: str, begun: asyncio.Semaphore) -> tuple[str, bytes]:
    """Who answered, and all that it said. `begun` is released once half of it is there."""
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=STREAM) as answer:
        got = b""
        while got.count(b"\n\n") < TOKENS // 2 and not answer.content.at_eof():
            got += await answer.content.readany()
        begun.release()
        return answer.headers.get("x-graylift-revision", ""), got + await answer.read()


async def open_on(agent: GatewayAgent, server: LanguageModel) -> int:
    (state,) = await agent.observe()
    return dict(state.open_requests)[server.revision_id]


async def test_no_stream_is_cut_by_200_weight_changes_and_a_promotion(
    tmp_path: Path, old: LanguageModel, new: LanguageModel
) -> None:
    old.manner = new.manner = flows_or_waits
    async with an_agent(tmp_path) as (agent, url):
        services = openai_routes(old, new, 5_000, timeout_s=60.0)
        await agent.apply(table(1, services))
        begun = asyncio.Semaphore(0)
        streams = [asyncio.create_task(stream(url, begun)) for _ in range(STREAMS)]
        for _ in range(STREAMS // 3):
            await begun.acquire()
        for change in range(CHANGES):
            weights = Weights((100, 10_000, 5_000, 1)[change % 4])
            await agent.apply(table(2 + change, replace(services, weights=weights)))
        promoted = openai_routes(new, draining=(old.backend,), timeout_s=60.0)
        await agent.apply(table(2 + CHANGES, promoted))
        # What is begun now is the new one's alone; what the old one has begun goes on.
        assert await open_on(agent, old) == old.open > 0
        before = old.streams
        streams += [asyncio.create_task(stream(url, begun)) for _ in range(5)]
        async with asyncio.timeout(20):
            for _ in range(STREAMS - STREAMS // 3 + 5):
                await begun.acquire()
        assert old.streams == before
        old.go_on.set()
        new.go_on.set()
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*streams)
        whole = (await stream(new.url, begun))[1]
        assert [said for _, said in answers] == [whole] * (STREAMS + 5)
        assert {revision for revision, _ in answers} == {old.revision_id, new.revision_id}

        async def is_idle() -> bool:
            return await open_on(agent, old) == 0

        await until(is_idle, "the old one has nothing left to do")
        await agent.apply(table(3 + CHANGES, openai_routes(new)))


async def test_a_rollback_takes_no_new_stream_to_the_candidate_and_tells_how_many_still_run(
    tmp_path: Path, old: LanguageModel, new: LanguageModel
) -> None:
    new.manner = waits
    async with an_agent(tmp_path) as (agent, url):
        await agent.apply(table(1, openai_routes(old, new, 10_000)))
        begun = asyncio.Semaphore(0)
        streams = [asyncio.create_task(stream(url, begun)) for _ in range(10)]
        for _ in streams:
            await begun.acquire()
        await agent.apply(table(2, openai_routes(old, weights=NONE, draining=(new.backend,))))
        assert await open_on(agent, new) == 10
        later = [await stream(url, asyncio.Semaphore(0)) for _ in range(5)]
        assert {revision for revision, _ in later} == {old.revision_id}
        new.go_on.set()
        answers = await asyncio.gather(*streams)
        assert {revision for revision, _ in answers} == {new.revision_id}
        assert all(said.endswith(b"data: [DONE]\n\n") for _, said in answers)


async def test_the_end_of_the_gateway_waits_for_streams(tmp_path: Path, old: LanguageModel) -> None:
    old.manner = waits
    async with an_agent(tmp_path) as (agent, url):
        await agent.apply(table(1, openai_routes(old)))
        begun = asyncio.Semaphore(0)
        running = asyncio.create_task(stream(url, begun))
        await begun.acquire()
        ending = asyncio.create_task(agent.shutdown())

        async def is_closed() -> bool:
            try:
                await stream(url, asyncio.Semaphore(0))
            except aiohttp.ClientConnectorError:
                return True
            return False

        old.manner = lambda _: Manner(tokens=TOKENS)
        await until(is_closed, "no new connection is taken")
        assert not ending.done()
        old.go_on.set()
        assert (await running)[1].endswith(b"data: [DONE]\n\n")
        async with asyncio.timeout(20):
            await ending
