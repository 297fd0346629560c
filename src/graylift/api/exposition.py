"""What Graylift knows, in Prometheus' text form at /metrics: where releases stand, what gateways counted, who acts.

Counters begin at 0 when the control plane starts and count each interval report once, by its number; a restart is the
reset that Prometheus expects. Durations come from bins of 1 %, so a bucket's count is right to 1 % of its bound.
Called by `pages`; blocks.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from graylift.api.records import Records
from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.histogram import BASE, Histogram
from graylift.domain.judgement import Ruling
from graylift.domain.release import Phase
from graylift.ports import Clock, Snapshot, Tracked
from graylift.report.moment import ON_TRAFFIC
from graylift.rollout import weights_of

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_LATE_S = 60.0
"""A report may come this much later than others of its time and is counted all the same."""
_ARM = ["service", "revision", "arm"]


class _Durations:
    """Counts up to each of BOUNDS_S, and the sum, from histograms of 1 % bins."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def add(self, histogram: Histogram) -> None:
        for number, count in histogram.bins:
            middle_s = BASE ** (number + 0.5)
            self._counts[bisect_left(BOUNDS_S, middle_s)] += count
            self._sum_s += count * middle_s

    @property
    def buckets(self) -> list[tuple[str, float]]:
        names = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True))

    @property
    def sum_s(self) -> float:
        return self._sum_s


class Exposition(Collector):
    """One for each process. Scrapes take turns."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._began_s = self._scraped_s = clock.now()
        self._counted: dict[str, int] = {}
        self._totals: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        self._latency: defaultdict[tuple[str, str, str], _Durations] = defaultdict(_Durations)
        self._ttft: defaultdict[tuple[str, str, str], _Durations] = defaultdict(_Durations)
        self._gaps: Counter[str] = Counter()
        self._newest_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """StoreError if the store cannot be read."""
        with self._lock:
            return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing before the first scrape: the store is not read to be registered."""
        return ()

    def collect(self) -> Iterable[Metric]:
        snapshot, now = self._records.snapshot(), self._clock.now()
        self._count(snapshot, now)
        lease = self._records.lease()
        acting = GaugeMetricFamily("graylift_controller_acting", "1 while a controller holds the lease, else 0")
        acting.add_metric([], float(lease is not None and lease.until_s > now))
        return (acting, *_standing(snapshot.services), *self._traffic())

    def _count(self, snapshot: Snapshot, now: float) -> None:
        since_s, self._scraped_s = max(self._began_s, self._scraped_s - _LATE_S), now
        fresh: dict[tuple[str, int], IntervalReport] = {}
        for tracked in snapshot.services:
            for report in self._records.recent_reports(tracked.service.name, since_s):
                if report.start_s < self._began_s or report.sequence <= self._counted.get(report.gateway, -1):
                    continue
                fresh[report.gateway, report.sequence] = report
                for window in report.windows:
                    self._add(window, tracked)
        for (gateway, sequence), report in fresh.items():
            self._counted[gateway] = max(sequence, self._counted.get(gateway, -1))
            self._newest_s[gateway] = max(report.start_s + report.length_s, self._newest_s.get(gateway, 0.0))
            self._gaps[gateway] += report.gap is not None

    def _add(self, window: Window, tracked: Tracked) -> None:
        key = (window.service, _revision_name(window.revision_id, tracked), window.arm.value)
        totals = self._totals[key]
        totals["requests"] += window.requests
        totals["failed"] += window.failed
        totals["unanswered"] += window.unanswered
        totals["abandoned"] += window.abandoned
        totals["input_tokens"] += window.input_tokens
        totals["output_tokens"] += window.output_tokens
        self._latency[key].add(window.latency)
        self._ttft[key].add(window.ttft)

    def _traffic(self) -> Iterable[Metric]:
        for name, key, text in (
            ("graylift_requests", "requests", "requests that ended, answered or failed"),
            ("graylift_requests_failed", "failed", "of these, failed for the arm, also where a retry saved the client"),
            ("graylift_requests_unanswered", "unanswered", "of these, failed for the client, too"),
            ("graylift_requests_abandoned", "abandoned", "requests whose client left; part of nothing else"),
            ("graylift_input_tokens", "input_tokens", "tokens of prompts that were answered"),
            ("graylift_output_tokens", "output_tokens", "tokens of answers"),
        ):
            family = CounterMetricFamily(name, text, labels=_ARM)
            for labels, totals in sorted(self._totals.items()):
                family.add_metric(labels, totals[key])
            yield family
        for name, durations, text in (
            ("graylift_request_duration_seconds", self._latency, "of answered requests, as clients see it"),
            ("graylift_time_to_first_token_seconds", self._ttft, "of answered streams"),
        ):
            family = HistogramMetricFamily(name, text, labels=_ARM)
            for labels, one in sorted(durations.items()):
                family.add_metric(list(labels), one.buckets, one.sum_s)
            yield family
        gaps = CounterMetricFamily(
            "graylift_evidence_gaps", "interval reports with missing evidence", labels=["gateway"]
        )
        newest = GaugeMetricFamily(
            "graylift_gateway_last_report_timestamp_seconds", "end of the newest interval reported", labels=["gateway"]
        )
        for gateway, end_s in sorted(self._newest_s.items()):
            gaps.add_metric([gateway], self._gaps[gateway])
            newest.add_metric([gateway], end_s)
        yield from (gaps, newest)


def _standing(services: Iterable[Tracked]) -> Iterable[Metric]:
    """Where the newest release of each service stands."""
    phases = GaugeMetricFamily(
        "graylift_release_phase",
        "1 for the phase the release is in, 0 for others",
        labels=["service", "release", "phase"],
    )
    weights = GaugeMetricFamily(
        "graylift_candidate_weight_ratio", "the candidate's share of the traffic, 0 to 1", labels=["service", "release"]
    )
    entered = GaugeMetricFamily(
        "graylift_release_phase_entered_timestamp_seconds",
        "when the phase or stage was entered",
        labels=["service", "release"],
    )
    rulings = GaugeMetricFamily(
        "graylift_check_ruling",
        "1 for what the judge says of a check on traffic, 0 for what it does not",
        labels=["service", "release", "check", "ruling"],
    )
    for tracked in services:
        if tracked.release is None:
            continue
        release = tracked.release
        named = [release.service, release.id]
        for phase in Phase:
            phases.add_metric([*named, phase.value], float(phase is release.phase))
        weights.add_metric(named, float(weights_of(release).percent) / 100)
        entered.add_metric(named, release.entered_s)
        if release.phase in ON_TRAFFIC and release.judgement is not None:
            for verdict in release.judgement.verdicts:
                for ruling in Ruling:
                    rulings.add_metric([*named, verdict.check, ruling.value], float(ruling is verdict.ruling))
    return phases, weights, entered, rulings


def _revision_name(revision_id: str, tracked: Tracked) -> str:
    """What people call it, if it is one that serves now."""
    release = tracked.release
    known = (tracked.service.stable, *((release.stable, release.candidate) if release is not None else ()))
    return next((one.name for one in known if one is not None and one.id == revision_id), revision_id)
