"""`POST /v1/metrics`: histograms that servers push by OTLP/HTTP, protobuf or JSON. Called by `app`."""

from __future__ import annotations

import asyncio
import zlib

from fastapi import APIRouter, Request, Response

from graylift.api import bodies
from graylift.errors import ProtocolError
from graylift.ports import Pushed
from graylift.protocols.otlp import JSON, PROTOBUF, answer_to, export_from

MAX_BYTES = 4 * 1024 * 1024
"""Of a body, as it is sent and as it is unpacked."""


def routes(into: Pushed) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.post("/metrics")
    async def metrics(request: Request) -> Response:
        body = _unpacked(await bodies.read(request, MAX_BYTES), request.headers.get("content-encoding", "identity"))
        content_type = request.headers.get("content-type", "")
        export = await asyncio.to_thread(export_from, body, content_type)
        into.take(export.points)
        media_type = JSON if content_type.startswith(JSON) else PROTOBUF
        return Response(answer_to(export, media_type), media_type=media_type)

    return router


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise ProtocolError(f"expected no content encoding or gzip, got {encoding[:20]}", 415)
    unpacking = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacking.decompress(body, MAX_BYTES + 1)
    except zlib.error as error:
        raise ProtocolError(f"the body is not what gzip makes: {error}") from error
    if len(unpacked) > MAX_BYTES:
        raise ProtocolError(f"a body has up to {MAX_BYTES:,} bytes here, unpacked as well: export less at a time", 413)
    if not unpacking.eof:
        raise ProtocolError("the body ends before what gzip has packed does")
    return unpacked
