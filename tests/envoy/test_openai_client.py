"""OpenAI's own Python client through the gateway: only its base URL changes, and what it gets does not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import openai
import pytest
from envoy_lab import Gateway, openai_routes, table
from openai_lab import LanguageModel, Manner

from graylift.domain.routing import RoutingTable

pytestmark = pytest.mark.real
Start: TypeAlias = Callable[[RoutingTable], Awaitable[Gateway]]

SAY: dict[str, Any] = {"model": "m", "messages": [{"role": "system", "content": "Be kind."}]}
LOOK: dict[str, Any] = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("chat.completions", SAY),
    ("chat.completions", {**SAY, "tools": [LOOK]}),
    ("chat.completions", {**SAY, "response_format": {"type": "json_object"}}),
    ("chat.completions", {**SAY, "stream": True}),
    ("chat.completions", {**SAY, "stream": True, "stream_options": {"include_usage": True}}),
    ("chat.completions", {**SAY, "stream": True, "tools": [LOOK]}),
    ("completions", {"model": "m", "prompt": "Say"}),
    ("completions", {"model": "m", "prompt": "Say", "stream": True}),
    ("embeddings", {"model": "m", "input": ["a", "b"]}),
    ("embeddings", {"model": "m", "input": "a", "encoding_format": "float"}),
]
# What names the connection and the gateway; all else is as the server says it.
IDENTIFYING = {"date", "server", "connection", "keep-alive", "x-request-id", "x-graylift-revision"}


def client_of(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


async def got(client: openai.AsyncOpenAI, call: str, asked: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    """Headers and bytes of one answer."""
    resource: Any = client
    for name in call.split("."):
        resource = getattr(resource, name)
    async with resource.with_streaming_response.create(**asked) as answer:
        return dict(answer.headers), b"".join([piece async for piece in answer.iter_bytes()])


@pytest.mark.parametrize("base", ["", "/chat"])
async def test_each_call_gets_what_the_server_itself_would_give(start: Start, old: LanguageModel, base: str) -> None:
    gateway = await start(table(1, openai_routes(old)))
    old.manner = lambda _: Manner(gap_s=0.001)
    async with client_of(gateway.url + base) as through, client_of(old.url) as direct:
        for call, asked in CALLS:
            headers, body = await got(through, call, asked)
            expected, said = await got(direct, call, asked)
            assert body == said
            same = expected.keys() - IDENTIFYING
            assert {name: headers.get(name) for name in same} == {name: expected[name] for name in same}
            assert headers["x-graylift-revision"] == old.revision_id
        assert (await through.models.list()).data == (await direct.models.list()).data
    records = await gateway.read_log(len(CALLS) + 1)
    assert all(record.reason is None for record in records)
    finished = [*["stop"] * 5, "tool_calls", "length", "stop", None, None, None]
    assert [record.finish for record in records] == finished


async def test_it_reads_a_stream_token_by_token_and_sees_usage_only_where_it_asked(
    start: Start, old: LanguageModel
) -> None:
    gateway = await start(table(1, openai_routes(old)))
    async with client_of(gateway.url) as client:
        for options, usages in (({}, 0), ({"stream_options": {"include_usage": True}}, 1)):
            stream = await client.chat.completions.create(**SAY, **options, stream=True)
            chunks = [chunk async for chunk in stream]
            assert sum(chunk.usage is not None for chunk in chunks) == usages
            text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
            assert text == (await client.chat.completions.create(**SAY)).choices[0].message.content
    assert [record.output_tokens for record in await gateway.read_log(4)] == [9] * 4


async def test_it_understands_the_gateways_own_errors(start: Start, old: LanguageModel) -> None:
    gateway = await start(table(1, openai_routes(old)))
    await old.stop()
    async with client_of(gateway.url) as client:
        with pytest.raises(openai.InternalServerError) as unavailable:
            await client.chat.completions.create(**SAY)
        assert unavailable.value.status_code == 503
        assert isinstance(unavailable.value.body, dict)
        assert unavailable.value.body["message"]
    async with client_of(gateway.url + "/nobody") as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(**SAY)
        assert isinstance(unknown.value.body, dict)
        assert "services here: chat" in unknown.value.body["message"]
