"""What `graylift bench` measured, as a table and as JSON; of two targets also their ratios, with intervals.

Built from blocks of numbers alone; how they came is `benching`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table

from graylift.bench.report import LAG_LIMIT_S, LoadReport
from graylift.bench.saturation import Saturated
from graylift.checks.ratios import Ratio, quantile_ratio, rate_ratio
from graylift.domain.histogram import EMPTY, Histogram, merged

QUANTILES = (0.5, 0.9, 0.99)
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Block:
    """One stretch of load on one target. lag: how late the generator itself sent; none in a closed loop."""

    answers: int
    failed: int
    elapsed_s: float
    latency: Histogram
    lag: Histogram = EMPTY
    errors: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """One target. rate_per_s: as asked for; None in a closed loop."""

    target: str
    rate_per_s: float | None
    concurrency: int
    blocks: tuple[Block, ...]

    @property
    def answers(self) -> int:
        return sum(block.answers for block in self.blocks)

    @property
    def failed(self) -> int:
        return sum(block.failed for block in self.blocks)

    @property
    def answers_per_s(self) -> float:
        elapsed_s = sum(block.elapsed_s for block in self.blocks)
        return self.answers / elapsed_s if elapsed_s else 0.0

    @property
    def latency(self) -> Histogram:
        return merged(block.latency for block in self.blocks)

    @property
    def lag_p99_s(self) -> float | None:
        return merged(block.lag for block in self.blocks).quantile(0.99)

    @property
    def errors(self) -> dict[str, int]:
        errors: dict[str, int] = {}
        for block in self.blocks:
            for name, count in block.errors:
                errors[name] = errors.get(name, 0) + count
        return errors

    @property
    def problem(self) -> str | None:
        """Why its numbers are not to be believed as they are; None if they are."""
        if self.failed:
            causes = ", ".join(f"{name}: {count}" for name, count in sorted(self.errors.items()))
            return f"{self.failed:,} requests failed" + (f" ({causes})" if causes else "")
        if not self.answers:
            return "no request was answered"
        lag = self.lag_p99_s
        if lag is not None and lag > LAG_LIMIT_S:
            return (
                f"the load generator itself was late: p99 {_ms(lag)}, limit {_ms(LAG_LIMIT_S)}; "
                "lower --rate, or let nothing else use this machine"
            )
        return None


def block_from_load(report: LoadReport) -> Block:
    errors = dict(report.errors)
    for revision in report.revisions:
        for status, count in revision.statuses:
            if status >= 400:
                errors[f"HTTP {status}"] = errors.get(f"HTTP {status}", 0) + count
    if report.shed:
        errors["never sent, too many were under way"] = report.shed
    return Block(
        answers=sum(revision.answers - revision.failed for revision in report.revisions),
        failed=report.failed + report.shed,
        elapsed_s=report.elapsed_s,
        latency=merged(revision.latency for revision in report.revisions),
        lag=report.lag,
        errors=tuple(errors.items()),
    )


def block_from_saturated(seen: Saturated) -> Block:
    return Block(seen.answers, seen.failed, seen.elapsed_s, seen.latency)


def ratios(first: Measured, second: Measured) -> list[tuple[str, Ratio | None]]:
    """second / first of each quantile and, in a closed loop, of the throughput; None with too little to tell."""
    pairs = list(zip(first.blocks, second.blocks, strict=True))
    latency = [(one.latency, other.latency) for one, other in pairs]
    found = [(_name(q), quantile_ratio(latency, q, _CONFIDENCE, 0)) for q in QUANTILES]
    if first.rate_per_s is None:
        answers = [((a.answers, a.elapsed_s), (b.answers, b.elapsed_s)) for a, b in pairs]
        found.append(("answers/s", rate_ratio(answers, _CONFIDENCE, 0)))
    return found


def document(measured: Sequence[Measured]) -> dict[str, Any]:
    """For --json. Durations in milliseconds; ratios are second / first."""
    one = measured[0]
    return {
        "loop": "closed" if one.rate_per_s is None else "open",
        "ratePerS": one.rate_per_s,
        "concurrency": one.concurrency if one.rate_per_s is None else None,
        "targets": [_entry(m) for m in measured],
        "ratios": None
        if len(measured) < 2
        else {
            name: None if r is None else {"value": round(r.value, 4), "low": round(r.low, 4), "high": round(r.high, 4)}
            for name, r in ratios(measured[0], measured[1])
        },
    }


def print_measured(console: Console, measured: Sequence[Measured]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("", *(_name(q) for q in QUANTILES), "answers/s", "answers", "failed", "sent late, p99"):
        table.add_column(heading, justify="right" if heading else "left", header_style="dim")
    for one in measured:
        latency = one.latency
        table.add_row(
            one.target,
            *(_ms(latency.quantile(q)) for q in QUANTILES),
            f"{one.answers_per_s:,.1f}",
            f"{one.answers:,}",
            f"{one.failed:,}",
            _ms(one.lag_p99_s),
        )
    console.print(table)
    one = measured[0]
    if one.rate_per_s is None:
        console.print(f"closed loop, {one.concurrency} at once: times are from sent to answered", style="dim")
    else:
        console.print(f"open loop, {one.rate_per_s:g}/s: times are from when a request was due", style="dim")
    for first, second in pairwise(measured):
        console.print(f"{second.target} / {first.target}, in {len(first.blocks)} interleaved pairs:", markup=False)
        for name, ratio in ratios(first, second):
            said = "too little to tell" if ratio is None else _in_words(ratio)
            console.print(f"  {name:9} {said}", markup=False)
    for each in measured:
        if each.problem is not None:
            console.print(f"not to be believed as it is: {each.target}: {each.problem}", style="bold red", markup=False)


def _entry(measured: Measured) -> dict[str, Any]:
    latency = measured.latency
    return {
        "target": measured.target,
        "answers": measured.answers,
        "failed": measured.failed,
        "errors": measured.errors,
        "answersPerS": round(measured.answers_per_s, 2),
        "latencyMs": {_name(q): _number(latency.quantile(q)) for q in QUANTILES},
        "lagP99Ms": _number(measured.lag_p99_s),
        "problem": measured.problem,
    }


def _in_words(ratio: Ratio) -> str:
    return f"{ratio.value:.2f}x (95 %: {ratio.low:.2f}x to {ratio.high:.2f}x)"


def _name(quantile: float) -> str:
    return f"p{quantile * 100:g}"


def _number(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 4)


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e3:.3g} ms"
