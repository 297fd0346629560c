"""Streams of tokens through the real Envoy: what is seen of them, and that nobody else can see that somebody looks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

import aiohttp
import pytest
from envoy_lab import Gateway, openai_routes, table
from openai_lab import LanguageModel, Manner

from graylift.domain.evidence import Outcome, RequestRecord
from graylift.domain.routing import RoutingTable
from graylift.domain.weights import Role

pytestmark = pytest.mark.real
Start: TypeAlias = Callable[[RoutingTable], Awaitable[Gateway]]

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": 'Say "usage": {} and }'}]}
STREAM = {**CHAT, "stream": True}


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


@pytest.mark.parametrize(
    "manner",
    [
        Manner(tokens=2, padding=3 << 19),
        Manner(),
        Manner(cut_events=True),
        Manner(null_usage=False),
        Manner(tokens=0),
        Manner(stop_after=3),
    ],
)
@pytest.mark.parametrize("options", [{}, {"stream_options": None}, {"stream_options": {"include_usage": True}}])
async def test_a_client_gets_the_bytes_it_would_have_got_from_the_server(
    start: Start, old: LanguageModel, manner: Manner, options: dict[str, Any]
) -> None:
    gateway = await start(table(1, openai_routes(old)))
    old.manner = lambda _: manner
    for path, asked in (
        ("/v1/chat/completions", {**STREAM, **options}),
        ("/v1/chat/completions", {**STREAM, **options, "tools": [{"type": "function", "function": {"name": "look"}}]}),
        ("/v1/completions", {"model": "m", "prompt": "Say", "stream": True, **options}),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}),
        ("/v1/completions", {"model": "m", "prompt": ["Say", "it"]}),
        ("/v1/embeddings", {"model": "m", "input": ["a", "b"]}),
        ("/v1/chat/completions", b"no JSON at all"),
    ):
        assert await post(gateway.url, asked, path) == await post(old.url, asked, path)
    assert all(record.output_tokens is not None for record in (await gateway.read_log(8))[3:7])


async def test_each_piece_passes_as_it_comes(start: Start, old: LanguageModel) -> None:
    gateway = await start(table(1, openai_routes(old)))
    old.manner = lambda _: Manner(tokens=4, stall_after=3)
    async with aiohttp.ClientSession() as session, session.post(gateway.url + "/v1/completions", json=STREAM) as answer:
        got = b""
        async with asyncio.timeout(10):
            while got.count(b"\n\n") < 3:
                got += await answer.content.readany()
        assert old.open == 1
        old.go_on.set()
        assert (await answer.read()).endswith(b"data: [DONE]\n\n")


ENDS = [
    # how the stream goes, what the client sees of it, what is counted
    (Manner(stop_after=3), 200, "truncated stream"),
    (Manner(says_finish=False), 200, "no finish reason"),
    (Manner(says_done=False), 200, "no [DONE]"),
    (Manner(error_after=3), 200, "error inside HTTP 200"),
    (Manner(break_after=3), None, "connection reset"),
    (Manner(stall_after=3), None, "silent for too long"),
]


@pytest.mark.parametrize(("manner", "status", "reason"), ENDS)
@pytest.mark.parametrize("asked", [STREAM, {**STREAM, "stream_options": {"include_usage": True}}])
async def test_a_stream_that_does_not_end_well_is_a_failure_with_its_reason(
    start: Start, old: LanguageModel, manner: Manner, status: int | None, reason: str, asked: dict[str, Any]
) -> None:
    gateway = await start(table(1, openai_routes(old, timeout_s=0.5)))
    old.manner = lambda _: manner
    try:
        seen = (await post(gateway.url, asked))[0]
    except aiohttp.ClientError:
        seen = None
    (record,) = await gateway.read_log(1)
    assert seen == status
    assert (record.outcome, record.reason, record.attempts) == (Outcome.FAILED, reason, 1)


async def test_an_error_in_place_of_an_answer_is_a_failure_though_it_says_200(start: Start, old: LanguageModel) -> None:
    gateway = await start(table(1, openai_routes(old)))
    old.manner = lambda _: Manner(error_after=0)
    record = await record_of(gateway, CHAT)
    assert (record.status, record.outcome, record.reason) == (200, Outcome.FAILED, "error inside HTTP 200")


async def test_an_answer_at_its_length_is_no_failure_but_says_so(start: Start, old: LanguageModel) -> None:
    gateway = await start(table(1, openai_routes(old)))
    await post(gateway.url, {"model": "m", "prompt": "Say"}, "/v1/completions")
    (record,) = await gateway.read_log(1)
    assert (record.outcome, record.finish, record.output_tokens, record.ttft_s) == (Outcome.OK, "length", 9, None)


async def test_tokens_are_estimated_by_the_pieces_where_the_server_does_not_count(
    start: Start, old: LanguageModel
) -> None:
    gateway = await start(table(1, openai_routes(old)))
    old.manner = lambda _: Manner(tokens=6, stop_after=5)
    record = await record_of(gateway, STREAM)
    assert (record.output_tokens, record.tokens_estimated, record.input_tokens) == (5, True, None)


async def test_usage_is_asked_for_by_a_change_of_that_alone(start: Start, old: LanguageModel) -> None:
    gateway = await start(table(1, openai_routes(old)))
    wanted = {"include_usage": True}
    odd = {
        "stream": True,
        "b\\": [1, {"stream_options": None, "x": '"}'}],
        "a": "\\\\",
        "c": -1.5e7,
        "d": "é\u2028\\u00e9",
    }
    for options, expected in (
        ({}, wanted),
        ({"stream_options": None}, wanted),
        ({"stream_options": {}}, wanted),
        ({"stream_options": {"include_usage": False}}, wanted),
        ({"stream_options": {"more": [1]}}, {"more": [1], **wanted}),
        ({"stream_options": {"more": [1], "include_usage": None}}, {"more": [1], **wanted}),
    ):
        for layout in ({"separators": (",", ":")}, {"indent": 2}, {"ensure_ascii": False}):
            asked = {"n": 1, **options, **{name: value for name, value in odd.items() if "\\" not in name}}
            await post(gateway.url, json.dumps(asked, **layout).encode())
            assert json.loads(old.bodies[-1]) == {**asked, "stream_options": expected}
    for text in (
        '{"stream": true, "stream_options": {"include_usage": true}}',
        '{"stream": true, "stream": true}',
        '{"stream": true, "stream\\u005foptions": {}}',
        '{"stream": true, "stream_options": 7}',
        '{"stream": true} {}',
        '[{"stream": true}]',
        '{"stream": false}',
        '{"stream": "true"}',
        '{"stream": true',
        "{",
        "",
    ):
        await post(gateway.url, text.encode())
        assert old.bodies[-1] == text.encode()


async def test_a_client_that_leaves_is_nobodys_failure_unless_it_has_seen_the_end_or_an_error(
    start: Start, old: LanguageModel
) -> None:
    gateway = await start(table(1, openai_routes(old)))

    async def leave_after(manner: Manner, seen: bytes) -> Outcome:
        old.manner = lambda _: manner
        before = len(gateway.records)
        async with (
            aiohttp.ClientSession() as session,
            session.post(gateway.url + "/v1/completions", json=STREAM) as answer,
        ):
            got = b""
            while seen not in got:
                got += await answer.content.readany()
            answer.close()
        return (await gateway.read_log(before + 1))[-1].outcome

    assert await leave_after(Manner(stall_after=3), b" w0") is Outcome.ABANDONED
    assert gateway.records[-1].output_tokens == 1  # progress is noted at the first token, and then now and then
    assert await leave_after(Manner(lingers=True), b"[DONE]\n\n") is Outcome.OK
    assert await leave_after(Manner(error_after=3, lingers=True), b"secret words") is Outcome.FAILED


async def test_a_candidate_may_talk_for_long_but_not_be_silent_for_long(
    start: Start, old: LanguageModel, new: LanguageModel
) -> None:
    gateway = await start(table(1, openai_routes(old, new, 10_000, timeout_s=0.4)))
    new.manner = lambda _: Manner(tokens=8, gap_s=0.1)
    record = await record_of(gateway, STREAM)
    assert (record.outcome, record.answered_by) == (Outcome.OK, new.revision_id)
    assert record.duration_s > 0.4
    record = await record_of(gateway, CHAT)
    assert (record.outcome, record.reason, record.status) == (Outcome.FAILED, "timeout", 200)
    assert (record.arm, record.attempts, record.answered_by) == (Role.CANDIDATE, 2, old.revision_id)


async def test_prompts_and_answers_reach_no_log(start: Start, old: LanguageModel) -> None:
    gateway = await start(table(1, openai_routes(old)))
    old.manner = lambda number: Manner(error_after=2) if number else Manner()
    asked = {
        **STREAM,
        "messages": [{"role": "user", "content": "my-secret"}],
        "user": "my-name",
        "metadata": {"a": "my-tag"},
    }
    for _ in range(2):
        await post(gateway.url, asked)
    await gateway.read_log(2)
    said = gateway.log.read_text() + gateway.said
    assert not any(word in said for word in ("my-", "secret", "w0"))


async def test_services_are_told_apart_by_path_and_the_only_one_needs_no_name(
    start: Start, old: LanguageModel, new: LanguageModel
) -> None:
    other = openai_routes(new, split="other/stable")
    one, two = openai_routes(old), replace(other, service="code")
    gateway = await start(table(1, one))
    for path in ("/v1/chat/completions", "/chat/v1/chat/completions", "/chat/v1/chat/completions?a=/completions"):
        assert (await post(gateway.url, CHAT, path))[0] == 200
    await gateway.apply(table(2, one, two))
    assert (await post(gateway.url, CHAT, "/code/v1/chat/completions"))[0] == 200
    status, body = await post(gateway.url, CHAT, "/v1/chat/completions")
    assert status == 404
    assert b"/SERVICE/v1/chat/completions" in body
    assert [len(server.bodies) for server in (old, new)] == [3, 1]


async def test_a_version_that_misbehaves_shows_it_in_its_records(
    start: Start, old: LanguageModel, new: LanguageModel
) -> None:
    gateway = await start(table(1, openai_routes(old, new, 10_000)))
    # One stream in ten is truncated, with HTTP 200.
    new.manner = lambda number: Manner(stop_after=4 if number % 10 == 3 else None)
    for _ in range(20):
        assert (await post(gateway.url, STREAM))[0] == 200
    failed = [record for record in await gateway.read_log(20) if record.outcome is Outcome.FAILED]
    assert [(record.reason, record.arm, record.status) for record in failed] == [
        ("truncated stream", Role.CANDIDATE, 200)
    ] * 2


async def test_a_slower_pace_shows_where_the_first_token_comes_as_soon(
    start: Start, old: LanguageModel, new: LanguageModel
) -> None:
    gateway = await start(table(1, openai_routes(old, new, 5_000)))
    old.manner = lambda _: Manner(tokens=10, first_s=0.05, gap_s=0.02)
    new.manner = lambda _: Manner(tokens=10, first_s=0.05, gap_s=0.04)
    await asyncio.gather(*(post(gateway.url, STREAM) for _ in range(40)))
    paces: dict[Role, list[float]] = {role: [] for role in Role}
    for record in await gateway.read_log(40):
        assert record.tpot_s is not None
        assert record.ttft_s is not None
        assert record.ttft_s >= 0.05
        paces[record.arm].append(record.tpot_s)
    # Ten tokens came in pieces, and the server counts one more: nine gaps in ten times.
    assert min(paces[Role.STABLE]) >= 0.018
    assert min(paces[Role.CANDIDATE]) >= 0.036
