"""Numbers, times and margins as a reader of the page wants them. Called by the renderings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import assert_never

from graylift.domain.judgement import Verdict
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import Check, MarginKind, Metric, ShadowCheck


def utc(epoch_s: float) -> str:
    """`2026-03-01 12:31:05 UTC`"""
    return f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(seconds: float) -> str:
    """A length of time, in its two largest units: `1 h 5 min`, `42 s`."""
    whole = max(0, round(seconds))
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)]
    parts = [f"{whole // size % (limit // size)} {unit}" for (unit, size), limit in zip(units, _LIMITS, strict=True)]
    first = next(index for index, (_, size) in enumerate(units) if whole >= size)
    return " ".join(part for part in parts[first : first + 2] if not part.startswith("0 "))


_OF_PAIRS = frozenset(check.value for check in ShadowCheck)
"""Judged by their margins alone, without an interval."""
_LIMITS = (86_400 * 10**6, 86_400, 3600, 60)


def latency(seconds: float | None) -> str:
    """`0.21 ms`, `12.4 ms`, `1.53 s`: three digits."""
    if seconds is None:
        return "–"
    number, unit = (seconds, "s") if seconds >= 1 else (seconds * 1000, "ms")
    digits = max(0, 2 - math.floor(math.log10(number))) if number > 0 else 0
    return f"{number:.{min(digits, 6)}f} {unit}"


def share(value: float | None) -> str:
    """`0.42 %`"""
    return "–" if value is None else f"{value * 100:.3g} %"


def count(number: int) -> str:
    return f"{number:,}"


def score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def pace(seconds: float | None) -> str:
    """`20.4 ms/token`"""
    return latency(seconds) + ("" if seconds is None else "/token")


def measured(value: float | None, check: Check) -> str:
    match check.metric:
        case Metric.ERRORS | Metric.SHARE:
            return share(value)
        case Metric.LATENCY | Metric.TTFT:
            return latency(value)
        case Metric.TPOT:
            return pace(value)
        case Metric.SCORE:
            return score(value)
        case _:
            assert_never(check.metric)


def effect(verdict: Verdict, check: Check) -> str:
    """The 95 % interval of the effect: `0.97x to 1.08x`, `-0.2pp to +0.4pp`, `-0.010 to +0.005`."""
    low, high = verdict.effect_low, verdict.effect_high
    if verdict.check in _OF_PAIRS:
        return "–"
    if low is None and high is None:
        return "not known yet"
    if low is None:
        return f"up to {_effect(high, check)}"
    if high is None:
        return f"from {_effect(low, check)}"
    return f"{_effect(low, check)} to {_effect(high, check)}"


def _effect(value: float | None, check: Check) -> str:
    assert value is not None
    kind = check.rollback_if_worse.kind
    match kind:
        case MarginKind.POINTS:
            return f"{value * 100:+.2f}pp"
        case MarginKind.RATIO:
            return f"{value:.2f}x"
        case MarginKind.SCORE:
            return f"{value:+.3f}"
        case _:
            assert_never(kind)


def tally(results: Sequence[CheckResult]) -> str:
    """`7 checks: 5 PASS, 1 FAIL, 1 SKIPPED`"""
    outcomes = [result.outcome for result in results]
    said = ", ".join(f"{outcomes.count(outcome)} {outcome.value}" for outcome in CheckOutcome if outcome in outcomes)
    return f"{len(results)} check{'s' * (len(results) != 1)}" + (f": {said}" if said else "")
