"""A course of intervals -> a series of points for each check, as methods want them that know no counts. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from graylift.domain.evidence import Window
from graylift.domain.histogram import merged
from graylift.domain.spec import Check
from graylift.domain.weights import Role
from graylift.replay.course import Course


def points_of(course: Course, check: Check, role: Role) -> tuple[float, ...]:
    """One for each interval that is evidence and in which the arm has what the check measures."""
    series = (
        _point([window for window in interval.windows if window.arm is role], check) for interval in course.intervals
    )
    return tuple(point for point in series if point is not None)


def _point(windows: Sequence[Window], check: Check) -> float | None:
    if check.quantile is not None:
        return merged(window.latency for window in windows).quantile(check.quantile)
    requests = sum(window.requests for window in windows)
    return sum(window.failed for window in windows) / requests if requests else None
