"""The checks of language models against servers with known faults: OpenAI's API, written by hand, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from graylift.checks.conversations import QUESTIONS, chat_request
from graylift.checks.language_boundary import check_language_boundary
from graylift.checks.language_performance import check_language_performance
from graylift.checks.servers import RunningServer
from graylift.domain.engine import Interface
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import PerformanceCheck
from graylift.errors import ProtocolError
from graylift.protocols import openai, sse
from graylift.protocols.language import Finish, Message, Usage
from graylift.protocols.openai import ChatRequest, Heading

CONTEXT = 10_000


@dataclass(slots=True)
class Writer:
    """A server of the API that says "word" over and over; a word is a token.

    first_s, token_s: how long it takes for the first token, and for each one after it
    drops: the role of the messages that its template leaves out
    refuse: what it answers to a request that is wrong
    breaks: streams end after so many tokens, without their end
    """

    first_s: float = 0.0
    token_s: float = 0.0
    drops: str = ""
    breaks: int | None = None
    refuse: Callable[[ProtocolError], web.Response] = field(
        default=lambda exc: web.Response(
            status=exc.status, body=openai.error_document(str(exc), exc.status, exc.param, exc.code)
        )
    )

    async def write(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = openai.chat_request_from_body(await request.read())
            prompt = sum(len(m.content.split()) for m in self._kept(asked.messages))
            wanted = asked.sampling.max_tokens or 16
            if prompt + wanted > CONTEXT or len(asked.messages) > CONTEXT:
                raise ProtocolError("too long")
        except ProtocolError as exc:
            return self.refuse(exc)
        heading = Heading("1", asked.model, 0, "fp")
        if not asked.stream:
            usage = Usage(prompt, wanted)
            return web.Response(body=openai.chat_answer(heading, "word " * wanted, Finish.LENGTH, usage))
        return await self._stream(request, asked, heading, Usage(prompt, wanted))

    def _kept(self, messages: tuple[Message, ...]) -> list[Message]:
        return [message for message in messages if message.role != self.drops]

    async def _stream(
        self, request: web.Request, asked: ChatRequest, heading: Heading, usage: Usage
    ) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        first, chunk = openai.chat_chunks(heading, usage=asked.usage)
        await answer.write(sse.event(first))
        for number in range(usage.answer):
            if number == self.breaks:
                return answer
            await asyncio.sleep(self.token_s if number else self.first_s)
            await answer.write(sse.event(chunk("word ", None)))
        last = openai.usage_chunk(heading, "chat.completion.chunk", usage)
        await answer.write(b"".join(map(sse.event, (chunk("", Finish.LENGTH), last, sse.DONE))))
        return answer


@asynccontextmanager
async def serving(name: str, writer: Writer) -> AsyncIterator[Any]:
    async def models(_: web.Request) -> web.Response:
        return web.Response(body=openai.models_document("assistant", 0, CONTEXT))

    app = web.Application(client_max_size=2**26)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", writer.write)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield RunningServer(name, "assistant", url, Interface((), ()), (), None, None)
    finally:
        await runner.cleanup()


async def boundary_of(writer: Writer) -> CheckResult:
    async with serving("v2", writer) as server:
        return await check_language_boundary(server, "assistant")


async def test_a_server_that_refuses_what_is_wrong_passes() -> None:
    result = await boundary_of(Writer())
    assert result.outcome is CheckOutcome.PASS, "\n".join((result.sentence, *result.evidence))


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
async def test_a_chat_template_that_leaves_messages_out_is_found_by_the_tokens_it_makes(role: str) -> None:
    result = await boundary_of(Writer(drops=role))
    assert result.outcome is CheckOutcome.FAIL
    assert f"a long message of the {role}" in result.sentence
    assert "the chat template leaves it out" in result.sentence


async def test_a_wrong_request_that_makes_the_server_fail_is_a_finding() -> None:
    result = await boundary_of(Writer(refuse=lambda _: web.Response(status=500, text="KeyError")))
    assert result.outcome is CheckOutcome.FAIL
    assert "HTTP 500, where a refusal is a 4xx" in result.sentence


async def test_a_refusal_in_another_form_than_clients_read_is_a_finding() -> None:
    result = await boundary_of(Writer(refuse=lambda _: web.json_response({"oops": 1}, status=422)))
    assert "without an error in OpenAI's form" in result.sentence


async def performance_of(stable: Writer, candidate: Writer, **limits: Any) -> CheckResult:
    requests = [chat_request("assistant", [("user", text)], 8) for text in QUESTIONS]
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving("v1", stable))
        second = await stack.enter_async_context(serving("v2", candidate))
        spec = PerformanceCheck(duration_s=1.0, **limits)
        return await check_language_performance(spec, first, second, requests)


async def test_tokens_that_come_half_as_fast_fail_with_both_numbers() -> None:
    result = await performance_of(Writer(token_s=0.01), Writer(token_s=0.03))
    assert result.outcome is CheckOutcome.FAIL, result.sentence
    assert "v2's p50 of the time per token" in result.sentence
    assert "limit 1.50x" in result.sentence


async def test_a_late_first_token_fails_though_the_pace_is_the_same() -> None:
    result = await performance_of(Writer(first_s=0.03, token_s=0.005), Writer(first_s=0.12, token_s=0.005))
    assert result.outcome is CheckOutcome.FAIL, result.sentence
    assert "v2's p50 of the time to first token" in result.sentence


async def test_two_of_one_pace_pass_or_stay_open_and_never_fail() -> None:
    result = await performance_of(Writer(0.03, 0.01), Writer(0.03, 0.01), min_throughput_ratio=0.5)
    assert result.outcome is not CheckOutcome.FAIL, result.sentence


async def test_a_stream_that_breaks_off_is_a_failed_request_of_its_side() -> None:
    broken = Writer(breaks=3)
    result = await performance_of(Writer(), broken)
    assert (result.outcome, "without [DONE]" in result.sentence) == (CheckOutcome.FAIL, True)
    result = await performance_of(broken, Writer())
    assert result.outcome is CheckOutcome.INCONCLUSIVE
