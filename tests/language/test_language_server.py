"""The server of a language model as its users meet it: the official client, a real model, a real process."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from language_lab import CONTEXT, STREAMS, Server, start

from graylift.checks.language_boundary import check_language_boundary
from graylift.checks.servers import RunningServer
from graylift.domain.engine import Interface, Manifest
from graylift.domain.release import CheckOutcome

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("language")]

PARIS: Any = [{"role": "user", "content": "What is the capital of France?"}]
LONG: Any = [{"role": "user", "content": "Tell me a long story about a dog and a cat."}]


@pytest.fixture
async def client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as own:
        yield own


@pytest.fixture
async def session(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url) as own:
        yield own


async def counted(session: aiohttp.ClientSession, name: str, **labels: str) -> float:
    """A number of /metrics."""
    async with session.get("/metrics") as answer:
        text = await answer.text()
    for line in text.splitlines():
        if line.startswith(f"{name}{{") and all(f'{label}="{value}"' in line for label, value in labels.items()):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"no {name} with {labels}")


async def test_the_official_client_gets_an_answer_and_its_tokens(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["assistant"]
    answer = await client.chat.completions.create(model="assistant", messages=PARIS, temperature=0, max_tokens=24)
    assert answer.choices[0].finish_reason == "stop"
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert 4 < answer.usage.completion_tokens < 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def test_a_stream_is_the_answer_in_pieces_with_usage_if_it_was_asked_for(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="assistant", messages=PARIS, temperature=0, max_tokens=5)
    pieces = [
        piece
        async for piece in await client.chat.completions.create(
            model="assistant", messages=PARIS, temperature=0, max_tokens=5, stream=True,
            stream_options={"include_usage": True},
        )
    ]  # fmt: skip
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] == "length"
    assert len(pieces) >= 6
    assert pieces[-1].usage == whole.usage


async def test_completions_stop_at_a_text_and_seeds_repeat(client: openai.AsyncOpenAI) -> None:
    stopped = await client.completions.create(
        model="assistant", prompt="1, 2, 3, 4, 5, 6,", temperature=0, max_tokens=24, stop="9"
    )
    assert "8" in stopped.choices[0].text
    assert "9" not in stopped.choices[0].text
    assert stopped.choices[0].finish_reason == "stop"
    drawn = [
        (
            await client.completions.create(
                model="assistant", prompt="Once upon a", temperature=1.2, max_tokens=8, seed=seed
            )
        )
        .choices[0]
        .text
        for seed in (1, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


async def test_what_does_not_fit_the_context_is_refused_before_it_costs_anything(client: openai.AsyncOpenAI) -> None:
    for messages, max_tokens in (
        (PARIS, CONTEXT),
        ([{"role": "user", "content": "dog " * 100_000}], 1),
        (PARIS * 2000, 1),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="assistant", messages=messages, max_tokens=max_tokens)
        assert caught.value.code == "context_length_exceeded"
        assert f"context is {CONTEXT} tokens" in str(caught.value)
    with pytest.raises(openai.NotFoundError, match="serves 'assistant'"):
        await client.chat.completions.create(model="gpt-5", messages=PARIS)


async def test_the_id_of_a_request_comes_back_with_its_answer(session: aiohttp.ClientSession) -> None:
    document = {"model": "assistant", "messages": PARIS, "max_tokens": 1, "stream": True}
    async with session.post("/v1/chat/completions", json=document, headers={"x-request-id": "r-7"}) as answer:
        assert (answer.status, answer.headers["x-request-id"]) == (200, "r-7")
        assert (await answer.text()).endswith("data: [DONE]\n\n")


async def test_more_answers_than_streams_wait_and_all_come(
    client: openai.AsyncOpenAI, session: aiohttp.ClientSession
) -> None:
    before = await counted(session, "graylift_answers_total", finish="length")
    answers = await asyncio.gather(
        *(
            client.chat.completions.create(model="assistant", messages=LONG, temperature=0, max_tokens=4)
            for _ in range(STREAMS + 2)
        )
    )
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    assert await counted(session, "graylift_answers_total", finish="length") == before + STREAMS + 2
    assert await counted(session, "gen_ai_server_time_per_output_token_seconds_count") > 0


async def test_a_client_that_leaves_frees_its_stream(session: aiohttp.ClientSession) -> None:
    before = await counted(session, "graylift_requests_failed_total", reason="CANCELED")
    document = {"model": "assistant", "messages": LONG, "max_tokens": 400, "stream": True}
    async with session.post("/v1/chat/completions", json=document) as answer:
        await answer.content.readuntil(b"\n\n")
        assert await counted(session, "graylift_streams_running") == 1
        answer.close()
    while await counted(session, "graylift_streams_running"):
        await asyncio.sleep(0.01)
    assert await counted(session, "graylift_requests_failed_total", reason="CANCELED") == before + 1


async def test_the_boundary_check_finds_nothing_wrong_with_it(server: Server) -> None:
    running = RunningServer("q8", "assistant", server.url, Interface((), ()), (), None, None)
    result = await check_language_boundary(running, "assistant")
    assert result.outcome is CheckOutcome.PASS, "\n".join((result.sentence, *result.evidence))


async def test_streams_that_run_are_finished_when_it_is_told_to_end(
    artefacts: Path, engine: Manifest, tmp_path: Path
) -> None:
    server = start(artefacts, engine, tmp_path / "server.log", "--max-queue", "0")
    try:
        async with aiohttp.ClientSession(server.url) as session:
            document = {"model": "assistant", "messages": LONG, "max_tokens": 40, "stream": True}
            async with session.post("/v1/chat/completions", json=document) as answer:
                await answer.content.readuntil(b"\n\n")
                ending = asyncio.create_task(server.stopped())
                text = (await answer.read()).decode()
            reasons = re.findall(r'"finish_reason":"(\w+)"', text)
            assert reasons in (["length"], ["stop"])
            assert text.endswith("data: [DONE]\n\n")
        assert await ending == 0
    finally:
        server.process.kill()
        server.process.wait()


def test_an_engine_of_another_kind_or_a_longer_context_is_refused_with_the_reason(
    artefacts: Path, engine: Manifest
) -> None:
    command = [sys.executable, "-m", "graylift.serve", "--artefacts", str(artefacts), "--artefact", engine.digest,
               "--service", "a", "--revision", "a.v.1", "--port", "0", "--context-length", "9000"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "a context of 9,000 tokens is asked for, and the model was made for 8,192" in done.stderr


def test_an_error_inside_of_a_body_is_told_in_the_form_of_the_api(server: Server) -> None:
    curl = ["curl", "-s", f"{server.url}/v1/chat/completions", "-d", '{"model": "assistant", "messages": "\\ud83d"}']
    document = json.loads(subprocess.run(curl, capture_output=True, check=True, timeout=20).stdout)
    assert document["error"]["type"] == "invalid_request_error"
