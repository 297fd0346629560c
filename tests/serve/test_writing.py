"""The front of a language engine when its engine fails, is busy or has nothing to say: over ASGI, without a process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from graylift.engine.artefacts import ArtefactStore
from graylift.engine.language import LanguageSettings, Tell
from graylift.errors import EngineError, InputError
from graylift.protocols.language import Finish, Message, Piece, Sampling
from graylift.protocols.sse import EventReader
from graylift.serve.inference import Stage
from graylift.serve.options import Options, options_from_arguments
from graylift.serve.writing import LanguageFront

SETTINGS = LanguageSettings(threads=1, context_length=64, max_streams=2)
OPTIONS: Options = options_from_arguments(
    ["--artefacts", "none", "--artefact", "0" * 64, "--service", "assistant", "--revision", "assistant.v1.0",
     "--port", "0", "--context-length", "64", "--max-queue", "3"]
)  # fmt: skip
HI = {"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}


class Script:
    """A `LanguageRunner` that tells what it is given, at once; a token is a byte."""

    longest_token_bytes = 1
    vocabulary = 256

    def __init__(self, *told: Piece | EngineError) -> None:
        self.told = told
        self.failure: str | None = None
        self.running = 0
        self.waiting = 0
        self.asked: list[tuple[list[int], Sampling]] = []

    def prompt_from_messages(self, messages: Sequence[Message]) -> str:
        if messages[0].content == "refuse":
            raise InputError("the model's chat template refuses these messages: roles must alternate")
        return "".join(message.content for message in messages)

    def tokens_from_text(self, text: str) -> list[int]:
        return list(text.encode())

    def answer(self, prompt: Sequence[int], sampling: Sampling, tell: Tell) -> Script:
        self.asked.append((list(prompt), sampling))
        for piece in self.told:
            tell(piece)
        return self

    def cancel(self) -> None: ...

    def log_probabilities(self, tokens: Sequence[int]) -> list[float]:
        return [0.0 for _ in tokens[1:]]

    def close(self) -> None: ...


async def front_of(runner: Script) -> LanguageFront:
    """Ready."""

    def load(store: ArtefactStore, digest: str, settings: LanguageSettings) -> Script:
        return runner

    told, runner.told = runner.told, (Piece("x", 1, Finish.LENGTH),)
    front = LanguageFront(OPTIONS, SETTINGS, load)
    await front.start()
    front.stage, runner.told = Stage.READY, told
    runner.asked.clear()
    return front


async def ask(
    front: LanguageFront, document: object, path: str = "/v1/chat/completions"
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body. The client stays until the end."""
    sent: list[Any] = []
    body = [{"type": "http.request", "body": orjson.dumps(document)}]

    async def receive() -> Any:
        if not body:
            await asyncio.Event().wait()
        return body.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    await front({"method": "POST", "path": path, "headers": []}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message["body"] for message in sent[1:])


WORDS = (Piece("Hel", 1), Piece("lo", 2), Piece("", 1, Finish.STOP))


async def test_an_answer_counts_every_token_those_without_text_too() -> None:
    runner = Script(*WORDS)
    status, _, body = await ask(await front_of(runner), {**HI, "temperature": 0})
    document = orjson.loads(body)
    assert (status, document["choices"][0]["message"]["content"]) == (200, "Hello")
    assert document["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    ((prompt, sampling),) = runner.asked
    assert prompt == list(b"hi")
    assert sampling == Sampling(max_tokens=62, temperature=0.0)


async def test_an_engine_that_fails_before_its_first_piece_is_an_error_with_its_status() -> None:
    for document in (HI, {**HI, "stream": True}):
        status, _, body = await ask(await front_of(Script(EngineError("the engine failed"))), document)
        assert (status, orjson.loads(body)["error"]["message"]) == (500, "the engine failed")


async def test_an_engine_that_fails_in_a_stream_says_so_inside_and_does_not_end_it_as_a_whole_one() -> None:
    _, _, body = await ask(await front_of(Script(WORDS[0], EngineError("it failed"))), {**HI, "stream": True})
    events = EventReader().feed(body)
    assert orjson.loads(events[-1])["error"]["message"] == "it failed"
    assert b"[DONE]" not in events


async def test_a_queue_that_is_full_sends_the_next_one_away_for_a_while() -> None:
    runner = Script(*WORDS)
    front = await front_of(runner)
    runner.running, runner.waiting = 2, 3
    status, headers, body = await ask(front, HI)
    assert (status, headers[b"retry-after"]) == (503, b"1")
    assert orjson.loads(body)["error"]["type"] == "service_unavailable"
    assert runner.asked == []


async def test_an_engine_that_is_not_to_be_trusted_any_more_is_not_ready() -> None:
    runner = Script(*WORDS)
    front = await front_of(runner)
    runner.failure = "it failed in a step"
    for path in ("/v1/chat/completions", "/v1/completions"):
        status, _, body = await ask(front, HI, path)
        assert (status, orjson.loads(body)["error"]["message"]) == (503, "it failed in a step")


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"messages": [{"role": "user", "content": "refuse"}]}, 400, None),
        ({"messages": [{"role": "user", "content": "x" * 65}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 64}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": ""}] * 65}, 400, "messages"),
        ({"max_tokens": 63}, 400, "messages"),
        ({"model": "other"}, 404, "model"),
    ],
    ids=["template", "long for certain", "no room", "messages", "max_tokens", "model"],
)
async def test_what_cannot_be_answered_is_refused_before_the_engine_hears_of_it(
    changes: dict[str, object], status: int, param: str | None
) -> None:
    runner = Script(*WORDS)
    answered, _, body = await ask(await front_of(runner), {**HI, **changes})
    assert (answered, orjson.loads(body)["error"]["param"]) == (status, param)
    assert runner.asked == []


async def test_tokens_that_the_model_does_not_know_are_refused() -> None:
    runner = Script(*WORDS)
    front = await front_of(runner)
    assert (await ask(front, {"model": "assistant", "prompt": [255, 256]}, "/v1/completions"))[0] == 400
    assert (await ask(front, {"model": "assistant", "prompt": [255, 0]}, "/v1/completions"))[0] == 200
    assert [prompt for prompt, _ in runner.asked] == [[255, 0]]
