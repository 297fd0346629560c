"""Counters that others keep, read now and then, cut into intervals: each increment counted once, or said to be lost.

A server's counters only rise; what happened between two readings is their difference. Interval n of length L spans the
epoch seconds from n * L to (n + 1) * L, and what a series counted in it is what its last reading in it has more than
its last reading before it. Neighbours share a reading, so no increment is in two intervals, however often and in
whatever portions readings come. Both arms are cut alike, so an interval holds a comparison or nothing: where something
of one arm is missing (not read, restarted in between) the interval is not used, and says so.

What a series counted before its first reading is left out: whether it belongs to this interval nobody knows.
Pure. Called by the adapters that read (Prometheus) or are told (OpenTelemetry).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.sources import WantedMetric
from graylift.domain.tally import NO_EVENTS, Tally, tallied
from graylift.domain.weights import Role

FEWEST_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one series had counted at one moment.

    at_s:      epoch seconds
    tally:     everything since the series began
    started_s: when it began to count, if it says so; another moment is another beginning
    """

    at_s: float
    tally: Tally
    started_s: float | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What one arm counted in one interval, None if nothing was read of it; and why that is not all, None if it is."""

    tally: Tally | None
    gap: str | None = None


@dataclass(slots=True)
class Series:
    """The readings of one arm, by series. Readings may come twice and in any order."""

    _by_name: dict[str, dict[float, Reading]] = field(default_factory=dict[str, dict[float, Reading]])

    def add(self, name: str, reading: Reading) -> None:
        """`name` tells the series from the others of its arm. The first reading of a moment holds."""
        self._by_name.setdefault(name, {}).setdefault(reading.at_s, reading)

    @property
    def is_empty(self) -> bool:
        return not self._by_name

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def read_until_s(self, lost_before_s: float) -> float | None:
        """Up to when every series was read, but for those whose last reading is older than `lost_before_s`."""
        newest = (max(readings) for readings in self._by_name.values())
        return min((at_s for at_s in newest if at_s >= lost_before_s), default=None)

    def counted(self, from_s: float, until_s: float) -> Counted:
        """What was counted after `from_s`, up to `until_s`. To be read whole, each series must have been read in the
        interval, and, unless it is new, in the one of equal length before."""
        parts: list[Tally] = []
        gaps: dict[str, None] = {}
        for name in sorted(self._by_name):
            readings = sorted(self._by_name[name].values(), key=_time)
            times = [reading.at_s for reading in readings]
            first, last = bisect_right(times, from_s), bisect_right(times, until_s)
            before = first > 0 and times[first - 1] > 2 * from_s - until_s
            if first == last:
                if before:
                    gaps[f"{_named(name)} was not read in it"] = None
                continue
            run = readings[first - 1 if before else first : last]
            parts.append(NO_EVENTS)
            for earlier, later in pairwise(run):
                increment = _increment(earlier, later)
                if increment is None:
                    gaps[f"{_named(name)} began anew in it, and what it had counted last is lost"] = None
                else:
                    parts.append(increment)
        return Counted(tallied(parts) if parts else None, "; ".join(gaps) or None)

    def forget(self, before_s: float) -> None:
        """Drop readings older than that, but keep the last one before it of each series that is still read."""
        for name, readings in list(self._by_name.items()):
            old = sorted(at_s for at_s in readings if at_s <= before_s)
            drop = old if len(old) == len(readings) else old[:-1]
            for at_s in drop:
                del readings[at_s]
            if not readings:
                del self._by_name[name]


def _time(reading: Reading) -> float:
    return reading.at_s


def _named(name: str) -> str:
    return f"series {name}" if name else "its only series"


def _increment(earlier: Reading, later: Reading) -> Tally | None:
    """What happened between two readings; None if the series began anew in between."""
    if earlier.started_s != later.started_s:
        return None
    try:
        return later.tally.since(earlier.tally)
    except ValueError:
        return None


@dataclass(slots=True)
class Cutter:
    """Cuts the readings of both arms into interval reports, from where an earlier one stopped.

    The sequence of a report is the end of its interval in milliseconds, so a cursor alone says where to go on.
    """

    wanted: WantedMetric
    next: int = 0
    """Number of the interval to come."""

    def begin(self, after: int | None) -> None:
        """Go on behind the report with sequence `after`, and not before the split was in force."""
        reported_s = 0.0 if after is None else after / 1000
        self.next = max(self.next, math.ceil(max(self.wanted.since_s, reported_s) / self.length_s - 1e-9))

    @property
    def length_s(self) -> float:
        return self.wanted.origin.every_s

    @property
    def patience_s(self) -> float:
        """How long after the end of an interval a series that is not read is waited for."""
        return max(FEWEST_PATIENCE_S, 2 * self.length_s)

    @property
    def begins_s(self) -> float:
        """The interval to come, and the one before it, which readings are needed from."""
        return (self.next - 1) * self.length_s

    def cut(self, arms: Mapping[Role, Series], now: float) -> tuple[IntervalReport, ...]:
        """All intervals that are over for both arms, oldest first. `now`: epoch seconds up to which readings would be
        there if there were any."""
        made: list[IntervalReport] = []
        while True:
            start_s, end_s = self.next * self.length_s, (self.next + 1) * self.length_s
            lost_before_s = now - self.patience_s
            # A series that is read no more is waited for as long as patience has it; an arm without any, too.
            read = [series.read_until_s(lost_before_s) for series in arms.values()]
            whole = all(until_s is not None and until_s >= end_s for until_s in read)
            if not whole and now < end_s + self.patience_s:
                return tuple(made)
            made.append(self._report(start_s, end_s, arms))
            self.next += 1

    def _report(self, start_s: float, end_s: float, arms: Mapping[Role, Series]) -> IntervalReport:
        wanted = self.wanted
        counted = [(arm, arms[arm.role].counted(start_s, end_s)) for arm in wanted.arms]
        gaps = [
            f"{wanted.metric} of {arm.role.value}: {one.gap or 'nothing was read in it'}"
            for arm, one in counted
            if one.gap is not None or one.tally is None
        ]
        windows = tuple(
            Window(
                wanted.service, wanted.split, arm.role, arm.revision_id, None, external=((wanted.metric, one.tally),)
            )
            for arm, one in counted
            if one.tally is not None
        )
        return IntervalReport(
            gateway=wanted.source,
            sequence=round(end_s * 1000),
            start_s=start_s,
            length_s=end_s - start_s,
            table_version=None,
            windows=windows if not gaps else (),
            gap="; ".join(gaps) or None,
        )
