"""What happens to one request: route, body, turn, inference, answer. A raw ASGI application.

The event loop parses and renders; inference runs in the threads of `pool`, each request in its turn (`line`).
Knows nothing of processes and signals; `server` sets `stage` and `model`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor
from enum import Enum
from importlib import metadata
from typing import assert_never

import orjson

from graylift.errors import EngineError, InputError, NotComputable, ProtocolError
from graylift.protocols.datatypes import Tensor
from graylift.protocols.open_inference import (
    BINARY_HEADER,
    InferenceRequest,
    body_from_outputs,
    error_document,
    model_metadata,
    request_from_body,
    server_metadata,
    unknown_output,
)
from graylift.serve.http import (
    BINARY,
    BODY_TIMEOUT_S,
    CLOSE,
    JSON,
    Header,
    Receive,
    Scope,
    Send,
    answer,
    answer_early,
    left,
    read_body,
)
from graylift.serve.line import Line, Turn
from graylift.serve.model import ServedModel
from graylift.serve.shapes import ShapeCounts

log = logging.getLogger(__name__)

_RETRY_AFTER: Header = (b"retry-after", b"1")


class Stage(Enum):
    """STARTING: loads or warms up. READY. DRAINING: told to end; answers what still comes, and asks for no more."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class App:
    """The application. `model` is None until it is loaded."""

    def __init__(
        self,
        service: str,
        version: str,
        line: Line,
        pool: Executor,
        *,
        max_body_bytes: int,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self.stage = Stage.STARTING
        self.model: ServedModel | None = None
        self._service = service
        self._version = version
        self._line = line
        self._pool = pool
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._failures: Counter[str] = Counter()
        self._shapes = ShapeCounts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["path"].split("/")[1:]:
            case ["v2"]:
                await self._get(scope, send, 200, server_metadata("graylift", metadata.version("graylift")))
            case ["v2", "health", "live"]:
                await self._get(scope, send, 200, orjson.dumps({"live": True}))
            case ["v2", "health", "ready"]:
                # The specification calls the field "live" here, everybody else "ready".
                ready = self.stage is Stage.READY
                await self._get(scope, send, 200 if ready else 503, orjson.dumps({"ready": ready, "live": True}))
            case ["v2", "models", name, "versions", version, *action] if self._is_ours(name, version):
                await self._model(action, scope, receive, send)
            case ["v2", "models", name, *action] if action[:1] != ["versions"] and self._is_ours(name, self._version):
                await self._model(action, scope, receive, send)
            case ["v2", "models", _, *_]:
                ours = f"{self._service!r}, version {self._version!r}"
                await self._error(send, 404, f"no such model here: {scope['path'][:100]!r}; this server serves {ours}")
            case _:
                await self._not_found(scope, send)

    def _is_ours(self, name: str, version: str) -> bool:
        return (name, version) == (self._service, self._version)

    async def _model(self, action: list[str], scope: Scope, receive: Receive, send: Send) -> None:
        match action:
            case ["infer"]:
                await self._infer(scope, receive, send)
            case ["ready"]:
                ready = self.stage is Stage.READY
                document = orjson.dumps({"name": self._service, "ready": ready})
                await self._get(scope, send, 200 if ready else 503, document)
            case ["shapes"]:  # not of the protocol: what `graylift profile suggest` goes by
                await self._get(scope, send, 200, self._shapes.document())
            case []:
                if self.model is None:
                    await self._error(send, 503, "the model is still loading", _RETRY_AFTER)
                    return
                document = model_metadata(self._service, self._version, self.model.platform, self.model.interface)
                await self._get(scope, send, 200, document)
            case _:
                await self._not_found(scope, send)

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._error(send, 405, f"{scope['method']} is not for /infer; POST a request", (b"allow", b"POST"))
            return
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        try:
            body = await read_body(headers, receive, self._max_body_bytes, self._body_timeout_s)
        except ProtocolError as exc:
            await answer_early(receive, send, exc.status, error_document(str(exc)), JSON)
            return
        if body is None:
            return
        if self.model is None or self.stage is Stage.STARTING:
            await self._error(send, 503, "the model is not ready yet", _RETRY_AFTER)
            return
        try:
            request = request_from_body(body, _json_length(headers))
            _check_outputs(request, self.model)
            turn = self._line.join()
            if turn is None:
                waiting = f"{self._line.waiting} requests wait already, as many as may (--max-queue)"
                await self._error(send, 503, f"the model is busy and {waiting}; try again later", _RETRY_AFTER)
                return
            outputs = await self._in_turn(turn, self.model, request, receive)
            if outputs is None:
                return
            self._shapes.add(request.inputs, self.model.own_inputs)
            reply = body_from_outputs(request, outputs, model=self._service, version=self._version)
        except ProtocolError as exc:
            await self._error(send, exc.status, str(exc))
        except InputError as exc:
            await self._error(send, 400, str(exc))
        except NotComputable as exc:
            # Not 400: the request follows interface and protocol, another revision may well answer it, and the gateway
            # asks stable again when a candidate says this. Not 500: the server is well.
            self._count_failure(str(exc))
            await self._error(send, 422, str(exc))
        except EngineError as exc:
            self._count_failure(str(exc))
            await self._error(send, 500, str(exc))
        else:
            if reply.json_length is None:
                await self._answer(send, 200, reply.data, JSON)
            else:
                length = (BINARY_HEADER, str(reply.json_length).encode())
                await self._answer(send, 200, reply.data, BINARY, length)

    async def _in_turn(
        self, turn: Turn, model: ServedModel, request: InferenceRequest, receive: Receive
    ) -> dict[str, Tensor] | None:
        """The outputs; None if the client left before its turn, which then costs nobody anything."""
        if not turn.done():
            leaving = asyncio.create_task(left(receive))
            try:
                await asyncio.wait({turn, leaving}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                self._line.give_up(turn)
                raise
            finally:
                gone = leaving.done()
                leaving.cancel()
            if gone:
                self._line.give_up(turn)
                return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, model.infer, request.inputs)
        finally:
            self._line.leave()

    async def _get(self, scope: Scope, send: Send, status: int, document: bytes) -> None:
        if scope["method"] in ("GET", "HEAD"):
            await self._answer(send, status, document, JSON)
        else:
            await self._error(send, 405, f"{scope['method']} is not for this path; GET it", (b"allow", b"GET, HEAD"))

    async def _not_found(self, scope: Scope, send: Send) -> None:
        path = scope["path"][:100]
        await self._error(send, 404, f"nothing at {path!r}; inference is at /v2/models/{self._service}/infer")

    async def _error(self, send: Send, status: int, message: str, *headers: Header) -> None:
        await self._answer(send, status, error_document(message), JSON, *headers)

    async def _answer(self, send: Send, status: int, body: bytes, *headers: Header) -> None:
        match self.stage:
            case Stage.STARTING | Stage.READY:
                await answer(send, status, body, *headers)
            case Stage.DRAINING:
                await answer(send, status, body, *headers, CLOSE)
            case _:
                assert_never(self.stage)

    def _count_failure(self, message: str) -> None:
        """Log the first of a kind, the tenth, the hundredth...: a model that fails always must not fill the disk."""
        self._failures[message] += 1
        count = self._failures[message]
        if count == 10 ** (len(str(count)) - 1):
            log.warning("%s (%d so far)", message, count)


def _json_length(headers: Mapping[bytes, bytes]) -> int | None:
    value = headers.get(BINARY_HEADER)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise ProtocolError("Inference-Header-Content-Length must be the number of bytes of the JSON head")
    return int(value)


def _check_outputs(request: InferenceRequest, model: ServedModel) -> None:
    """Before inference, so that a mistake costs nothing."""
    known = tuple(spec.name for spec in model.interface.outputs)
    for asked in request.outputs or ():
        if asked.name not in known:
            raise ProtocolError(unknown_output(asked.name, known))
