"""What a person knows of a service's traffic before a release: its rate, its errors, some quantiles of its latency.

Between two known quantiles the logarithm of the latency is taken as linear in the normal score, and beyond the outer
ones the line goes on: with one or two quantiles that is a lognormal law. A tail heavier than the last two quantiles
tell makes a plan optimistic. Called by `planner`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

_NORMAL = NormalDist()
_USUAL_SIGMA = 0.5
"""Of ln latency, where only one quantile is known: p99 is then 3.2 times p50."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """rate: requests a second, both arms together. errors: the share of stable's requests that fail.

    quantiles: (q, seconds), ascending in both
    """

    rate: float
    errors: float
    quantiles: tuple[tuple[float, float], ...]

    def quantile(self, q: float) -> float:
        """Seconds."""
        return math.exp(self._log_latency(_NORMAL.inv_cdf(q)))

    def share_from(self, seconds: float) -> float:
        """The share of answers that take at least so long."""
        target, low, high = math.log(seconds), -12.0, 12.0
        for _ in range(60):
            middle = (low + high) / 2
            if self._log_latency(middle) < target:
                low = middle
            else:
                high = middle
        return 1 - _NORMAL.cdf(low)

    def _log_latency(self, score: float) -> float:
        points = [(_NORMAL.inv_cdf(q), math.log(seconds)) for q, seconds in self.quantiles]
        if len(points) == 1:
            points.append((points[0][0] + 1, points[0][1] + _USUAL_SIGMA))
        after = next((i for i, (known, _) in enumerate(points) if known >= score), len(points) - 1)
        (z0, y0), (z1, y1) = points[max(0, after - 1)], points[max(1, after)]
        return y0 + (score - z0) * (y1 - y0) / (z1 - z0)
