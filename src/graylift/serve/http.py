"""Reading a request's body and writing an answer, over ASGI. Knows no route and no protocol above HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from graylift.errors import ProtocolError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

BODY_TIMEOUT_S = 60.0
"""How long a body may take to arrive. Beyond that the connection is held by somebody who will not finish."""
_LINGER_S = 1.0

JSON: Header = (b"content-type", b"application/json")
BINARY: Header = (b"content-type", b"application/octet-stream")
CLOSE: Header = (b"connection", b"close")


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int, timeout_s: float) -> bytes | None:
    """The whole body; None if the client left before its end.

    Raises ProtocolError: 413 for a body above `max_bytes`, at once if its length was announced; 408 for a slow one;
    415 for a compressed one.
    """
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        raise ProtocolError("the body is compressed (Content-Encoding); send it as it is", status=415)
    # The parser has refused lengths that are no number.
    announced = int(headers.get(b"content-length", b"0"))
    if announced > max_bytes:
        raise _too_large(f"{announced} bytes", max_bytes)
    message = await receive()
    if not message.get("more_body", False):  # nearly every request arrives in one piece
        return _piece(message, 0, max_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                piece = _piece(message, size, max_bytes)
                if piece is None:
                    return None
                chunks.append(piece)
                size += len(piece)
                if not message.get("more_body", False):
                    return b"".join(chunks)
                message = await receive()
    except TimeoutError as exc:
        raise ProtocolError(f"the body did not end within {timeout_s:g} s ({size} bytes came)", status=408) from exc


def _piece(message: Mapping[str, Any], size: int, max_bytes: int) -> bytes | None:
    if message["type"] == "http.disconnect":
        return None
    piece: bytes = message.get("body", b"")
    if size + len(piece) > max_bytes:
        raise _too_large(f"more than {max_bytes} bytes", max_bytes)
    return piece


def _too_large(given: str, max_bytes: int) -> ProtocolError:
    return ProtocolError(
        f"the body has {given}; this server takes up to {max_bytes} (its option --max-body)", status=413
    )


async def answer(send: Send, status: int, body: bytes, *headers: Header) -> None:
    """Send a whole answer."""
    await send({"type": "http.response.start", "status": status, "headers": _with_length(body, headers)})
    await send({"type": "http.response.body", "body": body})


async def answer_early(receive: Receive, send: Send, status: int, body: bytes, *headers: Header) -> None:
    """Send an answer while the request's body is still coming, and close.

    What comes is thrown away for a moment longer: closing on unread bytes makes the kernel reset the connection, and
    the client may never see why.
    """
    await send({"type": "http.response.start", "status": status, "headers": _with_length(body, (*headers, CLOSE))})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b""})


def _with_length(body: bytes, headers: tuple[Header, ...]) -> list[Header]:
    return [(b"content-length", str(len(body)).encode()), *headers]
