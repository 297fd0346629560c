"""Stable's recent past: what a comparison may know before it sees an interval.

Kernels stay valid with any threshold and any guess that was fixed before the interval; this one remembers stable's
last GENERATION to twice GENERATION requests, in two generations of whole intervals: when the newer one is full it
becomes the older one. It follows the day, its size does not grow, and it depends on whole intervals alone. Our
choice; no paper.

Small n: a tau-quantile is not used before there were 1 / (1 - tau) answers, at least FEWEST, and a mean score not
before FEWEST; shares start from a prior of PRIOR_REQUESTS requests. Cost: a histogram sum an interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graylift.analysis.sample import NOTHING, Sample, added
from graylift.domain.histogram import Histogram, merged
from graylift.domain.spec import Check, Metric
from graylift.domain.tally import tallied

GENERATION = 5_000
FEWEST = 10
PRIOR_REQUESTS = 10.0
PRIOR_FAILED = 0.1
PRIOR_SCORE = 0.5


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

    def answers(self, check: Check) -> int:
        """How many of stable's answers show what a check is about."""
        return self.older.answers(check) + self.newer.answers(check)

    def times(self, metric: Metric) -> Histogram:
        """Of those answers; a sum, so ask once."""
        return merged((self.older.times(metric), self.newer.times(metric)))

    def mean_score(self, name: str | None) -> float:
        """A guess of stable's mean score, in (0, 1); measured, with a prior."""
        scores = (self.older.scored(name), self.newer.scored(name))
        total = sum(found.mean * found.count for found in scores if found.mean is not None)
        return (total + PRIOR_SCORE) / (sum(found.count for found in scores) + 2 * PRIOR_SCORE)

    def bad_share(self, name: str | None) -> float:
        """A guess of the share of stable's events of that name that are bad, in (0, 1); measured, with a prior."""
        tally = tallied((self.older.tally(name), self.newer.tally(name)))
        return (tally.bad + PRIOR_FAILED) / (tally.total + PRIOR_REQUESTS)


UNKNOWN = Reference()


def answers_needed(check: Check) -> int:
    """How many answers of stable's a check takes: of a tau-quantile, until one of them is expected beyond it."""
    if check.metric in (Metric.ERRORS, Metric.SHARE):
        return 0
    return FEWEST if check.quantile is None else max(FEWEST, math.ceil(1 / (1 - check.quantile) - 1e-9))


def learn(reference: Reference, interval: Sample) -> Reference:
    """The reference after one more interval of stable."""
    newer = added((reference.newer, interval))
    if newer.requests >= GENERATION:
        return Reference(older=newer)
    return Reference(older=reference.older, newer=newer)
