"""What one arm showed: counts and latencies of requests that are a sample of the traffic. Windows in, sums out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graylift.domain.evidence import Window
from graylift.domain.histogram import EMPTY, Histogram, merged
from graylift.domain.weights import Role


@dataclass(frozen=True, slots=True)
class Sample:
    """Requests of one arm; the fields are those of Window."""

    requests: int = 0
    failed: int = 0
    abandoned: int = 0
    latency: Histogram = EMPTY

    @property
    def failed_share(self) -> float | None:
        """Of its requests, those that failed; None without a request."""
        return self.failed / self.requests if self.requests else None

    def answered(self) -> Sample:
        """Only the requests that were answered."""
        return replace(self, requests=self.requests - self.failed, failed=0)

    def slower_than(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many requests lie in bins higher than each of `numbers`; one that failed is slower than every answer."""
        if not self.latency.bins:
            return np.full(numbers.shape, self.failed)
        bins, counts = np.array(self.latency.bins).T
        up_to = np.concatenate(([0], np.cumsum(counts)))
        return self.failed + up_to[-1] - up_to[np.searchsorted(bins, numbers, side="right")]


NOTHING = Sample()


@dataclass(frozen=True, slots=True)
class Stratum:
    """Both arms in one interval under one split: what a comparison may be made of."""

    candidate: Sample
    stable: Sample

    @property
    def can_compare(self) -> bool:
        return self.candidate.requests > 0 and self.stable.requests > 0


def unlabelled(windows: Sequence[Window]) -> tuple[Window, ...]:
    """The windows that were drawn by weight or hash. Requests that a label sent somewhere are no sample."""
    return tuple(window for window in windows if window.label is None)


def sample_from_windows(windows: Iterable[Window]) -> Sample:
    """The sum of windows, whatever they belong to."""
    return added(Sample(w.requests, w.failed, w.abandoned, w.latency) for w in windows)


def stratum_from_windows(windows: Sequence[Window], split: str) -> Stratum:
    """Both arms of one split."""
    candidate, stable = (
        sample_from_windows(w for w in windows if w.split == split and w.arm is role)
        for role in (Role.CANDIDATE, Role.STABLE)
    )
    return Stratum(candidate, stable)


def added(samples: Iterable[Sample]) -> Sample:
    """The sum of samples."""
    parts = tuple(samples)
    latencies = tuple(part.latency for part in parts if part.latency.bins)
    return Sample(
        requests=sum(part.requests for part in parts),
        failed=sum(part.failed for part in parts),
        abandoned=sum(part.abandoned for part in parts),
        latency=latencies[0] if len(latencies) == 1 else merged(latencies),
    )
