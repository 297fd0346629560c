"""Streams of tokens through the real Envoy: what is seen of them, and that nobody else can see that somebody looks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import aiohttp
import pytest
from envoy_lab import Gateway, openai_routes, table
from openai_lab import LanguageModel, Manner

from graylift.domain.evidence import Outcome, RequestRecord
from graylift.domain.routing import RoutingTable

pytestmark = pytest.mark.real
Start: TypeAlias = Callable[[RoutingTable], Awaitable[Gateway]]

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": 'Say "usage": {} and }'}]}
STREAM = {**CHAT, "stream": True}


@pytest.fixture
async def old() -> AsyncIterator[LanguageModel]:
    server = LanguageModel("chat.v1.aaaaaaaaaaaa")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def new() -> AsyncIterator[LanguageModel]:
    server = LanguageModel("chat.v2.bbbbbbbbbbbb")
    await server.start()
    yield server
    await server.stop()


async def post(url: str, body: Any, path: str = "/v1/chat/completions") -> tuple[int, bytes]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.post(url + path, data=data, headers={"content-type": "application/json"}) as answer,
    ):
        return answer.status, await answer.read()


async def record_of(gateway: Gateway, body: Any) -> RequestRecord:
    before = len(gateway.records)
    await post(gateway.url, body)
    return (await gateway.read_log(before + 1))[-1]


async def test_a_stream_is_recorded_with_its_tokens_and_times(start: Start, old: LanguageModel) -> None:
    gateway = await start(table(1, openai_routes(old)))
    old.manner = lambda _: Manner(tokens=11, first_s=0.1, gap_s=0.02)
    record = await record_of(gateway, STREAM)
    assert (record.outcome, record.reason, record.finish) == (Outcome.OK, None, "stop")
    assert (record.input_tokens, record.output_tokens, record.tokens_estimated) == (7, 12, False)
    assert record.ttft_s is not None
    assert record.tpot_s is not None
    assert record.ttft_s >= 0.1
    assert record.tpot_s * 11 >= 0.2  # ten gaps
    assert record.ttft_s + record.tpot_s * 11 <= record.duration_s
    assert record.request_id
