"""The HTTP front: route, body, inference, answer. A raw ASGI application.

The event loop parses and renders; what is between is `inference`. Knows nothing of processes and signals.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from typing import assert_never

import orjson

from graylift.errors import EngineError, InputError, NotComputable, NotServed, ProtocolError, Refusal
from graylift.protocols.open_inference import (
    BINARY_HEADER,
    InferenceRequest,
    body_from_outputs,
    error_document,
    model_metadata,
    request_from_body,
    server_metadata,
)
from graylift.serve.connection import ON_LEFT
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
    read_body,
)
from graylift.serve.inference import Inference, Stage
from graylift.serve.metrics import CONTENT_TYPE

_RETRY_AFTER: Header = (b"retry-after", b"1")


class App:
    """The application."""

    def __init__(self, inference: Inference, *, max_body_bytes: int, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._inference = inference
        self._metrics = inference.metrics
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["path"].split("/")[1:]:
            case ["v2", "models", name, "infer"] if self._inference.serves(name, ""):
                await self._infer(scope, receive, send)
            case ["metrics"]:
                batcher = self._inference.batcher
                text = self._metrics.text(waiting=batcher.waiting, running=batcher.running)
                await self._get(scope, send, 200, text, (b"content-type", CONTENT_TYPE))
            case ["v2"]:
                await self._get(scope, send, 200, server_metadata("graylift", metadata.version("graylift")))
            case ["v2", "health", "live"]:
                await self._get(scope, send, 200, orjson.dumps({"live": True}))
            case ["v2", "health", "ready"]:
                # The specification calls the field "live" here, everybody else "ready".
                ready = self._inference.stage is Stage.READY
                await self._get(scope, send, 200 if ready else 503, orjson.dumps({"ready": ready, "live": True}))
            case ["v2", "models", name, "versions", version, *action] if version and self._inference.serves(
                name, version
            ):
                await self._model(action, scope, receive, send)
            case ["v2", "models", name, *action] if action[:1] != ["versions"] and self._inference.serves(name, ""):
                await self._model(action, scope, receive, send)
            case ["v2", "models", _, *_]:
                ours = f"{self._inference.service!r}, version {self._inference.version!r}"
                await self._error(send, 404, f"no such model here: {scope['path'][:100]!r}; this server serves {ours}")
            case _:
                await self._not_found(scope, send)

    async def _model(self, action: list[str], scope: Scope, receive: Receive, send: Send) -> None:
        service, version, model = self._inference.service, self._inference.version, self._inference.model
        match action:
            case ["infer"]:
                await self._infer(scope, receive, send)
            case ["ready"]:
                ready = self._inference.stage is Stage.READY
                await self._get(scope, send, 200 if ready else 503, orjson.dumps({"name": service, "ready": ready}))
            case ["shapes"]:  # not of the protocol: what `graylift profile suggest` goes by
                await self._get(scope, send, 200, self._inference.shapes.document())
            case []:
                if model is None:
                    await self._error(send, 503, "the model is still loading", _RETRY_AFTER)
                    return
                await self._get(scope, send, 200, model_metadata(service, version, model.platform, model.interface))
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
            self._metrics.failed("OTHER")
            await answer_early(receive, send, exc.status, error_document(str(exc)), JSON)
            return
        if body is None:
            self._metrics.failed("CANCELED")
            return
        began_s = time.perf_counter()
        try:
            self._inference.served()  # before its bytes are read: nobody may be able to say what they mean
            request = self._read(body, headers)
            self._metrics.parsed(time.perf_counter() - began_s)
            outputs = await self._inference.outputs(request, partial(scope.__setitem__, ON_LEFT))
            if outputs is None:
                return
            computed_s = time.perf_counter()
            service, version = self._inference.service, self._inference.version
            try:
                reply = body_from_outputs(request, outputs, model=service, version=version)
            except ProtocolError:
                self._metrics.failed("OTHER")
                raise
        except NotServed as exc:
            match exc.why:
                case Refusal.NOT_READY | Refusal.BUSY:
                    await self._error(send, 503, str(exc), _RETRY_AFTER)
                case Refusal.TOO_LATE:
                    await self._error(send, 504, str(exc))
                case _:
                    assert_never(exc.why)
        except ProtocolError as exc:
            await self._error(send, exc.status, str(exc))
        except InputError as exc:
            await self._error(send, 400, str(exc))
        except NotComputable as exc:
            # Not 400: the request follows interface and protocol, another revision may well answer it, and the gateway
            # asks stable again when a candidate says this. Not 500: the server is well.
            await self._error(send, 422, str(exc))
        except EngineError as exc:
            await self._error(send, 500, str(exc))
        else:
            ended_s = time.perf_counter()
            self._metrics.rendered(ended_s - computed_s)
            self._metrics.answered(ended_s - began_s)
            if reply.json_length is None:
                await self._answer(send, 200, reply.data, JSON)
            else:
                length = (BINARY_HEADER, str(reply.json_length).encode())
                await self._answer(send, 200, reply.data, BINARY, length)

    def _read(self, body: bytes, headers: Mapping[bytes, bytes]) -> InferenceRequest:
        try:
            return request_from_body(body, _json_length(headers))
        except ProtocolError:
            self._metrics.failed("OTHER")
            raise

    async def _get(self, scope: Scope, send: Send, status: int, document: bytes, kind: Header = JSON) -> None:
        if scope["method"] in ("GET", "HEAD"):
            await self._answer(send, status, document, kind)
        else:
            await self._error(send, 405, f"{scope['method']} is not for this path; GET it", (b"allow", b"GET, HEAD"))

    async def _not_found(self, scope: Scope, send: Send) -> None:
        path = scope["path"][:100]
        where = f"/v2/models/{self._inference.service}/infer"
        await self._error(send, 404, f"nothing at {path!r}; inference is at {where}")

    async def _error(self, send: Send, status: int, message: str, *headers: Header) -> None:
        await self._answer(send, status, error_document(message), JSON, *headers)

    async def _answer(self, send: Send, status: int, body: bytes, *headers: Header) -> None:
        match self._inference.stage:
            case Stage.STARTING | Stage.READY:
                await answer(send, status, body, *headers)
            case Stage.DRAINING:
                await answer(send, status, body, *headers, CLOSE)
            case _:
                assert_never(self._inference.stage)


def _json_length(headers: Mapping[bytes, bytes]) -> int | None:
    value = headers.get(BINARY_HEADER)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise ProtocolError("Inference-Header-Content-Length must be the number of bytes of the JSON head")
    return int(value)
