"""Counts of events that somebody else counted: all of them, and the bad ones among them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """bad: of `total` events. For a histogram, the values above a bound. ValueError for counts that cannot be."""

    bad: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.bad <= self.total:
            raise ValueError(f"expected from 0 to {self.total} bad ones of {self.total} events, got {self.bad}")

    @property
    def share(self) -> float | None:
        """Of bad events; None without any event."""
        return self.bad / self.total if self.total else None

    def since(self, earlier: Tally) -> Tally:
        """What was counted after `earlier`. ValueError if either kind of event is less than it was."""
        if self.total - self.bad < earlier.total - earlier.bad:
            raise ValueError(f"{self} has fewer good events than {earlier} before it")
        return Tally(self.bad - earlier.bad, self.total - earlier.total)


NO_EVENTS = Tally(0, 0)


def tallied(tallies: Iterable[Tally]) -> Tally:
    """The sum."""
    parts = tuple(tallies)
    return Tally(sum(part.bad for part in parts), sum(part.total for part in parts))
