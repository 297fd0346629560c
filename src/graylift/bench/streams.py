"""One streamed answer of OpenAI's API, read and timed as its client sees it. Called by `load` and by the checks.

The stream is read to its end; one that breaks off, carries an error or does not end as streams end is a ProtocolError:
the status before it says nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import orjson

from graylift.errors import ProtocolError
from graylift.protocols.sse import DONE, EventReader


@dataclass(frozen=True, slots=True)
class Written:
    """One answer. first_s, last_s: from `began_s` to its first and last content; tokens: as the server counts them, or
    the pieces that came if it does not; finish: its reason, None if none was given"""

    first_s: float
    last_s: float
    tokens: int
    prompt_tokens: int | None
    finish: str | None

    @property
    def per_token_s(self) -> float | None:
        """Of the tokens after the first; None without such."""
        return (self.last_s - self.first_s) / (self.tokens - 1) if self.tokens > 1 else None


def is_stream(answer: aiohttp.ClientResponse) -> bool:
    return answer.status == 200 and answer.content_type == "text/event-stream"


async def read_stream(answer: aiohttp.ClientResponse, began_s: float) -> Written:
    """began_s: when the request was sent or due, by `time.perf_counter`. ProtocolError as above; aiohttp.ClientError or
    TimeoutError if the connection ends."""
    first_s = last_s = 0.0
    pieces, finish, usage, done = 0, None, None, False
    events = EventReader()
    async for chunk, _ in answer.content.iter_chunks():
        now_s = time.perf_counter() - began_s
        for data in events.feed(chunk):
            if data == DONE:
                done = True
                continue
            document = _chunk(data)
            usage = document.get("usage") or usage
            for choice in document.get("choices", ()):
                finish = choice.get("finish_reason") or finish
                if choice.get("delta", {}).get("content") or choice.get("text"):
                    first_s, last_s = first_s or now_s, now_s
                    pieces += 1
    if not done:
        raise ProtocolError("the stream ended without [DONE]")
    tokens = pieces if usage is None else int(usage["completion_tokens"])
    return Written(first_s, last_s, tokens, None if usage is None else int(usage["prompt_tokens"]), finish)


def _chunk(data: bytes) -> dict[str, Any]:
    try:
        document: Any = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise ProtocolError("an event of the stream is no JSON") from exc
    if not isinstance(document, dict):
        raise ProtocolError("an event of the stream is no object")
    chunk = cast("dict[str, Any]", document)
    if "error" in chunk:
        raise ProtocolError(f"an error inside of the stream: {orjson.dumps(chunk['error'])[:200].decode()}")
    return chunk
