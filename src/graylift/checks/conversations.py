"""What the servers of language models are asked, and how their answers are timed: streams, token by token.

The questions are the checks' own, short and answered at length by any model. Called by `interviews` and by the checks
of language models.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import aiohttp
import orjson

from graylift.bench.load import PreparedRequest
from graylift.bench.streams import Written, is_stream, read_stream
from graylift.checks.servers import RunningServer
from graylift.errors import ProtocolError

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
    began_s = time.perf_counter()
    async with session.post(server.url + request.path, data=request.body, headers=request.headers) as answer:
        if not is_stream(answer):
            raise ProtocolError(f"HTTP {answer.status}: {(await answer.read())[:300].decode(errors='replace')}")
        return await read_stream(answer, began_s)
