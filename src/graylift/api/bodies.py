"""Bodies of requests, bounded, as bytes or JSON. Knows no route."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request

from graylift.errors import ProtocolError

MAX_BYTES = 1024 * 1024


async def read(request: Request, most: int = MAX_BYTES) -> bytes:
    """The whole body. ProtocolError (413) beyond `most` bytes, as soon as that is seen."""
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most:
        raise _too_large(f"{announced} bytes", most)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise _too_large("more", most)
    return bytes(body)


async def read_json(request: Request) -> Any:
    """ProtocolError (400) if the body is no JSON."""
    try:
        return json.loads(await read(request))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"expected a body of JSON, got something else: {str(error)[:100]}") from error


def _too_large(given: str, most: int) -> ProtocolError:
    return ProtocolError(f"a body has up to {most:,} bytes here, this one has {given}: send it in portions", status=413)
