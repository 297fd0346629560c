"""The performance check: is the candidate as fast as stable on this machine, both in turn under the same load?

Two servers measured one after the other differ by what the machine did meanwhile; so blocks of well under a second take
turns, in an order drawn for each pair, and each pair gets the same schedule and the same requests. Only one server is
loaded at a time. Latency counts from when a request was due (`bench.load`). PASS and FAIL are claimed when an interval
lies inside or outside its limit as a whole (`ratios`); else it is measured on, three times as long at most.

The delay of the generator is part of every latency, of both sides alike, and pulls a ratio towards 1: where half of
a latency is delay, a server that takes twice as long shows as 1.5x. Beyond that nothing is claimed. A pair of blocks in
which the generator stalled tells of this machine and of neither server: it is left out, whatever the servers did in it,
but for requests that failed. Called by `served`.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from graylift.bench.load import LoadPlan, PreparedRequest, load
from graylift.bench.report import LAG_LIMIT_S, LoadReport
from graylift.bench.saturation import Saturated, saturate
from graylift.checks.memory import process_memory
from graylift.checks.questions import Question
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
from graylift.domain.histogram import Histogram, merged
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import PerformanceCheck

CHECK = "performance"

LOOKS = 3
CONFIDENCE = 1 - 0.05 / LOOKS
"""Of one look, so that all three together are right 95 times in 100."""
_LONGEST_BLOCK_S = 0.5
_PAIRS = 20
"""In the first look, at least. Many short pairs: the closer two blocks lie, the more of the machine's mood cancels."""
_LAG_SHARE = 0.5
_TIMEOUT_S = 10.0
_SATURATED_BLOCK_S = 0.25
_SATURATED_PAIRS = 10
_IN_FLIGHT = 8

T = TypeVar("T")


@dataclass(slots=True)
class Measured:
    """What was seen so far, as (stable's, candidate's) pairs."""

    loads: list[tuple[LoadReport, LoadReport]] = field(default_factory=list[tuple[LoadReport, LoadReport]])
    saturated: list[tuple[Saturated, Saturated]] = field(default_factory=list[tuple[Saturated, Saturated]])

    @property
    def timely(self) -> list[tuple[LoadReport, LoadReport]]:
        """The pairs in which the generator did not stall."""
        return [pair for pair in self.loads if all(report.on_schedule for report in pair)]


@dataclass(frozen=True, slots=True)
class _Finding:
    """One limit, looked at."""

    standing: Standing
    sentence: str


async def check_performance(
    spec: PerformanceCheck,
    stable: RunningServer,
    candidate: RunningServer,
    questions: Sequence[Question],
    seed: int = 0,
) -> CheckResult:
    """`duration_s` is for both sides together; a saturation run takes some 5 s more."""
    began = time.monotonic()
    chance = random.Random(seed)
    requests = [question.request for question in questions]
    measured = Measured()
    block_s = min(_LONGEST_BLOCK_S, spec.duration_s / (2 * _PAIRS))
    pairs = max(_PAIRS, round(spec.duration_s / (2 * block_s)))
    findings: Sequence[_Finding] = ()
    took, evidence, unsettled = "", (), ""
    for _ in range(LOOKS):
        await _load_in_turn(measured, spec, stable, candidate, requests, chance, block_s, pairs)
        if spec.min_throughput_ratio is not None:
            await _saturate_in_turn(measured, stable, candidate, requests, chance)
        took = f"{len(measured.loads)} interleaved pairs of blocks, {time.monotonic() - began:.0f} s"
        evidence = _evidence(measured, stable, candidate)
        failed = _failed(measured, stable, candidate)
        if failed is not None:
            outcome, sentence = failed
            return CheckResult(CHECK, outcome, f"{sentence} ({took})", evidence)
        late = why_late(measured, stable.name)
        if late is not None:
            unsettled = late
            continue
        findings = tuple(_findings(spec, measured, stable, candidate, seed))
        if any(finding.standing is Standing.BEYOND for finding in findings):
            worse = "; ".join(f.sentence for f in findings if f.standing is Standing.BEYOND)
            return CheckResult(CHECK, CheckOutcome.FAIL, f"{worse} ({took})", evidence)
        if all(finding.standing is Standing.WITHIN for finding in findings):
            said = "; ".join(finding.sentence for finding in findings)
            return CheckResult(CHECK, CheckOutcome.PASS, f"{said} ({took})", evidence)
        unsettled = "; ".join(f.sentence for f in findings if f.standing is Standing.OPEN)
    advice = "give it more duration or rate in checks.performance, or let nothing else use this machine meanwhile"
    return CheckResult(CHECK, CheckOutcome.INCONCLUSIVE, f"{unsettled}: not settled after {took}; {advice}", evidence)


async def _load_in_turn(
    measured: Measured,
    spec: PerformanceCheck,
    stable: RunningServer,
    candidate: RunningServer,
    requests: Sequence[PreparedRequest],
    chance: random.Random,
    block_s: float,
    pairs: int,
) -> None:
    for _ in range(pairs):
        seed = chance.getrandbits(32)
        reports: dict[str, LoadReport] = {}
        for role, server in _shuffled(stable, candidate, chance):
            plan = LoadPlan(server.url, spec.rate_per_s, block_s, seed=seed, timeout_s=_TIMEOUT_S)
            reports[role] = await load(plan, itertools.cycle(requests))
        measured.loads.append((reports["stable"], reports["candidate"]))


async def _saturate_in_turn(
    measured: Measured,
    stable: RunningServer,
    candidate: RunningServer,
    requests: Sequence[PreparedRequest],
    chance: random.Random,
) -> None:
    for _ in range(_SATURATED_PAIRS):
        seen: dict[str, Saturated] = {}
        for role, server in _shuffled(stable, candidate, chance):
            asked = itertools.cycle(requests)
            seen[role] = await saturate(server.url, asked, in_flight=_IN_FLIGHT, duration_s=_SATURATED_BLOCK_S)
        measured.saturated.append((seen["stable"], seen["candidate"]))


def _shuffled(
    stable: RunningServer, candidate: RunningServer, chance: random.Random
) -> list[tuple[str, RunningServer]]:
    sides = [("stable", stable), ("candidate", candidate)]
    chance.shuffle(sides)
    return sides


def _failed(measured: Measured, stable: RunningServer, candidate: RunningServer) -> tuple[CheckOutcome, str] | None:
    """What failed requests alone decide; None if there are none."""
    of_stable, of_candidate = _columns(measured.loads)
    candidates, stables = (sum(r.failed + r.shed for r in reports) for reports in (of_candidate, of_stable))
    if stables:
        total = sum(r.scheduled for r in of_stable)
        return CheckOutcome.INCONCLUSIVE, (
            f"stable, {stable.name}, itself failed {stables} of {total} requests, so there is nothing to compare with; "
            "lower checks.performance.rate, or see what it says of them"
        )
    if candidates:
        total = sum(r.scheduled for r in of_candidate)
        causes = ", ".join(sorted({cause for r in of_candidate for cause in _causes(r)}))
        return CheckOutcome.FAIL, (
            f"{candidate.name} failed {candidates} of {total} requests ({causes}), {stable.name} none of as many"
        )
    return None


def why_late(measured: Measured, stable: str) -> str | None:
    """Why the generator's own delay leaves nothing to compare so far; None if it does."""
    timely = measured.timely
    if len(timely) < FEWEST_PAIRS:
        return (
            f"the load generator itself stalled for more than {_ms(LAG_LIMIT_S)} in "
            f"{len(measured.loads) - len(timely)} of {len(measured.loads)} pairs of blocks, which tell of this machine"
        )
    lag = merged(report.lag for pair in timely for report in pair).quantile(0.5)
    median = _latency([one for one, _ in timely]).quantile(0.5)
    if lag is None or median is None:
        return "no request was due in its time: a higher rate is needed"
    if lag > _LAG_SHARE * median:
        return (
            f"the load generator itself was late by {_ms(lag)} in the median, so latencies tell of this machine: of "
            f"{stable}'s median of {_ms(median)} it may be half"
        )
    return None


def _causes(report: LoadReport) -> Iterator[str]:
    for revision in report.revisions:
        yield from (f"HTTP {status}" for status, _ in revision.statuses if status >= 400)
    yield from (error for error, _ in report.errors)
    if report.shed:
        yield "more under way than it answers"


def _findings(
    spec: PerformanceCheck, measured: Measured, stable: RunningServer, candidate: RunningServer, seed: int
) -> Iterator[_Finding]:
    blocks = [(_latency([one]), _latency([other])) for one, other in measured.timely]
    fewest = min(sum(pair[side].count for pair in blocks) for side in (0, 1))
    for quantile, limit in spec.max_latency_ratio:
        name = f"p{quantile * 100:.10g}"
        ratio = quantile_ratio(blocks, quantile, CONFIDENCE, seed)
        if ratio is None:
            yield _Finding(
                Standing.OPEN,
                f"{name} needs {requests_for(quantile):,} requests a side, in {FEWEST_PAIRS} pairs; it had {fewest:,}",
            )
            continue
        theirs = f"{stable.name}'s {_ms(ratio.stable)}"
        yield _Finding(
            at_most(ratio, limit),
            f"{candidate.name}'s {name} {_ms(ratio.candidate)} is {ratio.value:.2f}x {theirs} "
            f"({_interval(ratio)}, limit {limit:.2f}x, n={fewest:,} each)",
        )
    if spec.min_throughput_ratio is not None:
        limit = spec.min_throughput_ratio
        pairs = [((a.answers, a.elapsed_s), (b.answers, b.elapsed_s)) for a, b in measured.saturated]
        ratio = rate_ratio(pairs, CONFIDENCE, seed)
        if ratio is None:
            yield _Finding(Standing.OPEN, "a saturated server answered nothing, so there is no throughput to compare")
            return
        yield _Finding(
            at_least(ratio, limit),
            f"{candidate.name} answers {ratio.candidate:,.0f}/s at saturation, {ratio.value:.2f}x {stable.name}'s "
            f"{ratio.stable:,.0f}/s ({_interval(ratio)}, at least {limit:.2f}x)",
        )


def _evidence(measured: Measured, stable: RunningServer, candidate: RunningServer) -> tuple[str, ...]:
    lines: list[str] = []
    timely = measured.timely
    for server, reports in zip((stable, candidate), _columns(timely), strict=True):
        latency = _latency(reports)
        quantiles = ", ".join(f"p{q * 100:g} {_ms(latency.quantile(q))}" for q in (0.5, 0.9, 0.99))
        lines.append(f"{server.name}: latency {quantiles} of {latency.count} answers")
        memory = None if server.process is None else process_memory(server.process.pid)
        if memory is not None:
            lines.append(f"{server.name}: peak memory {memory.peak_bytes / 2**20:,.0f} MiB")
    if measured.saturated:
        for server, blocks in zip((stable, candidate), _columns(measured.saturated), strict=True):
            answers, failed = sum(b.answers for b in blocks), sum(b.failed for b in blocks)
            seconds = sum(b.elapsed_s for b in blocks)
            lines.append(
                f"{server.name}: {answers / seconds:,.0f} answers/s with {_IN_FLIGHT} requests under way, "
                f"{failed} failed, {seconds:.1f} s"
            )
    if stalled := len(measured.loads) - len(timely):
        lines.append(f"left out: {stalled} of {len(measured.loads)} pairs of blocks, in which the generator stalled")
    lag = merged(report.lag for pair in timely for report in pair)
    lines.append(f"generator late by p50 {_ms(lag.quantile(0.5))}, p99 {_ms(lag.quantile(0.99))}, within each latency")
    lines += (
        f"{server.name} runs at {server.url}: the way to it is part of its latency"
        for server in (stable, candidate)
        if server.process is None
    )
    lines.append("intervals: block bootstrap over pairs, 95 % over all three looks together")
    return tuple(lines)


def _columns(pairs: Sequence[tuple[T, T]]) -> tuple[list[T], list[T]]:
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _latency(reports: Sequence[LoadReport]) -> Histogram:
    return merged(revision.latency for report in reports for revision in report.revisions)


def _interval(ratio: Ratio) -> str:
    return f"95 %: {ratio.low:.2f}x to {ratio.high:.2f}x"


def _ms(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds * 1e3:.3g} ms"
