"""What the servers of language models are asked, and how their answers are timed: streams, token by token.

The questions are the checks' own, short and answered at length by any model. Called by `interviews` and by the checks
of language models.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import orjson

from graylift.bench.load import PreparedRequest
from graylift.checks.servers import RunningServer
from graylift.errors import ProtocolError
from graylift.protocols.sse import DONE, EventReader

PATH = "/v1/chat/completions"
ANSWER_WITHIN_S = 60.0
QUESTIONS = (
    "What is the capital of France, and what is it known for?",
    "Explain in a few sentences how a bicycle stays upright.",
    "Write the beginning of a story about a lighthouse keeper.",
    "List some things that a person needs for a day in the mountains.",
    "Why is the sky blue during the day and red in the evening?",
    "Describe how bread is made, from the grain to the oven.",
)


@dataclass(frozen=True, slots=True)
class Written:
    """One streamed answer. first_s, last_s: from the request to its first and last content; tokens: as the server
    counts them, or the pieces that came if it does not; finish: its reason, None if none was given"""

    first_s: float
    last_s: float
    tokens: int
    prompt_tokens: int | None
    finish: str | None

    @property
    def per_token_s(self) -> float | None:
        """Of the tokens after the first; None without such."""
        return (self.last_s - self.first_s) / (self.tokens - 1) if self.tokens > 1 else None


async def model_of(session: aiohttp.ClientSession, server: RunningServer) -> str:
    """What clients call the model: the service's name, or the one model that a server elsewhere has. ProtocolError if
    it tells none."""
    async with session.get(f"{server.url}/v1/models") as answer:
        body = await answer.read()
    if answer.status != 200:
        raise ProtocolError(f"GET /v1/models: HTTP {answer.status}: {body[:200].decode(errors='replace')}")
    try:
        names = [str(entry["id"]) for entry in cast("list[dict[str, Any]]", orjson.loads(body)["data"])]
    except (KeyError, TypeError, ValueError) as exc:
        raise ProtocolError("GET /v1/models gives no list of models") from exc
    if not names:
        raise ProtocolError("GET /v1/models lists no model")
    return server.service if server.service in names else names[0]


def chat_request(
    model: str, messages: Sequence[tuple[str, str]], max_tokens: int, *, stream: bool = True
) -> PreparedRequest:
    """messages: (role, content)"""
    document: dict[str, Any] = {
        "model": model,
        "messages": [{"role": role, "content": content} for role, content in messages],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    if stream:
        document |= {"stream": True, "stream_options": {"include_usage": True}}
    return PreparedRequest(PATH, {"content-type": "application/json"}, orjson.dumps(document))


async def written(session: aiohttp.ClientSession, server: RunningServer, request: PreparedRequest) -> Written:
    """The answer to a streamed request. ProtocolError with what came instead, or if it breaks off; aiohttp.ClientError
    or TimeoutError if nothing came."""
    began = time.perf_counter()
    first_s = last_s = 0.0
    pieces, finish, usage, done = 0, None, None, False
    events = EventReader()
    async with session.post(server.url + request.path, data=request.body, headers=request.headers) as answer:
        if answer.status != 200:
            raise ProtocolError(f"HTTP {answer.status}: {(await answer.read())[:300].decode(errors='replace')}")
        async for chunk, _ in answer.content.iter_chunks():
            now_s = time.perf_counter() - began
            for data in events.feed(chunk):
                if data == DONE:
                    done = True
                    continue
                document = _chunk(data)
                usage = document.get("usage") or usage
                for choice in document.get("choices", ()):
                    finish = choice.get("finish_reason") or finish
                    if choice.get("delta", {}).get("content"):
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
