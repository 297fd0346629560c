"""The performance check of language models: is the candidate as fast as stable, token by token, both in turn?

What users of a stream feel is its first token and its pace, so these two are compared, each at the quantiles that
`maxLatencyRatio` names. Single answers take turns, in an order drawn for each pair, so that what hits the machine hits
both; a throughput, in tokens per second, is measured with several streams at once, and only if it is asked for. PASS
and FAIL are claimed as `performance` claims them. Called by `interviews`.

time to first token   from the request sent to its first content
time per token        (last content - first content) / (tokens - 1), once an answer
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import aiohttp

from graylift.bench.load import PreparedRequest
from graylift.bench.streams import Written
from graylift.checks.conversations import ANSWER_WITHIN_S, written
from graylift.checks.performance import CHECK, CONFIDENCE, LOOKS
from graylift.checks.ratios import (
    FEWEST_PAIRS,
    Ratio,
    Standing,
    at_least,
    at_most,
    quantile_ratio,
    rate_ratio,
    requests_for,
)
from graylift.checks.servers import RunningServer
from graylift.domain.histogram import EMPTY, Histogram, bin_of, histogram_from_counts
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import PerformanceCheck
from graylift.errors import ProtocolError

_PAIRS = 12
"""Of each look, at least."""
_STREAMS = 4
_SATURATED_PAIRS = FEWEST_PAIRS


@dataclass(slots=True)
class _Measured:
    """What was seen so far, as (stable's, candidate's) pairs; of a saturated block (tokens, seconds)."""

    answers: list[tuple[Written, Written]] = field(default_factory=list[tuple[Written, Written]])
    saturated: list[tuple[tuple[int, float], tuple[int, float]]] = field(
        default_factory=list[tuple[tuple[int, float], tuple[int, float]]]
    )


@dataclass(frozen=True, slots=True)
class _Finding:
    standing: Standing
    sentence: str


class _Failed(Exception):
    """A side did not answer; the text says what it did."""

    def __init__(self, server: RunningServer, why: str) -> None:
        self.server = server
        super().__init__(why)


async def check_language_performance(
    spec: PerformanceCheck,
    stable: RunningServer,
    candidate: RunningServer,
    requests: Sequence[PreparedRequest],
    seed: int = 0,
) -> CheckResult:
    """requests: streamed ones. `duration_s` is for both sides together, of each look."""
    began = time.monotonic()
    chance = random.Random(seed)
    measured = _Measured()
    findings: Sequence[_Finding] = ()
    took = ""
    timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        for _ in range(LOOKS):
            try:
                await _answer_in_turn(session, measured, spec, (stable, candidate), requests, chance)
                if spec.min_throughput_ratio is not None:
                    await _saturate_in_turn(session, measured, (stable, candidate), requests, chance)
            except _Failed as failed:
                sentence = f"{failed.server.name} fails a request that both were asked: {failed}"
                outcome = CheckOutcome.FAIL if failed.server is candidate else CheckOutcome.INCONCLUSIVE
                return CheckResult(CHECK, outcome, sentence, _evidence(measured, stable, candidate))
            took = f"{len(measured.answers)} interleaved pairs of answers, {time.monotonic() - began:.0f} s"
            findings = tuple(_findings(spec, measured, stable, candidate, seed))
            if any(finding.standing is Standing.BEYOND for finding in findings):
                worse = "; ".join(f.sentence for f in findings if f.standing is Standing.BEYOND)
                evidence = _evidence(measured, stable, candidate)
                return CheckResult(CHECK, CheckOutcome.FAIL, f"{worse} ({took})", evidence)
            if all(finding.standing is Standing.WITHIN for finding in findings):
                said = "; ".join(finding.sentence for finding in findings)
                evidence = _evidence(measured, stable, candidate)
                return CheckResult(CHECK, CheckOutcome.PASS, f"{said} ({took})", evidence)
    unsettled = "; ".join(f.sentence for f in findings if f.standing is Standing.OPEN)
    advice = "give it more duration in checks.performance, or let nothing else use this machine meanwhile"
    sentence = f"{unsettled}: not settled after {took}; {advice}"
    return CheckResult(CHECK, CheckOutcome.INCONCLUSIVE, sentence, _evidence(measured, stable, candidate))


async def _answer_in_turn(
    session: aiohttp.ClientSession,
    measured: _Measured,
    spec: PerformanceCheck,
    sides: tuple[RunningServer, RunningServer],
    requests: Sequence[PreparedRequest],
    chance: random.Random,
) -> None:
    began, pairs = time.monotonic(), 0
    while pairs < _PAIRS or time.monotonic() - began < spec.duration_s:
        request = chance.choice(requests)
        seen: dict[int, Written] = {}
        for side in chance.sample((0, 1), 2):
            seen[side] = await _answered(session, sides[side], request)
        measured.answers.append((seen[0], seen[1]))
        pairs += 1


async def _saturate_in_turn(
    session: aiohttp.ClientSession,
    measured: _Measured,
    sides: tuple[RunningServer, RunningServer],
    requests: Sequence[PreparedRequest],
    chance: random.Random,
) -> None:
    for _ in range(_SATURATED_PAIRS):
        asked = chance.choices(requests, k=_STREAMS)
        seen: dict[int, tuple[int, float]] = {}
        for side in chance.sample((0, 1), 2):
            began = time.perf_counter()
            answers = await asyncio.gather(*(_answered(session, sides[side], request) for request in asked))
            seen[side] = sum(answer.tokens for answer in answers), time.perf_counter() - began
        measured.saturated.append((seen[0], seen[1]))


async def _answered(session: aiohttp.ClientSession, server: RunningServer, request: PreparedRequest) -> Written:
    try:
        answer = await written(session, server, request)
    except (ProtocolError, aiohttp.ClientError, TimeoutError) as error:
        end = None if server.process is None else await server.process.end()
        raise _Failed(server, end or str(error) or type(error).__name__) from error
    if not answer.tokens:
        raise _Failed(server, "an answer without a single token")
    return answer


def _findings(
    spec: PerformanceCheck, measured: _Measured, stable: RunningServer, candidate: RunningServer, seed: int
) -> Iterator[_Finding]:
    for figure, seconds_of in _FIGURES:
        blocks = [(_one(seconds_of(one)), _one(seconds_of(other))) for one, other in measured.answers]
        fewest = min(sum(pair[side].count for pair in blocks) for side in (0, 1))
        for quantile, limit in spec.max_latency_ratio:
            name = f"p{quantile * 100:.10g} of the {figure}"
            ratio = quantile_ratio(blocks, quantile, CONFIDENCE, seed)
            if ratio is None:
                sentence = f"{name} needs {requests_for(quantile):,} answers a side; it had {fewest:,}"
                yield _Finding(Standing.OPEN, sentence)
                continue
            yield _Finding(
                at_most(ratio, limit),
                f"{candidate.name}'s {name} {_ms(ratio.candidate)} is {ratio.value:.2f}x {stable.name}'s "
                f"{_ms(ratio.stable)} ({_interval(ratio)}, limit {limit:.2f}x, n={fewest:,} each)",
            )
    if spec.min_throughput_ratio is not None:
        limit = spec.min_throughput_ratio
        ratio = rate_ratio(measured.saturated, CONFIDENCE, seed)
        if ratio is None:
            yield _Finding(Standing.OPEN, "a saturated server wrote nothing, so there is no throughput to compare")
            return
        yield _Finding(
            at_least(ratio, limit),
            f"{candidate.name} writes {ratio.candidate:,.0f} tokens/s in {_STREAMS} streams, {ratio.value:.2f}x "
            f"{stable.name}'s {ratio.stable:,.0f} ({_interval(ratio)}, at least {limit:.2f}x)",
        )


_FIGURES: tuple[tuple[str, Callable[[Written], float | None]], ...] = (
    ("time to first token", lambda answer: answer.first_s),
    ("time per token", lambda answer: answer.per_token_s),
)


def _one(seconds: float | None) -> Histogram:
    return EMPTY if seconds is None else histogram_from_counts(Counter((bin_of(seconds),)))


def _evidence(measured: _Measured, stable: RunningServer, candidate: RunningServer) -> tuple[str, ...]:
    lines: list[str] = []
    for side, server in enumerate((stable, candidate)):
        answers = [pair[side] for pair in measured.answers]
        if not answers:
            continue
        firsts = sorted(answer.first_s for answer in answers)
        paces = sorted(pace for answer in answers if (pace := answer.per_token_s) is not None)
        tokens, seconds = sum(a.tokens for a in answers), sum(a.last_s for a in answers)
        finishes = Counter(answer.finish or "no reason" for answer in answers)
        lines.append(
            f"{server.name}: first token p50 {_ms(_median(firsts))}, time per token p50 {_ms(_median(paces))}, "
            f"{tokens / seconds:,.1f} tokens/s one answer at a time; ended by "
            + ", ".join(f"{reason} {count}" for reason, count in sorted(finishes.items()))
        )
    lines.append("intervals: block bootstrap over pairs, 95 % over all three looks together")
    return tuple(lines)


def _median(ascending: Sequence[float]) -> float | None:
    return ascending[len(ascending) // 2] if ascending else None


def _interval(ratio: Ratio) -> str:
    return f"95 %: {ratio.low:.2f}x to {ratio.high:.2f}x"


def _ms(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds * 1e3:.3g} ms"
