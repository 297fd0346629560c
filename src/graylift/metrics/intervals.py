"""Records put into the interval they ended in, and intervals closed. Pure: `now` is an argument.

Interval `n` of length L spans the epoch seconds from n * L to (n + 1) * L. A record belongs to the interval of its
*end*, because that is when Envoy writes it; both arms of a split are observed alike, so nothing is biased. An interval
is closed a little after its end, and never opened again: a record that comes later is counted in the oldest interval
that is still open. So each record is counted once, whatever the order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from graylift.domain.evidence import AttemptRecord, RequestRecord, ScoreRecord, Window
from graylift.domain.shadow import ShadowLoss, ShadowPair, ShadowWindow
from graylift.metrics.shadows import ShadowSums
from graylift.metrics.windows import Attempt, WindowSums, explained


@dataclass(frozen=True, slots=True)
class Interval:
    """What ended in one interval.

    attempts: (revision, reason, count) of failed attempts that no failure was explained by yet
    """

    number: int
    windows: tuple[Window, ...] = ()
    attempts: tuple[tuple[str, str, int], ...] = ()
    unreadable: int = 0
    shadows: tuple[ShadowWindow, ...] = ()


class _Sums:
    __slots__ = ("shadows", "unreadable", "windows")

    def __init__(self) -> None:
        self.windows = WindowSums()
        self.shadows = ShadowSums()
        self.unreadable = 0


class Intervals:
    """The open intervals. Only those with something in them take room.

    length_s: of an interval
    first:    number of the oldest interval that is open
    grace_s:  how long after its end an interval is closed; more than the log's flush interval
    kept:     what an earlier `open_intervals` gave
    """

    def __init__(self, length_s: float, first: int, grace_s: float = 0.3, kept: Iterable[Interval] = ()) -> None:
        if not (length_s > 0 and grace_s >= 0):
            raise ValueError(f"an interval needs a length above 0 and a grace from 0 on, not {length_s} and {grace_s}")
        self._length_s = length_s
        self._grace_s = grace_s
        self._first = first
        self._open: defaultdict[int, _Sums] = defaultdict(_Sums)
        self._spare = Interval(first - 1)
        for interval in kept:
            if interval.number < first:
                self._spare = interval
                continue
            sums = self._open[interval.number]
            sums.windows.add_windows(interval.windows)
            sums.windows.attempts.update(_counts(interval.attempts))
            sums.unreadable += interval.unreadable
            sums.shadows.add_windows(interval.shadows)

    @property
    def first(self) -> int:
        """Number of the oldest interval that is open."""
        return self._first

    def add(self, record: RequestRecord | ScoreRecord | AttemptRecord) -> None:
        """ValueError for a record with an impossible number; nothing is counted then."""
        number = max(self._first, number_at(record.ended_s, self._length_s))
        self._open[number].windows.add(record)

    def add_shadow(self, record: ShadowPair | ShadowLoss) -> None:
        """What came of a shadowed request."""
        number = max(self._first, number_at(record.ended_s, self._length_s))
        self._open[number].shadows.add(record)

    def add_unreadable(self, lines: int) -> None:
        """Lines that were no records, and so have no time: they count in the oldest open interval."""
        if lines:
            self._open[self._first].unreadable += lines

    def is_due(self, now: float) -> bool:
        """Is there an interval that `close` would close?"""
        return self._closable(now) > self._first

    def close(self, now: float) -> tuple[Interval, ...]:
        """Close all intervals that ended at least `grace_s` before `now`; those with something in them, oldest first.

        Afterwards `first` is the number after the last that was closed. A `now` before an earlier one closes nothing.
        """
        until = max(self._first, self._closable(now))
        numbers = sorted(number for number in self._open if number < until)
        self._first = until
        return tuple(self._closed(number, self._open.pop(number)) for number in numbers)

    def open_intervals(self) -> tuple[Interval, ...]:
        """All that is in the open intervals, to be kept and given to a successor."""
        return self._spare, *(
            Interval(
                number,
                sums.windows.windows(),
                _listed(sums.windows.attempts),
                sums.unreadable,
                sums.shadows.windows(),
            )
            for number, sums in sorted(self._open.items())
        )

    def _closed(self, number: int, sums: _Sums) -> Interval:
        # A retry may end in the interval after the attempt that it hides: what an interval leaves over of its attempts
        # explains failures of the next one, and no later ones.
        own = sums.windows.attempts
        earlier = _counts(self._spare.attempts) if self._spare.number == number - 1 else Counter[Attempt]()
        left = own + earlier
        windows = explained(sums.windows.windows(), left)
        self._spare = Interval(number, attempts=_listed(own & left))
        return Interval(number, windows, (), sums.unreadable, sums.shadows.windows())

    def _closable(self, now: float) -> int:
        return number_at(now - self._grace_s, self._length_s)


def number_at(time_s: float, length_s: float) -> int:
    """Number of the interval that holds a point in time (epoch seconds)."""
    return math.floor(time_s / length_s)


def recut(
    kept: Iterable[Interval], first: int, length_s: float, new_length_s: float
) -> tuple[int, tuple[Interval, ...]]:
    """The new `first` and the open intervals `kept`, for intervals of another length.

    The new first begins no earlier than the old one, so that no time is reported twice; what the old one held of the
    time before it is counted in it.
    """
    new_first = math.ceil(first * length_s / new_length_s)
    numbers = ((one, number_at(one.number * length_s, new_length_s)) for one in kept)
    return new_first, tuple(
        replace(one, number=number if one.number < first else max(new_first, number)) for one, number in numbers
    )


def _counts(attempts: Iterable[tuple[str, str, int]]) -> Counter[Attempt]:
    return Counter({(revision_id, reason): count for revision_id, reason, count in attempts})


def _listed(attempts: Counter[Attempt]) -> tuple[tuple[str, str, int], ...]:
    return tuple((revision_id, reason, count) for (revision_id, reason), count in sorted(attempts.items()) if count)
