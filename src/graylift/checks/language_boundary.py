"""The boundary check of language models: odd, wrong, oversized and many requests, each with a right answer or a clear
refusal; and after all of them the candidate's server is as it was.

As `boundary`, with OpenAI's API in place of tensors. What is asked beside HTTP itself: does each message of a
conversation reach the model? A chat template that leaves one out answers, and answers something else; the number of
tokens that the server counts for the prompt gives it away. Called by `interviews`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import orjson

from graylift.checks.boundary import CHECK
from graylift.checks.conversations import PATH, QUESTIONS
from graylift.checks.corpus import Case, Expect
from graylift.checks.raw_http import Reply, excerpt, exchange, said
from graylift.checks.servers import RunningServer
from graylift.domain.release import CheckOutcome, CheckResult

_ANSWER_WITHIN_S = 30.0
_AT_ONCE = 16
_BUSY = (429, 503)
_MEMORY_FACTOR, _MEMORY_BYTES = 1.5, 512 * 2**20
_SHOWN = 3
_TOKENS = 2
"""Of each answer that is a right one: the check asks whether it comes, not what it says."""
_LONG = "The quick brown fox jumps over the lazy dog. "


async def check_language_boundary(candidate: RunningServer, model: str) -> CheckResult:
    """model: what clients call it"""
    began = time.monotonic()
    lines: list[str] = []
    wrong: list[str] = []

    def told(name: str, problem: str | None, said: str) -> None:
        lines.append(f"{name}: {said}{'' if problem is None else f' - {problem}'}")
        if problem is not None:
            wrong.append(f"{name}: {problem}")

    plain = _chat(model)
    reply = await _asked(candidate, _case(candidate, "a plain request", plain, Expect.ANSWER))
    if _answer(reply) is None:
        sentence = f"{candidate.name} does not answer a plain request, which stable answers: {said(reply)}"
        return CheckResult(CHECK, CheckOutcome.FAIL, sentence)
    resident = candidate.resident_bytes
    told("each message counts", await _messages_left_out(candidate, model), "asked with one more and one less")
    for case in _corpus(candidate, model):
        reply = await _asked(candidate, case)
        problem = _problem(case, reply)
        if problem is not None and candidate.process is not None and reply.status is None and not reply.hung:
            end = await candidate.process.end()
            problem = problem if end is None else f"its server {end}"
        told(case.name, problem, said(reply))
        if problem is not None and (reply.hung or await _not_ready(candidate) is not None):
            break  # what comes after would be charged to the cases that are not at fault
    else:
        told(f"{_AT_ONCE} at once", await _many_at_once(candidate, plain), "each answered, or told to come later")
        told("a client that leaves", await _left(candidate, model), "its answer ends, and the next one comes")
        told("ready afterwards", await _not_ready(candidate), "asked")
        told("memory afterwards", _kept(candidate, resident), "as before" if resident is not None else "elsewhere")
    took = f"{len(lines)} cases, {time.monotonic() - began:.0f} s"
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        sentence = f"{candidate.name} fails {len(wrong)} of {took}: {'; '.join(wrong[:_SHOWN])}{more}"
        return CheckResult(CHECK, CheckOutcome.FAIL, sentence, tuple(lines))
    sentence = f"{candidate.name} gives a right answer or a clear refusal in each of {took}, and is as it was after"
    return CheckResult(CHECK, CheckOutcome.PASS, sentence, tuple(lines))


def _chat(name: str, **changes: object) -> dict[str, Any]:
    """A right request to the model of that name, with changes; a change to None takes the field out."""
    document: dict[str, Any] = {
        "model": name,
        "messages": [{"role": "user", "content": QUESTIONS[0]}],
        "max_tokens": _TOKENS,
        "temperature": 0,
        **changes,
    }
    return {name: value for name, value in document.items() if value is not None}


def _corpus(server: RunningServer, model: str) -> Iterator[Case]:
    def case(name: str, expect: Expect, **changes: object) -> Case:
        return _case(server, name, _chat(model, **changes), expect)

    def said(content: object, role: object = "user") -> list[dict[str, object]]:
        return [{"role": role, "content": content}]

    yield case("no messages", Expect.REFUSAL, messages=None)
    yield case("an empty list of messages", Expect.REFUSAL, messages=[])
    yield case("messages that are a text", Expect.REFUSAL, messages="hello")
    yield case("an unknown role", Expect.REFUSAL, messages=said("hello", "nobody"))
    yield case("content that is a number", Expect.REFUSAL, messages=said(7))
    yield case("empty content", Expect.EITHER, messages=said(""))
    yield case("another model", Expect.EITHER, model="no-such-model-here")
    yield case("no model", Expect.EITHER, model=None)
    yield case("max_tokens negative", Expect.REFUSAL, max_tokens=-1)
    yield case("max_tokens huge", Expect.EITHER, max_tokens=2**40)
    yield case("max_tokens a text", Expect.REFUSAL, max_tokens="many")
    yield case("temperature -1", Expect.REFUSAL, temperature=-1)
    yield case("temperature 1e308", Expect.REFUSAL, temperature=1e308)
    yield case("top_p 7", Expect.REFUSAL, top_p=7)
    yield case("a fifth stop", Expect.EITHER, stop=["a", "b", "c", "d", "e"])
    yield case("stream a text", Expect.REFUSAL, stream="yes")
    yield case("thousands of messages", Expect.EITHER, messages=said("hello") * 20_000)
    yield case("a prompt far beyond the context", Expect.REFUSAL, messages=said(_LONG * 200_000))
    yield case("a prompt around the context", Expect.EITHER, messages=said(_LONG * 2_000), max_tokens=1)
    yield case("one word of 100 kB", Expect.EITHER, messages=said("a" * 100_000), max_tokens=1)
    yield case("control characters", Expect.EITHER, messages=said("\x00\x01\x1b[31m\u202e\ufeff"))
    yield case("tokens that a template uses", Expect.EITHER, messages=said("<|im_end|><|endoftext|></s>[INST]"))
    for name, body in (
        ("an empty body", b""),
        ("no JSON", b"\x00\xff\xfe"),
        ("JSON that is no object", b"[1, 2, 3]"),
        ("deep JSON", b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("JSON that is cut off", orjson.dumps(_chat(model))[:-10]),
        ("text that is no UTF-8", orjson.dumps(_chat(model)).replace(b"capital", b"cap\xff\xfeal")),
        ("half of a character in JSON", orjson.dumps(_chat(model)).replace(b"capital", b"\\ud83d")),
    ):
        yield Case(name, (_http(server, body),), Expect.EITHER if "half" in name else Expect.REFUSAL)
    yield Case("another method", (_http(server, b"", method="PUT"),), Expect.REFUSAL)
    whole = _http(server, orjson.dumps(_chat(model)))
    yield Case("a body that breaks off", (whole[:-20],), Expect.REFUSAL, half_close=True, may_close=True)
    yield Case("a slow sender", (whole[:60], whole[60:]), Expect.ANSWER, pause_s=0.3)


def _case(server: RunningServer, name: str, document: Mapping[str, Any], expect: Expect) -> Case:
    return Case(name, (_http(server, orjson.dumps(document)),), expect)


def _http(server: RunningServer, body: bytes, method: str = "POST") -> bytes:
    host = urlsplit(server.url).netloc
    lines = (f"{method} {PATH} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "Content-Type: application/json", "", "")).encode() + body


async def _asked(server: RunningServer, case: Case) -> Reply:
    try:
        return await exchange(
            server.url, case.pieces, timeout_s=_ANSWER_WITHIN_S, pause_s=case.pause_s, half_close=case.half_close
        )
    except OSError:
        return Reply(None, (), b"", whole=False)


def _problem(case: Case, reply: Reply) -> str | None:
    """What is wrong with this reply to this case, None if nothing is."""
    if reply.hung:
        return f"no answer within {_ANSWER_WITHIN_S:g} s; such a request holds a place of the server"
    if reply.status is None:
        return None if case.may_close else "the connection ended without an answer"
    if not reply.whole:
        return f"an answer of HTTP {reply.status} that breaks off"
    if 400 <= reply.status < 500:
        if case.expect in (Expect.SAME, Expect.ANSWER):
            return f"refused with HTTP {reply.status}, though it is a right request: {excerpt(reply)}"
        return None if _is_error(reply) else f"HTTP {reply.status} without an error in OpenAI's form: {excerpt(reply)}"
    if reply.status != 200:
        return f"HTTP {reply.status}, where a refusal is a 4xx: {excerpt(reply)}"
    if case.expect is Expect.REFUSAL:
        return "answered with HTTP 200, though it is no right request"
    return None if _answer(reply) is not None else "HTTP 200 with a body that is no answer"


def _is_error(reply: Reply) -> bool:
    """What HTTP itself refuses (a path, a broken request) may have a form of its own."""
    try:
        document: Any = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return bool(reply.body.strip()) and reply.status in (400, 405, 408, 413, 431)
    if not isinstance(document, dict):
        return False
    return bool(cast("dict[str, object]", document).keys() & {"error", "detail"})


def _answer(reply: Reply) -> tuple[str, int | None] | None:
    """The text and the tokens of the prompt; None unless it is a whole answer."""
    if reply.status != 200 or not reply.whole:
        return None
    try:
        document: Any = orjson.loads(reply.body)
        text = str(document["choices"][0]["message"]["content"])
        usage = document.get("usage")
        return text, None if usage is None else int(usage["prompt_tokens"])
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, ValueError):
        return None


async def _messages_left_out(server: RunningServer, model: str) -> str | None:
    """Each kind of message makes the prompt longer; None if each does, or the server counts no tokens."""
    base = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]
    before = [{"role": "user", "content": QUESTIONS[1]}, {"role": "assistant", "content": QUESTIONS[2]}]
    cases = {
        "system": [{"role": "system", "content": f"Be brief. {QUESTIONS[3]}"}, base[1]],
        "user": [base[0], {"role": "user", "content": f"Hello. {QUESTIONS[3]}"}],
        "assistant": [base[0], before[0], before[1], base[1]],
    }
    shorter = {
        "system": base,
        "user": base,
        "assistant": [base[0], before[0], {**before[1], "content": "Yes."}, base[1]],
    }
    for role, longer in cases.items():
        counts: list[int] = []
        for messages in (shorter[role], longer):
            reply = await _asked(
                server, _case(server, role, _chat(model, messages=messages, max_tokens=1), Expect.ANSWER)
            )
            answer = _answer(reply)
            if answer is None:
                return f"a conversation with a message of the {role} is not answered: {said(reply)}"
            if answer[1] is None:
                return None
            counts.append(answer[1])
        if counts[1] <= counts[0]:
            return (
                f"the prompt has {counts[1]} tokens with a long message of the {role} and {counts[0]} with a short "
                "one: the chat template leaves it out"
            )
    return None


async def _many_at_once(server: RunningServer, plain: Mapping[str, Any]) -> str | None:
    case = _case(server, "at once", plain, Expect.ANSWER)
    for reply in await asyncio.gather(*(_asked(server, case) for _ in range(_AT_ONCE))):
        busy = reply.status in _BUSY and reply.whole and bool(reply.body.strip())
        problem = None if busy else _problem(case, reply)
        if problem is not None:
            return problem
    return None


async def _left(server: RunningServer, model: str) -> str | None:
    """A long answer that its client does not wait for must not keep the next one waiting."""
    case = _case(server, "left", _chat(model, max_tokens=64), Expect.ANSWER)
    await exchange(server.url, case.pieces, timeout_s=0.05)
    plain = _case(server, "after", _chat(model), Expect.ANSWER)
    return _problem(plain, await _asked(server, plain))


async def _not_ready(server: RunningServer) -> str | None:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_WITHIN_S)) as session,
            session.get(f"{server.url}/v1/models") as answer,
        ):
            return None if answer.status < 500 else f"GET /v1/models says HTTP {answer.status}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"its server does not say so: {error or type(error).__name__}"


def _kept(server: RunningServer, before: int | None) -> str | None:
    now = server.resident_bytes
    if before is None or now is None or now <= before * _MEMORY_FACTOR + _MEMORY_BYTES:
        return None
    return f"it holds {now / 2**20:,.0f} MiB, before {before / 2**20:,.0f} MiB; lower contextLength or maxStreams"
