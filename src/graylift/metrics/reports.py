"""Closed intervals turned into the numbered reports that a controller stores: what was in force, what is missing.

Pure. Every interval is reported, also the empty ones, so that silence differs from absence; but a run of empty
intervals that are closed together (after the agent was away) is one report over their whole length, so that a night
without traffic costs one report and not tens of thousands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from graylift.domain.evidence import IntervalReport
from graylift.metrics.intervals import Interval


@dataclass(frozen=True, slots=True)
class InForce:
    """The routing table `version` was in force from `from_s` until `until_s` (epoch seconds, None: it still is)."""

    version: int
    from_s: float
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Requests that ended from `from_s` to `until_s` (epoch seconds, None: it lasts) may be missing; `why` says why."""

    from_s: float
    why: str
    until_s: float | None = None


def reports(
    *,
    gateway: str,
    sequence: int,
    numbers: range,
    intervals: Iterable[Interval],
    length_s: float,
    in_force: Sequence[InForce],
    gaps: Sequence[Gap],
) -> tuple[IntervalReport, ...]:
    """The reports of the closed intervals `numbers`, of which `intervals` are those that are not empty.

    sequence: of the first report
    """
    by_number = {interval.number: interval for interval in intervals}
    drafts: list[IntervalReport] = []
    for (_, table_version, gap), run in groupby(
        numbers,
        lambda number: (
            number if number in by_number else None,
            _version(number, length_s, in_force),
            _gap(number, length_s, gaps),
        ),
    ):
        first, *others = run
        interval = by_number.get(first, Interval(first))
        drafts.append(
            IntervalReport(
                gateway=gateway,
                sequence=sequence + len(drafts),
                start_s=first * length_s,
                length_s=length_s * (1 + len(others)),
                table_version=table_version,
                windows=interval.windows,
                gap=gap,
                unreadable=interval.unreadable,
                shadows=interval.shadows,
            )
        )
    return tuple(drafts)


def _version(number: int, length_s: float, in_force: Sequence[InForce]) -> int | None:
    start_s, end_s = number * length_s, (number + 1) * length_s
    for one in in_force:
        if one.from_s <= start_s and (one.until_s is None or end_s <= one.until_s):
            return one.version
    return None


def _gap(number: int, length_s: float, gaps: Sequence[Gap]) -> str | None:
    start_s, end_s = number * length_s, (number + 1) * length_s
    reasons = dict.fromkeys(
        gap.why for gap in gaps if gap.from_s < end_s and (gap.until_s is None or start_s < gap.until_s)
    )
    return "; ".join(reasons) or None
