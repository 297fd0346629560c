"""A course of intervals -> a series of points for each check, as methods want them that know no counts. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from graylift.analysis.evidence import lower_is_worse, scores_of
from graylift.analysis.sample import sample_from_windows
from graylift.domain.evidence import Window
from graylift.domain.spec import Check, Metric
from graylift.domain.weights import Role
from graylift.replay.course import Course


def points_of(course: Course, check: Check, role: Role) -> tuple[float, ...]:
    """One for each interval that is evidence and in which the arm has what the check measures."""
    series = (
        _point([window for window in interval.windows if window.arm is role], check) for interval in course.intervals
    )
    return tuple(point for point in series if point is not None)


def _point(windows: Sequence[Window], check: Check) -> float | None:
    """Turned so that more is worse."""
    value = sample_from_windows(windows, scores_of((check,))).value(check)
    return -value if value is not None and check.metric is Metric.SCORE and lower_is_worse(check) else value
