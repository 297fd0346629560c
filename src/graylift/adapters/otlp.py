"""ports.MetricSource of histograms that servers push by OTLP: points in, intervals of both arms out.

An arm is known by the resource attribute `service.version`: the revision's name in the release file. In memory: what
was pushed and not stored yet is lost with the process, which costs a part of an interval and doubles nothing. The API
brings the points, the controller takes the reports; both in one loop.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from graylift.domain.evidence import IntervalReport
from graylift.domain.sources import OtlpHistogram, WantedArm, WantedMetric
from graylift.domain.tally import NO_EVENTS, Tally, tallied
from graylift.domain.weights import Role
from graylift.metrics.counters import Cutter, Reading, Series
from graylift.protocols.otlp import HistogramPoint

REVISION_ATTRIBUTE = "service.version"
MOST_PROCESSES = 500
"""Of an arm; what comes beyond is not counted, and told."""
_ROUNDING_S = 0.001


@dataclass(slots=True)
class _Running:
    """The sum of one process's deltas. until_s: the end of the last one"""

    began_s: float
    until_s: float
    sum: Tally


@dataclass(slots=True)
class _Held:
    """What was pushed of one metric, and is not forgotten yet."""

    cutter: Cutter
    arms: dict[Role, Series]
    deltas: dict[tuple[Role, str], _Running] = field(default_factory=dict[tuple[Role, str], _Running])
    reports: list[IntervalReport] = field(default_factory=list[IntervalReport])
    faults: dict[Role, str] = field(default_factory=dict[Role, str])


class OtlpSource:
    """ports.MetricSource and ports.Pushed."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._held: dict[str, _Held] = {}

    def take(self, points: Sequence[HistogramPoint]) -> None:
        """See `ports.Pushed`."""
        for held in self._held.values():
            of_process: defaultdict[tuple[WantedArm, str, float], list[HistogramPoint]] = defaultdict(list)
            for point in points:
                arm = _arm_of(held.cutter.wanted, point)
                if arm is not None:
                    of_process[arm, _process_of(point), point.at_s].append(point)
            for (arm, process, _), together in of_process.items():
                fault = _take(held, arm, process, together)
                if fault is None:
                    held.faults.pop(arm.role, None)
                else:
                    held.faults[arm.role] = fault

    async def read(self, wanted: Sequence[WantedMetric], after: Sequence[tuple[str, int]]) -> Sequence[IntervalReport]:
        """See `ports.MetricSource`."""
        cursors = dict(after)
        ours = {one.source: one for one in wanted if isinstance(one.origin, OtlpHistogram)}
        for source in self._held.keys() - ours.keys():
            del self._held[source]
        for source, one in ours.items():
            held, cursor = self._held.get(source), cursors.get(source)
            if held is None or held.cutter.wanted != one:
                held = self._held[source] = _beginning(one, cursor, held)
            if cursor is not None:
                held.reports = [report for report in held.reports if report.sequence > cursor]
            held.reports += held.cutter.cut(held.arms, self._now())
            for series in held.arms.values():
                series.forget(held.cutter.begins_s)
        return [report for _, held in sorted(self._held.items()) for report in held.reports]

    def troubles(self) -> Sequence[tuple[str, str]]:
        """See `ports.MetricSource`."""
        found: list[tuple[str, str]] = []
        for source, held in sorted(self._held.items()):
            why = next(iter(held.faults.values()), None) or _silence(held.cutter.wanted, held.arms)
            if why is not None:
                found.append((source, why))
        return found


def _beginning(wanted: WantedMetric, cursor: int | None, before: _Held | None) -> _Held:
    """A metric as it is wanted now. What was pushed before goes on where only the split is another one."""
    held = _Held(Cutter(wanted), {arm.role: Series() for arm in wanted.arms})
    if before is not None:
        earlier = before.cutter.wanted
        if (earlier.origin, earlier.arms) == (wanted.origin, wanted.arms):
            held.arms, held.deltas, held.faults = before.arms, before.deltas, before.faults
        # Reports that are not stored yet are of the earlier split, and say so.
        held.reports = before.reports
        cursor = max([cursor or 0, *(report.sequence for report in before.reports)])
    held.cutter.begin(cursor)
    return held


def _arm_of(wanted: WantedMetric, point: HistogramPoint) -> WantedArm | None:
    origin = wanted.origin
    if not isinstance(origin, OtlpHistogram) or point.name != origin.histogram:
        return None
    known = {**point.resource, **point.attributes}
    if any(known.get(name) != value for name, value in origin.attributes):
        return None
    return next((arm for arm in wanted.arms if arm.revision == point.resource.get(REVISION_ATTRIBUTE)), None)


def _take(held: _Held, arm: WantedArm, process: str, points: Sequence[HistogramPoint]) -> str | None:
    """Count what one process says at one moment, under whatever attributes; why it cannot be counted, None if it is."""
    origin, first = held.cutter.wanted.origin, points[0]
    assert isinstance(origin, OtlpHistogram), "only those are held"
    tallies: list[Tally] = []
    for point in points:
        if origin.above not in point.bounds:
            some = ", ".join(f"{bound:g}" for bound in sorted(point.bounds)[:40])
            return f"{point.name} has no bucket that ends at {origin.above:g}; `above` is one of {some or 'none'}"
        tallies.append(Tally(point.bounds[origin.above], point.count))
    series, at_s, start_s = held.arms[arm.role], first.at_s, min(point.start_s for point in points)
    if process not in series and len(series) >= MOST_PROCESSES:
        return f"{first.name} of {arm.revision} comes from more than {MOST_PROCESSES} processes"
    # That it had counted nothing when it began is news only of a beginning that no earlier controller has seen.
    begins = start_s >= held.cutter.next * held.cutter.length_s
    if not first.is_delta:
        if begins:
            series.add(process, Reading(start_s, NO_EVENTS, start_s))
        series.add(process, Reading(at_s, tallied(tallies), start_s))
        return None
    running = held.deltas.get((arm.role, process))
    if running is not None and at_s <= running.until_s:
        return None  # sent again, for want of an answer
    if running is None or start_s > running.until_s + _ROUNDING_S:
        running = held.deltas[arm.role, process] = _Running(start_s, start_s, NO_EVENTS)
        if begins:
            series.add(process, Reading(start_s, NO_EVENTS, running.began_s))
    running.sum, running.until_s = tallied((running.sum, *tallies)), at_s
    series.add(process, Reading(at_s, running.sum, running.began_s))
    return None


def _process_of(point: HistogramPoint) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(point.resource.items()))


def _silence(wanted: WantedMetric, arms: dict[Role, Series]) -> str | None:
    for arm in wanted.arms:
        if arms[arm.role].is_empty and isinstance(wanted.origin, OtlpHistogram):
            return (
                f"no histogram {wanted.origin.histogram} with {REVISION_ATTRIBUTE}={arm.revision} was pushed to "
                "POST /v1/metrics of the API"
            )
    return None
