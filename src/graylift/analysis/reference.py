"""Stable's recent past: what a comparison may know before it sees an interval.

Kernels stay valid with any threshold and any guess that was fixed before the interval; this one remembers stable's
last GENERATION to twice GENERATION requests, in two generations of whole intervals: when the newer one is full it
becomes the older one. It follows the day, its size does not grow, and it depends on whole intervals alone. Our
choice; no paper.

Small n: a tau-quantile is not used before there were 1 / (1 - tau) answers, at least FEWEST; the share of failures
starts from a prior of PRIOR_REQUESTS requests. Cost: one histogram sum an interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graylift.analysis.sample import NOTHING, Sample, added
from graylift.domain.histogram import Histogram, merged

GENERATION = 5_000
FEWEST = 10
PRIOR_REQUESTS = 10.0
PRIOR_FAILED = 0.1


@dataclass(frozen=True, slots=True)
class Reference:
    """Stable's requests of earlier intervals."""

    older: Sample = NOTHING
    newer: Sample = NOTHING

    @property
    def requests(self) -> int:
        return self.older.requests + self.newer.requests

    @property
    def failed(self) -> int:
        """Of these requests, those that failed."""
        return self.older.failed + self.newer.failed

    @property
    def failed_share(self) -> float:
        """A guess of the share of requests that stable fails, in (0, 1); measured, with a prior."""
        return (self.failed + PRIOR_FAILED) / (self.requests + PRIOR_REQUESTS)

    @property
    def answers(self) -> int:
        """How many requests stable answered."""
        return self.older.latency.count + self.newer.latency.count

    @property
    def latency(self) -> Histogram:
        """Of those answers; a sum, so ask once."""
        return merged((self.older.latency, self.newer.latency))


UNKNOWN = Reference()


def answers_needed(tau: float) -> int:
    """How many answers it takes before one of them is expected beyond the tau-quantile."""
    return max(FEWEST, math.ceil(1 / (1 - tau) - 1e-9))


def learn(reference: Reference, interval: Sample) -> Reference:
    """The reference after one more interval of stable."""
    newer = added((reference.newer, interval))
    if newer.requests >= GENERATION:
        return Reference(older=newer)
    return Reference(older=reference.older, newer=newer)
