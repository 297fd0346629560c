"""One HTTP/1.1 exchange, written byte by byte: requests that no client library would send.

Knows nothing of models. Called by `boundary`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools

_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. status: None if no answer began; whole: did it end as its head announced?
    hung: neither an answer nor the end of the connection came in time."""

    status: int | None
    headers: tuple[tuple[str, str], ...]
    body: bytes
    whole: bool
    hung: bool = False

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


async def exchange(
    url: str, pieces: Sequence[bytes], *, timeout_s: float, pause_s: float = 0.0, half_close: bool = False
) -> Reply:
    """Send `pieces`, `pause_s` apart, over a connection of its own, and read one answer.

    half_close: say, after the last piece, that no more will come. OSError if nobody listens at `url`.
    """
    address = urlsplit(url)
    heard = _Heard()
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    sending = asyncio.create_task(_send(writer, pieces, pause_s, half_close))
    try:
        async with asyncio.timeout(timeout_s):
            while not heard.complete:
                data = await reader.read(_READ_BYTES)
                if not data:
                    break
                heard.feed(data)
    except TimeoutError:
        return heard.reply(hung=True)
    except OSError:
        pass  # reset: no more will come, as with an orderly end
    finally:
        sending.cancel()
        await asyncio.wait({sending})
        if not sending.cancelled():
            sending.exception()  # a server that answers early may stop reading: no error of ours
        writer.close()
    return heard.reply(hung=False)


async def _send(writer: asyncio.StreamWriter, pieces: Sequence[bytes], pause_s: float, half_close: bool) -> None:
    for number, piece in enumerate(pieces):
        if number and pause_s:
            await asyncio.sleep(pause_s)
        writer.write(piece)
        await writer.drain()
    if half_close:
        writer.write_eof()


class _Heard:
    """An answer, as far as it came; the callbacks are the parser's."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()
        self._began = False
        self.complete = False
        self._is_http = True

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            # After a complete answer the rest of the connection is no business of ours.
            self._is_http = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self._began = True

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.complete = True

    def reply(self, *, hung: bool) -> Reply:
        status = self._parser.get_status_code() if self._began else None
        # Without a length an answer ends with its connection.
        names = {name.lower() for name, _ in self._headers}
        to_the_end = self._began and not names & {"content-length", "transfer-encoding"} and not hung
        whole = self._is_http and (self.complete or to_the_end)
        return Reply(status, tuple(self._headers), bytes(self._body), whole, hung)


def said(reply: Reply) -> str:
    """What came, in a few words; of a refusal with the beginning of its text."""
    if reply.hung:
        return "no answer in time"
    if reply.status is None:
        return "connection closed"
    return f"HTTP {reply.status}" + (f" {excerpt(reply)}" if reply.status >= 400 else "")


def excerpt(reply: Reply) -> str:
    """The beginning of the body, on one line."""
    return " ".join(reply.body[:300].decode(errors="replace").split())
