"""What holds where a release file says nothing. The one place; docs/release-file.md repeats it, and a test compares.

Why these numbers: between two runs of the same model, latencies differ by several percent, and more in the tail, so a
rollback margin below 1.10x at the median or 1.20x at p99 would blame candidates for the machine's mood. A promote
margin costs traffic in inverse proportion to its square: at 1 % of the traffic the stated margins could take days, so
small stages ask only whether the candidate is no catastrophe, and the stages from 20 % on, where data is plenty and a
wrong answer matters, ask for the stated margin.
"""

from __future__ import annotations

from decimal import Decimal

from graylift.domain.spec import Check, ChecksSpec, Margin, MarginKind, Metric, Serving
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

NO_CATASTROPHE = {Metric.ERRORS: _points(0.05), Metric.LATENCY: _ratio(2.0)}
"""The promote margins of stages below FULL_RIGOUR that name none, where they are looser than the check's own."""

FULL_RIGOUR = weights_from_percent(Decimal(20))
"""From this weight on a stage asks for each check's own promote margin."""

PRE_RELEASE_CHECKS = ChecksSpec()
"""Each check's own defaults stand with its type: whoever makes such a value elsewhere gets the same."""

MIN_REQUESTS = 0
FALSE_ROLLBACK = 0.01
FALSE_PROMOTION = 0.05
READY_WITHIN_S = 60.0
TIMEOUT_S = 30.0
SILENCE_S = 120.0
"""The timeout where answers are streams of tokens. An answer that is no stream is silent until its last token."""
THREADS = 1
SERVING = Serving()
