"""Limits of tokens with real streams through a real Envoy: what a budget lets through, and what an end gives back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from gateway_parts import config_in, running, table

from graylift.domain.limits import LimitRule, Limits, Quota, WhenAway
from graylift.domain.routing import RoutingTable
from graylift.domain.spec import ServingProtocol

pytestmark = pytest.mark.real

PROMPT_TOKENS = 10


@dataclass
class Teller:
    """A model server that streams as many tokens as a request allows, once it may go on, and says what they cost."""

    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    used: int = 0
    open: int = 0
    status: int = 200
    port: int = 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if self.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.status)
        tokens = asked.get("tells", asked.get("max_tokens"))
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        self.open += 1
        try:
            await answer.prepare(request)
            for number in range(tokens):
                if number == tokens // 2:
                    await self.go_on.wait()
                await answer.write(_event({"choices": [{"index": 0, "delta": {"content": f"w{number}"}}]}))
            usage = {
                "prompt_tokens": PROMPT_TOKENS,
                "completion_tokens": tokens,
                "total_tokens": PROMPT_TOKENS + tokens,
            }
            self.used += usage["total_tokens"]
            await answer.write(_event({"choices": [], "usage": usage}))
            await answer.write(b"data: [DONE]\n\n")
            await answer.write_eof()
        except ConnectionError:
            pass  # the client has left
        finally:
            self.open -= 1
        return answer


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


@asynccontextmanager
async def teller() -> AsyncIterator[Teller]:
    one = Teller()

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": []})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", one.chat)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.port = runner.addresses[0][1]
    try:
        yield one
    finally:
        one.go_on.set()
        await runner.cleanup()


def limited(version: int, port: int, rule: LimitRule) -> RoutingTable:
    base = table(version, f"127.0.0.1:{port}")
    service = replace(
        base.services[0], protocol=ServingProtocol.OPENAI, limits=Limits((rule,), WhenAway.DENY), timeout_s=30.0
    )
    return replace(base, services=(service,))


@dataclass(frozen=True, slots=True)
class Told:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def remaining(self) -> int:
        return int(self.headers["x-ratelimit-remaining-tokens"])


@dataclass(frozen=True, slots=True)
class Client:
    session: aiohttp.ClientSession
    port: int

    async def chat(self, max_tokens: int | None, **more: int) -> Told:
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "tell"}], "stream": True, **more}
        if max_tokens is not None:
            asked["max_tokens"] = max_tokens
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        async with self.session.post(url, json=asked, headers={"authorization": "Bearer secret"}) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Told(response.status, headers, await response.read())

    async def remaining(self) -> int:
        """What is left in the budget. A list of models takes nothing."""
        url = f"http://127.0.0.1:{self.port}/v1/models"
        async with self.session.get(url, headers={"authorization": "Bearer secret"}) as response:
            return int(response.headers["x-ratelimit-remaining-tokens"])

    async def until_remaining(self, wanted: int, within: int = 2) -> None:
        """An end is told after its answer; meanwhile an hour's budget refills by less than `within`."""
        async with asyncio.timeout(10):
            while abs(await self.remaining() - wanted) > within:
                await asyncio.sleep(0.02)


async def test_twenty_streams_at_once_do_not_overrun_their_budget(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    rule = LimitRule(key_header="authorization", tokens=Quota(1000, 3600.0))
    async with teller() as model, running(config) as agent, aiohttp.ClientSession() as session:
        await agent.apply(limited(1, model.port, rule))
        client = Client(session, config.listen_port)
        streams = [asyncio.create_task(client.chat(100)) for _ in range(20)]
        async with asyncio.timeout(10):
            while model.open < 8 or sum(stream.done() for stream in streams) < 11:
                await asyncio.sleep(0.02)
        model.go_on.set()
        told = await asyncio.gather(*streams)
        granted = [one for one in told if one.status == 200]
        refused = [one for one in told if one.status == 429]
        assert len(granted) + len(refused) == 20
        assert 8 <= len(granted) <= 9
        assert all(one.body.endswith(b"data: [DONE]\n\n") for one in granted), "none is cut"
        assert 0 < model.used <= 1000
        error = json.loads(refused[0].body)["error"]
        assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
        assert "over the limit of tokens 1000/h for each authorization" in error["message"]
        assert int(refused[0].headers["retry-after"]) > 0
        assert b"secret" not in refused[0].body
        # What was reserved and not used is there again, and no more.
        await client.until_remaining(1000 - model.used)


async def test_a_stream_that_its_client_leaves_pays_for_what_it_was_told(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    rule = LimitRule(key_header="authorization", tokens=Quota(1000, 3600.0), concurrent=1)
    async with teller() as model, running(config) as agent, aiohttp.ClientSession() as session:
        await agent.apply(limited(1, model.port, rule))
        client = Client(session, config.listen_port)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.chat(200), 0.5)
        await client.until_remaining(1000 - 100 - PROMPT_TOKENS, within=5)


async def test_what_no_model_answered_costs_nothing(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    rule = LimitRule(key_header="authorization", tokens=Quota(1000, 3600.0))
    async with teller() as model, running(config) as agent, aiohttp.ClientSession() as session:
        await agent.apply(limited(1, model.port, rule))
        client = Client(session, config.listen_port)
        model.status = 500
        assert (await client.chat(500)).status == 500
        await client.until_remaining(1000)


async def test_an_answer_longer_than_was_reserved_is_paid_by_the_next_ones(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    rule = LimitRule(key_header="authorization", tokens=Quota(1000, 3600.0), answer_tokens=50)
    async with teller() as model, running(config) as agent, aiohttp.ClientSession() as session:
        await agent.apply(limited(1, model.port, rule))
        model.go_on.set()
        client = Client(session, config.listen_port)
        first = await client.chat(None, tells=1500)
        assert first.status == 200
        assert 930 <= first.remaining <= 950
        async with asyncio.timeout(10):
            while (told := await client.chat(1)).status != 429:
                await asyncio.sleep(0.02)
        assert told.remaining == 0
        assert int(told.headers["retry-after"]) > 1700


async def test_a_request_that_can_never_fit_is_told_not_to_come_back(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    rule = LimitRule(key_header="authorization", tokens=Quota(1000, 3600.0))
    async with teller() as model, running(config) as agent, aiohttp.ClientSession() as session:
        await agent.apply(limited(1, model.port, rule))
        told = await Client(session, config.listen_port).chat(5_000_000)
        assert told.status == 429
        assert "retry-after" not in told.headers
        assert told.headers["x-should-retry"] == "false"
        assert "this request may take 5,000,0" in json.loads(told.body)["error"]["message"]


async def test_without_an_agent_a_client_hears_of_it_in_its_own_form(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    rule = LimitRule(key_header="authorization", tokens=Quota(1000, 3600.0))
    async with teller() as model, running(config) as agent, aiohttp.ClientSession() as session:
        await agent.apply(limited(1, model.port, rule))
        await agent.close()
        told = await Client(session, config.listen_port).chat(10)
        assert told.status == 503
        error = json.loads(told.body)["error"]
        assert "its release file says deny" in error["message"]
        assert (error["type"], error["code"]) == ("gateway_error", 503)
