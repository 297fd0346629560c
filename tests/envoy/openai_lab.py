"""A language model without a model: speaks OpenAI, says the same words each time, and can be told to misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from graylift.domain.routing import Backend


@dataclass
class Manner:
    """How one stream goes. Tokens are counted from 0.

    tokens:      how many it has
    first_s, gap_s: before the first one, and between two; an answer that is no stream takes as long
    stop_after:  the stream ends here as if it were whole: no finish reason, no [DONE]
    error_after: an error object comes here in place of a token
    stall_after: nothing comes from here on, until the server is told to go on
    break_after: the connection is reset here
    padding:     bytes that each token is longer by
    lingers:     after all it has to say it keeps the connection open, until it is told to go on
    cut_events:  each event is sent in two pieces
    says_done, says_finish: the two ways in which a stream tells its end
    null_usage:  every chunk of a stream for which usage is asked has the field, as OpenAI's own have
    """

    tokens: int = 8
    first_s: float = 0.0
    gap_s: float = 0.0
    stop_after: int | None = None
    error_after: int | None = None
    stall_after: int | None = None
    break_after: int | None = None
    padding: int = 0
    lingers: bool = False
    cut_events: bool = False
    says_done: bool = True
    says_finish: bool = True
    null_usage: bool = True


class LanguageModel:
    """manner: of the n-th stream. `bodies` are the requests as they came, `seen` their headers."""

    def __init__(self, revision_id: str) -> None:
        self.revision_id = revision_id
        self.manner: Callable[[int], Manner] = lambda _: Manner()
        self.bodies: list[bytes] = []
        self.seen: list[dict[str, str]] = []
        self.streams = 0
        self.open = 0
        self.go_on = asyncio.Event()
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def backend(self) -> Backend:
        return Backend(self.revision_id, f"127.0.0.1:{self.port}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/embeddings", self._asked(self._embeddings))
        app.router.add_post("/v1/completions", self._asked(self._completions))
        app.router.add_post("/v1/chat/completions", self._asked(self._chat))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.go_on.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _asked(self, answer: Callable[[web.Request, dict[str, Any]], Any]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            self.bodies.append(body)
            self.seen.append({name.lower(): value for name, value in request.headers.items()})
            try:
                asked = json.loads(body)
            except ValueError:
                asked = None
            if not isinstance(asked, dict):
                return _json({"error": {"message": "no JSON", "type": "invalid_request_error"}}, 400)
            return await answer(request, asked)

        return handle

    async def _models(self, request: web.Request) -> web.Response:
        del request
        return _json({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "us"}]})

    async def _embeddings(self, request: web.Request, asked: dict[str, Any]) -> web.Response:
        del request
        inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        data = [{"object": "embedding", "index": n, "embedding": [0.25] * 512} for n in range(len(inputs))]
        usage = {"prompt_tokens": 5, "total_tokens": 5}
        return _json({"object": "list", "data": data, "model": "m", "usage": usage})

    async def _completions(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        if asked.get("stream"):
            return await self._stream(request, asked, "text_completion", lambda word: {"text": word})
        manner = self._next()
        choice = {"index": 0, "text": _text(manner), "logprobs": None, "finish_reason": "length"}
        return _json({"id": "cmpl-1", "object": "text_completion", "choices": [choice], "usage": _usage(manner)})

    async def _chat(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        if asked.get("stream"):
            kind = "chat.completion.chunk"
            if "tools" in asked:
                return await self._stream(request, asked, kind, _tool_call, "tool_calls")
            return await self._stream(request, asked, kind, lambda word: {"delta": {"content": word}})
        manner = self._next()
        await asyncio.sleep(manner.first_s + manner.gap_s * manner.tokens)
        if manner.error_after is not None:
            return _json({"error": {"message": "I will not say", "type": "server_error", "code": 1}})
        message: dict[str, Any] = {"role": "assistant", "content": _text(manner)}
        if "tools" in asked:
            call = {
                "id": "call_1",
                "type": "function",
                "function": {"name": "look", "arguments": '{"at":"\\"usage\\""}'},
            }
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        elif asked.get("response_format"):
            message["content"] = '{"usage":{"prompt_tokens":999},"finish_reason":"never"}'
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return _json({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": _usage(manner)})

    def _next(self) -> Manner:
        self.streams += 1
        return self.manner(self.streams - 1)

    async def _stream(
        self,
        request: web.Request,
        asked: dict[str, Any],
        kind: str,
        said: Callable[[str], dict[str, Any]],
        finish: str = "stop",
    ) -> web.StreamResponse:
        manner = self._next()
        answer = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        self.open += 1
        try:
            async for event in self._events(manner, asked, kind, said, finish):
                if event is None:
                    assert request.transport is not None
                    request.transport.abort()
                    return answer
                cut = -9 if manner.cut_events else len(event)
                await answer.write(event[:cut])
                if manner.cut_events:
                    await asyncio.sleep(0.002)
                    await answer.write(event[cut:])
            if manner.lingers:
                await self.go_on.wait()
            await answer.write_eof()
        except ConnectionError:
            pass  # the client has left
        finally:
            self.open -= 1
        return answer

    async def _events(
        self,
        manner: Manner,
        asked: dict[str, Any],
        kind: str,
        said: Callable[[str], dict[str, Any]],
        finish: str,
    ) -> AsyncIterator[bytes | None]:
        """None where the connection breaks."""
        options = asked.get("stream_options")
        wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))

        def chunk(*choices: dict[str, Any], usage: dict[str, Any] | None = None) -> bytes:
            whole = [{"index": 0, "logprobs": None, "finish_reason": None, **choice} for choice in choices]
            document: dict[str, Any] = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "m"}
            document["choices"] = whole
            if usage is not None or (wants_usage and manner.null_usage):
                document["usage"] = usage
            return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"

        if kind == "chat.completion.chunk":
            yield chunk({"delta": {"role": "assistant", "content": ""}})
        for number in range(manner.tokens):
            if number == manner.break_after:
                yield None
            if number == manner.stop_after:
                return
            if number == manner.error_after:
                yield b'data: {"error": {"message": "secret words", "type": "server_error", "code": 500}}\n\n'
                return
            if number == manner.stall_after:
                await self.go_on.wait()
            if delay := manner.gap_s if number else manner.first_s:
                await asyncio.sleep(delay)
            yield chunk(said(_word(number) + "x" * manner.padding))
        if manner.says_finish:
            yield chunk({**({"delta": {}} if "chat" in kind else {"text": ""}), "finish_reason": finish})
        if wants_usage:
            yield chunk(usage=_usage(manner))
        if manner.says_done:
            yield b"data: [DONE]\n\n"


def _word(number: int) -> str:
    # With everything that could be taken for something else.
    return [f" w{number}", ' "usage":null,', "\n\n", " data: [DONE]", ' "finish_reason":"x"', ' {"error":{', "é"][
        number % 7
    ]


def _tool_call(word: str) -> dict[str, Any]:
    return {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": word}}]}}


def _text(manner: Manner) -> str:
    return "".join(map(_word, range(manner.tokens)))


def _usage(manner: Manner) -> dict[str, Any]:
    # One more than there are pieces: a server may send several tokens at once.
    tokens = manner.tokens + 1
    details = {"cached_tokens": 3}
    return {
        "prompt_tokens": 7,
        "prompt_tokens_details": details,
        "completion_tokens": tokens,
        "total_tokens": 7 + tokens,
    }


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(document).encode(), status=status, headers={"content-type": "application/json"})
