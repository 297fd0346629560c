"""What held when, as far as evidence is concerned: which routing table was in force, and when lines may be missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from graylift.metrics.reports import Gap, InForce


class Timeline:
    """Marks in time (epoch seconds), kept until the intervals they touch are reported."""

    def __init__(self, in_force: Iterable[InForce] = (), gaps: Iterable[Gap] = ()) -> None:
        self.in_force = tuple(in_force)
        self.gaps = tuple(gaps)

    @property
    def version(self) -> int | None:
        """The table in force now, None while it changes or is not known."""
        if self.in_force and self.in_force[-1].until_s is None:
            return self.in_force[-1].version
        return None

    def table_changes(self, now: float) -> None:
        """From now on it is not known which table is in force, until `table_holds`."""
        self.in_force = tuple(one if one.until_s is not None else replace(one, until_s=now) for one in self.in_force)

    def table_holds(self, version: int, now: float) -> None:
        self.table_changes(now)
        self.in_force += (InForce(version, now),)

    def gap(self, from_s: float, until_s: float, why: str) -> None:
        self.gaps += (Gap(from_s, why, until_s),)

    def gap_begins(self, from_s: float, why: str) -> None:
        self.gaps += (Gap(from_s, why),)

    def gap_ends(self, now: float) -> None:
        self.gaps = tuple(gap if gap.until_s is not None else replace(gap, until_s=now) for gap in self.gaps)

    def forget(self, before_s: float) -> None:
        """Drop what ended before the oldest interval that is still open."""
        self.in_force = tuple(one for one in self.in_force if one.until_s is None or one.until_s > before_s)
        self.gaps = tuple(gap for gap in self.gaps if gap.until_s is None or gap.until_s > before_s)
