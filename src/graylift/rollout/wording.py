"""Numbers and places as people read them, in the sentences of decisions and events."""

from __future__ import annotations

import math

from graylift.domain.release import Release


def duration(seconds: float) -> str:
    """`40 s`, `10 min`, `1 h 30 min`; rounded down, so that nothing looks complete before it is."""
    if seconds < 10:
        return f"{math.floor(seconds * 10 + 1e-9) / 10:g} s"
    whole = math.floor(seconds + 1e-9)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def stage_name(release: Release) -> str:
    """`stage 2 of 5 (20 %)`, `stage 1 of 5 (shadow 10 %)`, counted from 1 as people do."""
    return f"stage {release.stage + 1} of {len(release.spec.stages)} ({release.current_stage})"


def because(reason: str) -> str:
    """A reason as the end of a sentence; nothing if none was given."""
    return f": {reason}" if reason else ""
