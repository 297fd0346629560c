"""The front of a language engine: OpenAI's API, each answer as a stream of pieces or in one.

The event loop parses and renders; templates and tokens are made in a thread of their own, for a prompt of thousands of
messages takes a while; the engine writes in its own. A client that leaves ends its answer at once. Nothing of an answer
is sent before its first piece is there, so what fails before it has a status of its own.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

import orjson

from graylift.engine.artefacts import ArtefactStore
from graylift.engine.language import LanguageRunner, LanguageSettings
from graylift.engine.load import load_language_engine
from graylift.errors import EngineError, InputError, ProtocolError
from graylift.protocols import openai, sse
from graylift.protocols.language import Finish, Piece, Sampling, Usage
from graylift.protocols.openai import ChatRequest, CompletionRequest, Heading
from graylift.serve.http import CLOSE, JSON, Header, Receive, Scope, Send, answer, answer_early, read_body
from graylift.serve.inference import Stage
from graylift.serve.language_metrics import LanguageMetrics
from graylift.serve.metrics import CONTENT_TYPE
from graylift.serve.options import Options

log = logging.getLogger(__name__)

_BODY_TIMEOUT_S = 60.0
_RETRY_AFTER: Header = (b"retry-after", b"1")
_EVENTS: Header = (b"content-type", sse.CONTENT_TYPE)
_REQUEST_ID = b"x-request-id"
_WARM_TOKENS = 16
_WARM = "Warming up: the first run allocates, pages in and chooses kernels."


Load = Callable[[ArtefactStore, str, LanguageSettings], LanguageRunner]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request whose prompt is known to fit, and when its body was whole."""

    request: ChatRequest | CompletionRequest
    prompt: list[int]
    sampling: Sampling
    began_s: float


class LanguageFront:
    """A `Front`. settings: how the engine is run; load: what makes a runner of an artefact"""

    def __init__(self, options: Options, settings: LanguageSettings, load: Load = load_language_engine) -> None:
        self.stage = Stage.STARTING
        self._options = options
        self._settings = settings
        self._load = load
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        self._metrics = LanguageMetrics(options.service, options.version)
        self._runner: LanguageRunner | None = None
        self._created_s = int(time.time())
        self._fingerprint = f"fp_{options.artefact[:12]}"

    @property
    def running(self) -> int:
        return 0 if self._runner is None else self._runner.running

    @property
    def waiting(self) -> int:
        return 0 if self._runner is None else self._runner.waiting

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        store = ArtefactStore(self._options.artefacts)
        runner = await loop.run_in_executor(self._pool, self._load, store, self._options.artefact, self._settings)
        self._runner = runner
        log.info(
            "loaded: %s, context of %d tokens, %d streams, in %.2f s",
            self._options.artefact,
            self._settings.context_length,
            self._settings.max_streams,
            time.monotonic() - began,
        )
        first_s, last_s = [await self._warmed(runner) for _ in range(2)]
        log.info("warmed: 2 answers, first %.1f ms, last %.1f ms", first_s * 1e3, last_s * 1e3)

    async def _warmed(self, runner: LanguageRunner) -> float:
        """As many answers at once as there are streams, and how long they took."""
        began = time.monotonic()
        prompt = runner.tokens_from_text(_WARM)[: self._settings.context_length // 2]
        sampling = Sampling(min(_WARM_TOKENS, self._settings.context_length - len(prompt)), temperature=0.0)

        async def one() -> None:
            async with aclosing(_pieces(runner, prompt, sampling)) as pieces:
                async for _ in pieces:
                    pass

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._settings.max_streams, 4)):
                tasks.create_task(one())
        return time.monotonic() - began

    # ---- requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        if _REQUEST_ID in headers:
            send = _with_header(send, (_REQUEST_ID, headers[_REQUEST_ID]))
        model = self._options.service
        match scope["path"].split("/")[1:]:
            case ["metrics"]:
                text = self._metrics.text(waiting=self.waiting, running=self.running)
                await self._get(scope, send, 200, text, (b"content-type", CONTENT_TYPE))
            case ["v2", "health", "live"]:
                await self._get(scope, send, 200, orjson.dumps({"live": True}))
            case ["v2", "health", "ready"]:
                ready = self._why_not_ready() is None
                await self._get(scope, send, 200 if ready else 503, orjson.dumps({"ready": ready, "live": True}))
            case ["v1", "models"]:
                await self._models(scope, send, openai.models_document)
            case ["v1", "models", name] if name == model:
                await self._models(scope, send, openai.model_document)
            case ["v1", "models", _]:
                await self._error(send, _no_such_model(model))
            case ["v1", "chat", "completions"]:
                await self._ask(openai.chat_request_from_body, scope, headers, receive, send)
            case ["v1", "completions"]:
                await self._ask(openai.completion_request_from_body, scope, headers, receive, send)
            case _:
                sentence = "nothing here; there are /v1/chat/completions, /v1/completions and /v1/models"
                await self._error(send, ProtocolError(f"{scope['path'][:100]!r}: {sentence}", 404))

    async def _models(self, scope: Scope, send: Send, document: Callable[[str, int, int], bytes]) -> None:
        # Whoever serves OpenAI's API says by this path whether it is ready.
        why_not = self._why_not_ready()
        if why_not is not None:
            await self._error(send, ProtocolError(why_not, 503), _RETRY_AFTER)
            return
        text = document(self._options.service, self._created_s, self._settings.context_length)
        await self._get(scope, send, 200, text)

    async def _ask(
        self,
        read: Callable[[bytes], ChatRequest | CompletionRequest],
        scope: Scope,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        if scope["method"] != "POST":
            refusal = ProtocolError(f"{scope['method']} is not for this path; POST a request", 405)
            await self._error(send, refusal, (b"allow", b"POST"))
            return
        try:
            body = await read_body(headers, receive, self._options.max_body_bytes, _BODY_TIMEOUT_S)
        except ProtocolError as exc:
            self._metrics.failed("OTHER")
            await answer_early(receive, send, exc.status, openai.error_document(str(exc), exc.status), JSON)
            return
        if body is None:
            self._metrics.failed("CANCELED")
            return
        began_s = time.perf_counter()
        runner = self._runner
        why_not = self._why_not_ready(draining_too=False)
        if runner is None or why_not is not None:
            self._metrics.failed("REJECTED")
            await self._error(send, ProtocolError(why_not or "the model is not ready yet", 503), _RETRY_AFTER)
            return
        try:
            asked = await self._understood(runner, read(body), began_s)
        except (ProtocolError, InputError) as exc:
            self._metrics.failed("OTHER")
            await self._error(send, exc)
            return
        if runner.running + runner.waiting >= self._settings.max_streams + self._options.max_queue:
            self._metrics.failed("REJECTED")
            waiting = f"the model is busy and {runner.waiting} requests wait already, as many as may (--max-queue)"
            await self._error(send, ProtocolError(f"{waiting}; try again later", 503), _RETRY_AFTER)
            return
        await self._written(runner, asked, receive, send)

    async def _understood(
        self, runner: LanguageRunner, request: ChatRequest | CompletionRequest, began_s: float
    ) -> _Asked:
        """ProtocolError or InputError if it cannot be answered."""
        if request.model != self._options.service:
            raise _no_such_model(self._options.service)
        context = self._settings.context_length
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(self._pool, _prompt, runner, request, context)
        room = context - len(prompt)
        wanted = request.sampling.max_tokens
        if room < 1 or (wanted is not None and wanted > room):
            answer_tokens = "" if wanted is None else f" and asks for up to {wanted:,} more (max_tokens)"
            raise _too_long(context, f"the prompt has {len(prompt):,}{answer_tokens}")
        return _Asked(request, prompt, replace(request.sampling, max_tokens=wanted or room), began_s)

    async def _written(self, runner: LanguageRunner, asked: _Asked, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(self._write(runner, asked, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not writing.done():
                writing.cancel()
                self._metrics.failed("CANCELED")
            with suppress(asyncio.CancelledError):
                await writing

    async def _write(self, runner: LanguageRunner, asked: _Asked, send: Send) -> None:
        """The whole answer, or its stream."""
        request = asked.request
        kind = "chatcmpl" if isinstance(request, ChatRequest) else "cmpl"
        heading = Heading(f"{kind}-{secrets.token_hex(12)}", request.model, int(time.time()), self._fingerprint)
        stream = _Stream(send, request, heading, self._closing_headers) if request.stream else None
        texts: list[str] = []
        tokens, first_s = 0, 0.0
        try:
            async with aclosing(_pieces(runner, asked.prompt, asked.sampling)) as pieces:
                async for piece in pieces:
                    first_s = first_s or time.perf_counter() - asked.began_s
                    tokens += piece.tokens
                    if piece.finish is not None:
                        usage = Usage(len(asked.prompt), tokens)
                        self._metrics.answered(usage, piece.finish, first_s, time.perf_counter() - asked.began_s)
                    if stream is not None:
                        await stream.send(piece, tokens, len(asked.prompt))
                    else:
                        texts.append(piece.text)
                        if piece.finish is not None:
                            await self._whole(send, request, heading, "".join(texts), piece.finish, tokens, asked)
        except EngineError as exc:
            self._metrics.failed("BACKEND")
            log.warning("%s", exc)
            if stream is not None and stream.began:
                await stream.broken(str(exc))
            else:
                await self._error(send, exc)

    async def _whole(
        self,
        send: Send,
        request: ChatRequest | CompletionRequest,
        heading: Heading,
        text: str,
        finish: Finish,
        tokens: int,
        asked: _Asked,
    ) -> None:
        render = openai.chat_answer if isinstance(request, ChatRequest) else openai.completion_answer
        await self._answer(send, 200, render(heading, text, finish, Usage(len(asked.prompt), tokens)), JSON)

    # ---- answers

    def _why_not_ready(self, *, draining_too: bool = True) -> str | None:
        if self._runner is not None and self._runner.failure is not None:
            return self._runner.failure
        if self.stage is Stage.STARTING:
            return "the model is not ready yet"
        if self.stage is Stage.DRAINING and draining_too:
            return "this server is about to end"
        return None

    def _closing_headers(self) -> tuple[Header, ...]:
        return (CLOSE,) if self.stage is Stage.DRAINING else ()

    async def _get(self, scope: Scope, send: Send, status: int, document: bytes, kind: Header = JSON) -> None:
        if scope["method"] in ("GET", "HEAD"):
            await self._answer(send, status, document, kind)
        else:
            refusal = ProtocolError(f"{scope['method']} is not for this path; GET it", 405)
            await self._error(send, refusal, (b"allow", b"GET, HEAD"))

    async def _error(self, send: Send, exc: EngineError | ProtocolError, *headers: Header) -> None:
        status, param, code = 500, None, None
        if isinstance(exc, ProtocolError):
            status, param, code = exc.status, exc.param, exc.code
        elif isinstance(exc, InputError):
            status = 400
        await self._answer(send, status, openai.error_document(str(exc), status, param, code), JSON, *headers)

    async def _answer(self, send: Send, status: int, body: bytes, *headers: Header) -> None:
        await answer(send, status, body, *headers, *self._closing_headers())


class _Stream:
    """One answer, sent as events."""

    def __init__(
        self,
        send: Send,
        request: ChatRequest | CompletionRequest,
        heading: Heading,
        closing: Callable[[], tuple[Header, ...]],
    ) -> None:
        self.began = False
        self._send = send
        self._heading = heading
        self._usage = request.usage
        self._closing = closing
        if isinstance(request, ChatRequest):
            self._kind = "chat.completion.chunk"
            first, self._chunk = openai.chat_chunks(heading, usage=request.usage)
            self._pending = sse.event(first)
        else:
            self._kind = "text_completion"
            self._chunk = openai.completion_chunks(heading, usage=request.usage)
            self._pending = b""

    async def send(self, piece: Piece, tokens: int, prompt: int) -> None:
        """tokens: of the answer so far; prompt: tokens of the prompt"""
        events, self._pending = self._pending, b""
        if not self.began:
            self.began = True
            headers = [_EVENTS, (b"cache-control", b"no-cache"), *self._closing()]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        if piece.text:
            events += sse.event(self._chunk(piece.text, None))
        if piece.finish is not None:
            events += sse.event(self._chunk("", piece.finish))
            if self._usage:
                events += sse.event(openai.usage_chunk(self._heading, self._kind, Usage(prompt, tokens)))
            events += sse.event(sse.DONE)
        await self._send({"type": "http.response.body", "body": events, "more_body": piece.finish is None})

    async def broken(self, why: str) -> None:
        """An error inside of the stream, without the end that a whole answer has."""
        events = sse.event(openai.error_document(why, 500))
        await self._send({"type": "http.response.body", "body": events, "more_body": False})


async def _pieces(runner: LanguageRunner, prompt: list[int], sampling: Sampling) -> AsyncGenerator[Piece]:
    """An answer as it is written; whoever leaves early ends it. EngineError if the engine fails."""
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[Piece | EngineError] = asyncio.Queue()  # bounded by max_tokens

    def tell(piece: Piece | EngineError) -> None:
        with suppress(RuntimeError):  # the loop is gone: nobody waits
            loop.call_soon_threadsafe(told.put_nowait, piece)

    answering = runner.answer(prompt, sampling, tell)
    try:
        while True:
            piece = await told.get()
            if isinstance(piece, EngineError):
                raise piece
            yield piece
            if piece.finish is not None:
                return
    finally:
        answering.cancel()


def _prompt(runner: LanguageRunner, request: ChatRequest | CompletionRequest, context: int) -> list[int]:
    """In the thread for prompts. What is too long for certain is refused before it is looked at closely."""
    if isinstance(request, ChatRequest):
        size = sum(len(message.content.encode()) for message in request.messages)
        _refuse_too_long(runner, context, size, len(request.messages))
        return runner.tokens_from_text(runner.prompt_from_messages(request.messages))
    if isinstance(request.prompt, str):
        _refuse_too_long(runner, context, len(request.prompt.encode()), 1)
        return runner.tokens_from_text(request.prompt)
    known = runner.vocabulary
    if any(token >= known for token in request.prompt):
        raise ProtocolError(f"prompt: this model knows tokens from 0 to {known - 1}", param="prompt")
    return list(request.prompt)


def _refuse_too_long(runner: LanguageRunner, context: int, size_bytes: int, messages: int) -> None:
    if messages > context:
        raise _too_long(context, f"the request has {messages:,} messages, each of at least one")
    if (least := size_bytes // runner.longest_token_bytes) > context:
        raise _too_long(context, f"the prompt has {least:,} or more")


def _too_long(context: int, found: str) -> ProtocolError:
    sentence = f"this model's context is {context:,} tokens, for prompt and answer together, and {found}"
    return ProtocolError(f"{sentence}; send less", param="messages", code="context_length_exceeded")


def _no_such_model(model: str) -> ProtocolError:
    return ProtocolError(
        f"no such model here; this server serves {model!r}", 404, param="model", code="model_not_found"
    )


def _with_header(send: Send, header: Header) -> Send:
    async def sending(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], header]}
        await send(message)

    return sending


async def _left(receive: Receive) -> None:
    """Returns once the client has closed its connection. To be awaited after the body was read, until an answer."""
    while (await receive())["type"] != "http.disconnect":
        pass
