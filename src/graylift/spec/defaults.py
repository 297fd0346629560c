"""What holds where a release file says nothing. The one place; docs/release-file.md repeats it, and a test compares.

Why these numbers: between two runs of the same model, latencies differ by several percent, and more in the tail, so a
rollback margin below 1.10x at the median or 1.20x at p99 would blame candidates for the machine's mood. A promote
margin costs traffic in inverse proportion to its square: at 1 % of the traffic the stated margins could take days, so
small stages ask only whether the candidate is no catastrophe, and the stages from 20 % on, where data is plenty and a
wrong answer matters, ask for the stated margin.

A streamed answer takes as long as it has words, and a new version may rightly choose others: its latency is no measure
of the server. What a user waits for is, the first token and then the pace, and both at p95: the time to first token
follows the length of the prompt and the queue, so the last percent of it tells of the prompts that came.
"""

from __future__ import annotations

from decimal import Decimal
from typing import assert_never

from graylift.domain.spec import Check, ChecksSpec, Margin, MarginKind, Metric, Serving, ServingProtocol
from graylift.domain.weights import weights_from_percent


def _points(share: float) -> Margin:
    return Margin(MarginKind.POINTS, share)


def _ratio(value: float) -> Margin:
    return Margin(MarginKind.RATIO, value)


CHECKS = (
    Check(Metric.ERRORS, None, rollback_if_worse=_points(0.005), promote_if_within=_points(0.01)),
    Check(Metric.LATENCY, 0.5, rollback_if_worse=_ratio(1.10), promote_if_within=_ratio(1.25)),
    Check(Metric.LATENCY, 0.99, rollback_if_worse=_ratio(1.20), promote_if_within=_ratio(1.50)),
)

STREAM_CHECKS = (
    CHECKS[0],
    Check(Metric.TTFT, 0.95, rollback_if_worse=_ratio(1.20), promote_if_within=_ratio(1.50)),
    Check(Metric.TPOT, 0.95, rollback_if_worse=_ratio(1.20), promote_if_within=_ratio(1.50)),
)


def checks_of(protocol: ServingProtocol) -> tuple[Check, ...]:
    """What is judged where the file names no metric."""
    match protocol:
        case ServingProtocol.OPEN_INFERENCE:
            return CHECKS
        case ServingProtocol.OPENAI:
            return STREAM_CHECKS
        case _:
            assert_never(protocol)


_TENTH_OF_THE_SCALE = 0.1


def no_catastrophe(check: Check) -> Margin:
    """The promote margin of a stage below FULL_RIGOUR that names none, where it is looser than the check's own."""
    match check.metric:
        case Metric.ERRORS:
            return _points(0.05)
        case Metric.LATENCY | Metric.TTFT | Metric.TPOT:
            return _ratio(2.0)
        case Metric.SCORE:
            lower_is_worse = check.promote_if_within.value < 0
            return Margin(MarginKind.SCORE, -_TENTH_OF_THE_SCALE if lower_is_worse else _TENTH_OF_THE_SCALE)
        case Metric.SHARE:
            return _points(0.05) if check.promote_if_within.kind is MarginKind.POINTS else _ratio(3.0)
        case _:
            assert_never(check.metric)


FULL_RIGOUR = weights_from_percent(Decimal(20))
"""From this weight on a stage asks for each check's own promote margin."""

PRE_RELEASE_CHECKS = ChecksSpec()
"""Each check's own defaults stand with its type: whoever makes such a value elsewhere gets the same."""

MIN_REQUESTS = 0
FALSE_ROLLBACK = 0.01
FALSE_PROMOTION = 0.05
READY_WITHIN_S = 60.0
TIMEOUT_S = 30.0
EVERY_S = 60.0
PUSHED_EVERY_S = 180.0
SILENCE_S = 120.0
"""The timeout where answers are streams of tokens. An answer that is no stream is silent until its last token."""
ANSWER_TOKENS = 1024
"""Reserved for an answer whose request sets no max_tokens; what it really takes is charged at its end."""
THREADS = 1
SERVING = Serving()
