"""What a person knows of a service's traffic before a release: its rate, its errors, some quantiles of its times, and
what its scores are like.

Between two known quantiles the logarithm of the time is taken as linear in the normal score, and beyond the outer
ones the line goes on: with one or two quantiles that is a lognormal law. A tail heavier than the last two quantiles
tell makes a plan optimistic. Scores follow a beta law of their mean and spread. Called by `planner`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import assert_never

from graylift.domain.spec import Metric

_NORMAL = NormalDist()
_USUAL_SIGMA = 0.5
"""Of the logarithm, where only one quantile is known: p99 is then 3.2 times p50."""


@dataclass(frozen=True, slots=True)
class Times:
    """quantiles: (q, seconds), ascending in both"""

    quantiles: tuple[tuple[float, float], ...]

    def quantile(self, q: float) -> float:
        """Seconds."""
        return math.exp(self._log_time(_NORMAL.inv_cdf(q)))

    def share_from(self, seconds: float) -> float:
        """The share of answers that take at least so long."""
        target, low, high = math.log(seconds), -12.0, 12.0
        for _ in range(60):
            middle = (low + high) / 2
            if self._log_time(middle) < target:
                low = middle
            else:
                high = middle
        return 1 - _NORMAL.cdf(low)

    def _log_time(self, score: float) -> float:
        points = [(_NORMAL.inv_cdf(q), math.log(seconds)) for q, seconds in self.quantiles]
        if len(points) == 1:
            points.append((points[0][0] + 1, points[0][1] + _USUAL_SIGMA))
        after = next((i for i, (known, _) in enumerate(points) if known >= score), len(points) - 1)
        (z0, y0), (z1, y1) = points[max(0, after - 1)], points[max(1, after)]
        return y0 + (score - z0) * (y1 - y0) / (z1 - z0)


@dataclass(frozen=True, slots=True)
class Scores:
    """mean, sd: of a score from 0 to 1, sd**2 < mean * (1 - mean). share: of requests that get one."""

    mean: float
    sd: float
    share: float

    def law(self, worse: float) -> tuple[float, float]:
        """The beta law of a candidate's whose mean differs by `worse`, as far as the scale goes; its spread is no
        wider than that of stable."""
        mean = min(0.995, max(0.005, self.mean + worse))
        weight = max(mean * (1 - mean) / self.sd**2 - 1, 0.01)
        return mean * weight, (1 - mean) * weight


@dataclass(frozen=True, slots=True)
class Traffic:
    """rate: requests a second, both arms together. errors: the share of stable's requests that fail.

    latency, ttft, tpot: of its answers; every answer is taken to stream where one of the latter two is judged
    scores: of every measure alike
    """

    rate: float
    errors: float
    latency: Times
    ttft: Times
    tpot: Times
    scores: Scores

    def times(self, metric: Metric) -> Times:
        match metric:
            case Metric.LATENCY:
                return self.latency
            case Metric.TTFT:
                return self.ttft
            case Metric.TPOT:
                return self.tpot
            case Metric.ERRORS | Metric.SCORE | Metric.SHARE:
                raise ValueError(f"{metric.value} is no time")
            case _:
                assert_never(metric)
