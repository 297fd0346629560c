"""What one arm showed: counts, times and scores of requests that are a sample of the traffic. Windows in, sums out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from graylift.domain.evidence import Window
from graylift.domain.histogram import EMPTY, Histogram, merged
from graylift.domain.scores import NO_SCORES, ScoreCounts, scores_from_counts
from graylift.domain.spec import Check, Metric
from graylift.domain.tally import NO_EVENTS, Tally, tallied
from graylift.domain.weights import Role


@dataclass(frozen=True, slots=True)
class Sample:
    """Requests of one arm; the fields are those of Window."""

    requests: int = 0
    failed: int = 0
    abandoned: int = 0
    latency: Histogram = EMPTY
    ttft: Histogram = EMPTY
    tpot: Histogram = EMPTY
    scores: tuple[tuple[str, ScoreCounts], ...] = ()
    external: tuple[tuple[str, Tally], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Is there nothing in it to compare?"""
        return not (self.requests or self.scores or self.external)

    @property
    def failed_share(self) -> float | None:
        """Of its requests, those that failed; None without a request."""
        return self.failed / self.requests if self.requests else None

    def times(self, metric: Metric) -> Histogram:
        """Of the answers, what a metric of time measures; ValueError for any other metric."""
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

    def scored(self, name: str | None) -> ScoreCounts:
        return dict(self.scores).get(name or "", NO_SCORES)

    def tally(self, name: str | None) -> Tally:
        return dict(self.external).get(name or "", NO_EVENTS)

    def answers(self, check: Check) -> int:
        """How many answers show what a check is about: all of them, those that streamed, or those that have a score;
        of events that others count, all."""
        match check.metric:
            case Metric.ERRORS:
                return self.requests - self.failed
            case Metric.LATENCY | Metric.TTFT | Metric.TPOT:
                return self.times(check.metric).count
            case Metric.SCORE:
                return self.scored(check.score).count
            case Metric.SHARE:
                return self.tally(check.share).total
            case _:
                assert_never(check.metric)

    def sized(self, check: Check) -> int:
        """The sample size of a check: requests, where those that failed are among them, else answers."""
        return self.requests if check.metric in (Metric.ERRORS, Metric.LATENCY) else self.answers(check)

    def value(self, check: Check) -> float | None:
        """What a check measures: a share, seconds, or a mean score; None without any sample of it."""
        match check.metric:
            case Metric.ERRORS:
                return self.failed_share
            case Metric.LATENCY | Metric.TTFT | Metric.TPOT:
                return self.times(check.metric).quantile(check.quantile or 0.5)
            case Metric.SCORE:
                return self.scored(check.score).mean
            case Metric.SHARE:
                return self.tally(check.share).share
            case _:
                assert_never(check.metric)

    def answered(self) -> Sample:
        """Only the requests that were answered."""
        return replace(self, requests=self.requests - self.failed, failed=0)

    def slower_than(self, numbers: NDArray[np.int64], metric: Metric) -> NDArray[np.int64]:
        """How many requests lie in bins higher than each of `numbers`; one that failed is slower than every answer."""
        times = self.times(metric)
        if not times.bins:
            return np.full(numbers.shape, self.failed)
        bins, counts = np.array(times.bins).T
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
        return not self.candidate.is_empty and not self.stable.is_empty


def unlabelled(windows: Sequence[Window]) -> tuple[Window, ...]:
    """The windows that were drawn by weight or hash. Requests that a label sent somewhere are no sample."""
    return tuple(window for window in windows if window.label is None)


def sample_from_windows(windows: Iterable[Window], names: Collection[str] = ()) -> Sample:
    """The sum of windows, whatever they belong to, with the scores and the shares of these names alone."""
    return added(
        Sample(
            requests=w.requests,
            failed=w.failed,
            abandoned=w.abandoned,
            latency=w.latency,
            ttft=w.ttft,
            tpot=w.tpot,
            scores=tuple((name, found) for name, found in w.scores if name in names),
            external=tuple((name, found) for name, found in w.external if name in names),
        )
        for w in windows
    )


def stratum_from_windows(windows: Sequence[Window], split: str, names: Collection[str] = ()) -> Stratum:
    """Both arms of one split."""
    candidate, stable = (
        sample_from_windows((w for w in windows if w.split == split and w.arm is role), names)
        for role in (Role.CANDIDATE, Role.STABLE)
    )
    return Stratum(candidate, stable)


def added(samples: Iterable[Sample]) -> Sample:
    """The sum of samples."""
    parts = tuple(samples)
    return Sample(
        requests=sum(part.requests for part in parts),
        failed=sum(part.failed for part in parts),
        abandoned=sum(part.abandoned for part in parts),
        latency=_times(part.latency for part in parts),
        ttft=_times(part.ttft for part in parts),
        tpot=_times(part.tpot for part in parts),
        scores=_scores(parts),
        external=_external(parts),
    )


def _times(histograms: Iterable[Histogram]) -> Histogram:
    filled = tuple(histogram for histogram in histograms if histogram.bins)
    return filled[0] if len(filled) == 1 else merged(filled)


def _scores(parts: Sequence[Sample]) -> tuple[tuple[str, ScoreCounts], ...]:
    counts: dict[str, Counter[int]] = {}
    for part in parts:
        for name, scores in part.scores:
            counts.setdefault(name, Counter()).update(dict(scores.steps))
    return tuple((name, scores_from_counts(found)) for name, found in sorted(counts.items()))


def _external(parts: Sequence[Sample]) -> tuple[tuple[str, Tally], ...]:
    names = sorted({name for part in parts for name, _ in part.external})
    return tuple((name, tallied(part.tally(name) for part in parts)) for name in names)
