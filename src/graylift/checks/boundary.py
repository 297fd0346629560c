"""The boundary check: odd, wrong, oversized and many requests, each with a right answer or a clear refusal; and after
all of them the candidate's server is as it was.

"Clear" is a 4xx with a text. A 5xx, no answer in time, or a connection that ends without one is a finding, except where
HTTP lets a server just close (`Case.may_close`). 429 and 503 are refusals where many ask at once, and nowhere else.
It may take the candidate down, so it comes last. Called by `served`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from graylift.checks.corpus import Case, Expect, Target, corpus, reference_case
from graylift.checks.questions import Question
from graylift.checks.raw_http import Reply, excerpt, exchange, said
from graylift.checks.servers import RunningServer
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.errors import ProtocolError
from graylift.protocols.asking import outputs_from_body
from graylift.protocols.datatypes import Tensor
from graylift.protocols.open_inference import BINARY_HEADER

CHECK = "boundary"

_ANSWER_WITHIN_S = 20.0
_AT_ONCE = 64
_BUSY = (429, 503)
_SAME_WITHIN = 1e-3
"""Relative to the largest magnitude of an output: runtimes may add in another order from run to run."""
_MEMORY_FACTOR, _MEMORY_BYTES = 1.5, 256 * 2**20
"""What the server may hold afterwards: runtimes keep what their largest request needed, for the next one."""
_SHOWN = 3

Outputs = Mapping[str, Tensor]


async def check_boundary(candidate: RunningServer, question: Question) -> CheckResult:
    """question: one that stable answers"""
    began = time.monotonic()
    target = Target(urlsplit(candidate.url).netloc, candidate.infer_path)
    reference = reference_case(target, question.inputs)
    reply = await _asked(candidate, reference)
    before = _outputs(reply)
    if before is None:
        sentence = f"{candidate.name} does not answer a plain request, which stable answers: {said(reply)}"
        return CheckResult(CHECK, CheckOutcome.FAIL, sentence)
    resident = candidate.resident_bytes
    lines: list[str] = []
    wrong: list[str] = []
    cases = corpus(target, candidate.interface, candidate.profiles, question.inputs)
    for case in cases:
        reply = await _asked(candidate, case)
        problem = _problem(case, reply, before, candidate)
        if problem is not None and candidate.process is not None and reply.status is None and not reply.hung:
            end = await candidate.process.end()
            problem = problem if end is None else f"its server {end}"
        lines.append(f"{case.name}: {said(reply)}{'' if problem is None else f' - {problem}'}")
        if problem is not None:
            wrong.append(f"{case.name}: {problem}")
            if reply.hung or await _asked_whether_gone(candidate):
                break  # what comes after would be charged to the cases that are not at fault
    else:
        problem = await _many_at_once(candidate, reference, before)
        lines.append(f"{_AT_ONCE} at once: {problem or 'each answered, or told to come later'}")
        wrong += [] if problem is None else [f"{_AT_ONCE} at once: {problem}"]
        for name, problem in (
            ("ready afterwards", await _not_ready(candidate)),
            (
                "reference request afterwards",
                _problem(reference, await _asked(candidate, reference), before, candidate),
            ),
            ("memory afterwards", _kept(candidate, resident)),
        ):
            lines.append(f"{name}: {problem or 'as before'}")
            wrong += [] if problem is None else [f"{name}: {problem}"]
    took = f"{len(lines)} cases, {time.monotonic() - began:.0f} s"
    now = candidate.resident_bytes
    if resident is not None and now is not None:
        lines.append(f"memory: {_mib(resident)} before, {_mib(now)} after, allowed {_mib(_allowed(resident))}")
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        sentence = f"{candidate.name} fails {len(wrong)} of {took}: {'; '.join(wrong[:_SHOWN])}{more}"
        return CheckResult(CHECK, CheckOutcome.FAIL, sentence, tuple(lines))
    sentence = (
        f"{candidate.name} gives a right answer or a clear refusal in each of {took}, and is as it was afterwards"
    )
    return CheckResult(CHECK, CheckOutcome.PASS, sentence, tuple(lines))


async def _asked(server: RunningServer, case: Case) -> Reply:
    try:
        return await exchange(
            server.url, case.pieces, timeout_s=_ANSWER_WITHIN_S, pause_s=case.pause_s, half_close=case.half_close
        )
    except OSError:
        return Reply(None, (), b"", whole=False)


def _problem(case: Case, reply: Reply, before: Outputs, server: RunningServer) -> str | None:
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
        return None if reply.body.strip() else f"HTTP {reply.status} without a word"
    if reply.status != 200:
        return f"HTTP {reply.status}, where a refusal is a 4xx: {excerpt(reply)}"
    match case.expect:
        case Expect.REFUSAL:
            return "answered with HTTP 200, though it is no right request"
        case Expect.SAME:
            return _difference(before, _outputs(reply))
        case Expect.ANSWER | Expect.EITHER:
            outputs = _outputs(reply)
            if outputs is None:
                return "HTTP 200 with a body that is no answer"
            missing = {spec.name for spec in server.interface.outputs} - outputs.keys()
            return f"HTTP 200 without {', '.join(sorted(missing))}" if missing else None


def _outputs(reply: Reply) -> Outputs | None:
    """None unless it is a whole answer."""
    if reply.status != 200 or not reply.whole:
        return None
    length = reply.header(BINARY_HEADER.decode())
    try:
        return outputs_from_body(reply.body, int(length) if length else None)
    except (ProtocolError, ValueError):
        return None


def _difference(before: Outputs, now: Outputs | None) -> str | None:
    if now is None:
        return "HTTP 200 with a body that is no answer"
    for name, tensor in before.items():
        other = now.get(name)
        if other is None or other.shape != tensor.shape:
            return f"output {name} is not what it was before"
        if tensor.dtype.kind != "f":
            if not np.array_equal(tensor, other):
                return f"output {name} is not what it was before"
            continue
        one, two = tensor.astype(np.float64), other.astype(np.float64)
        scale = float(np.nanmax(np.abs(one[np.isfinite(one)]), initial=0.0)) or 1.0
        if not np.allclose(one, two, rtol=0.0, atol=_SAME_WITHIN * scale, equal_nan=True):
            return f"output {name} is not what it was before"
    return None


async def _many_at_once(server: RunningServer, reference: Case, before: Outputs) -> str | None:
    replies = await asyncio.gather(*(_asked(server, reference) for _ in range(_AT_ONCE)))
    for reply in replies:
        busy = reply.status in _BUSY and reply.whole and bool(reply.body.strip())
        problem = None if busy else _problem(reference, reply, before, server)
        if problem is not None:
            return problem
    return None


async def _not_ready(server: RunningServer) -> str | None:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_WITHIN_S)) as session,
            session.get(f"{server.url}/v2/health/ready") as answer,
        ):
            return None if answer.status == 200 else f"its server says HTTP {answer.status}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"its server does not say so: {error or type(error).__name__}"


async def _asked_whether_gone(server: RunningServer) -> bool:
    """Does nobody answer any more?"""
    return await _not_ready(server) is not None


def _kept(server: RunningServer, before: int | None) -> str | None:
    now = server.resident_bytes
    if before is None or now is None or now <= _allowed(before):
        return None
    return (
        f"it holds {_mib(now)}, before {_mib(before)}, allowed {_mib(_allowed(before))}; "
        "bound its inputs by profiles in its model"
    )


def _allowed(before: int) -> float:
    return before * _MEMORY_FACTOR + _MEMORY_BYTES


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"
