"""Interval reports -> what each arm got over time, in few enough points to draw.

Points are merged, not sampled: counts are added and histograms merged, so every point is exact for its stretch of
time. Called by `facts`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from graylift.domain.evidence import INTERVAL_S, IntervalReport, Window
from graylift.domain.histogram import Histogram, merged
from graylift.domain.release import Release
from graylift.domain.scores import ScoreCounts, scores_from_counts
from graylift.domain.weights import Role

MOST_POINTS = 200
LEAST_REQUESTS = 20
"""A share or a quantile of fewer requests is noise to the eye."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Requests of one arm that were assigned by weight or hash (those with a label are no sample).

    reasons: (reason, count), most frequent first
    ttft, tpot, input_tokens, output_tokens, scores: as in Window
    """

    requests: int
    failed: int
    unanswered: int
    abandoned: int
    latency: Histogram
    reasons: tuple[tuple[str, int], ...]
    ttft: Histogram
    tpot: Histogram
    input_tokens: int
    output_tokens: int
    scores: tuple[tuple[str, ScoreCounts], ...]

    @property
    def p50_s(self) -> float | None:
        return self.latency.quantile(0.5)

    @property
    def p99_s(self) -> float | None:
        return self.latency.quantile(0.99)

    @property
    def failed_share(self) -> float | None:
        return self.failed / self.requests if self.requests else None

    @property
    def tokens_each(self) -> float | None:
        """Output tokens of an answer, on average; None where nobody counts tokens."""
        answers = self.requests - self.failed
        return self.output_tokens / answers if answers and self.output_tokens else None


@dataclass(frozen=True, slots=True)
class Point:
    """One arm over [start_s, start_s + length_s). Everything is None where no gateway reported."""

    start_s: float
    length_s: float
    totals: Totals | None

    @property
    def rate(self) -> float | None:
        """Requests a second."""
        return None if self.totals is None else self.totals.requests / self.length_s


def windows_of(release: Release, role: Role, reports: Iterable[IntervalReport]) -> list[Window]:
    """What one arm of this release got; labelled requests left out."""
    revision = release.stable if role is Role.STABLE else release.candidate
    return [
        window
        for report in reports
        for window in report.windows
        if window.service == release.service
        and window.arm is role
        and window.label is None
        and (revision is None or window.revision_id == revision.id)
    ]


def totals_from(parts: Sequence[Window | Totals]) -> Totals:
    """Their sum."""
    reasons: Counter[str] = Counter()
    scores: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for part in parts:
        reasons.update(dict(part.reasons))
        for name, found in part.scores:
            scores[name].update(dict(found.steps))
    return Totals(
        requests=sum(part.requests for part in parts),
        failed=sum(part.failed for part in parts),
        unanswered=sum(part.unanswered for part in parts),
        abandoned=sum(part.abandoned for part in parts),
        latency=merged(part.latency for part in parts),
        reasons=tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        ttft=merged(part.ttft for part in parts),
        tpot=merged(part.tpot for part in parts),
        input_tokens=sum(part.input_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        scores=tuple((name, scores_from_counts(counts)) for name, counts in sorted(scores.items())),
    )


def series_from(release: Release, role: Role, reports: Sequence[IntervalReport]) -> tuple[Point, ...]:
    """At most MOST_POINTS points from the first report to the last, each as long as a whole number of intervals."""
    if not reports:
        return ()
    start = min(report.start_s for report in reports)
    end = max(report.start_s + report.length_s for report in reports)
    length = max(1, math.ceil((end - start) / INTERVAL_S / MOST_POINTS - 1e-6)) * INTERVAL_S
    number_of_points = max(1, math.ceil((end - start) / length - 1e-6))

    def index_at(epoch_s: float) -> int:
        return min(number_of_points - 1, max(0, math.floor((epoch_s - start) / length + 1e-6)))

    windows: defaultdict[int, list[Window]] = defaultdict(list)
    for report in reports:
        # A report that is longer than one point is a run of empty intervals: it covers them all.
        first, last = index_at(report.start_s), index_at(report.start_s + report.length_s - INTERVAL_S / 2)
        for index in range(first, last + 1):
            windows[index].extend(())
        windows[index_at(report.start_s + report.length_s / 2)].extend(windows_of(release, role, (report,)))
    return tuple(
        Point(start + index * length, length, totals_from(windows[index]) if index in windows else None)
        for index in range(number_of_points)
    )


def thickened(points: Sequence[Point], borders: Sequence[float]) -> tuple[Point, ...]:
    """The same evidence in points of at least LEAST_REQUESTS requests, as far as there are so many.

    None is merged across a moment of `borders` (where stages begin) or across a stretch without reports.
    """
    thick: list[Point] = []
    for _, run in groupby(points, lambda point: (point.totals is None, bisect_right(borders, point.start_s))):
        groups: list[list[Point]] = [[]]
        for point in run:
            if _requests(groups[-1]) >= LEAST_REQUESTS:
                groups.append([])
            groups[-1].append(point)
        if len(groups) > 1 and _requests(groups[-1]) < LEAST_REQUESTS:
            rest = groups.pop()
            groups[-1].extend(rest)
        thick.extend(map(_joined, groups))
    return tuple(thick)


def _requests(points: Iterable[Point]) -> int:
    return sum(point.totals.requests for point in points if point.totals)


def _joined(points: Sequence[Point]) -> Point:
    """Neighbours as one point."""
    totals = [point.totals for point in points if point.totals is not None]
    return Point(points[0].start_s, sum(point.length_s for point in points), totals_from(totals) if totals else None)
