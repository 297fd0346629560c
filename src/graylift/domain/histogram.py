"""Counts of durations in fixed logarithmic bins: exact counts, any two add up, the same bins everywhere and for ever.

Fixed bins matter beyond size: a test on counts above a bin bound that was chosen before the data is exactly valid,
while bins that move with the data (t-digest, KLL) void it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

BASE = 1.01
"""Bin `b` holds the values v with BASE**b <= v < BASE**(b + 1): every value is known to 1 %."""

_LOG_BASE = math.log(BASE)
SMALLEST = math.floor(math.log(1e-6) / _LOG_BASE)
"""Bin of a microsecond; shorter durations are counted here."""
LARGEST = math.floor(math.log(86_400.0) / _LOG_BASE)
"""Bin of a day; longer durations are counted here."""


def bin_of(seconds: float) -> int:
    """The bin that a duration falls into. ValueError for NaN and negative values."""
    if not seconds >= 0:
        raise ValueError(f"a duration is a number of seconds from 0 on, not {seconds}")
    if seconds <= 1e-6:
        return SMALLEST
    return min(LARGEST, math.floor(math.log(seconds) / _LOG_BASE))


def lower_bound(number: int) -> float:
    """The smallest duration, in seconds, of bin `number`."""
    return BASE**number


def shift_of(ratio: float) -> float:
    """How many bins a factor spans, not rounded: a margin rounds it to its own safe side."""
    return math.log(ratio) / _LOG_BASE


@dataclass(frozen=True, slots=True)
class Histogram:
    """bins: (bin number, count > 0), ascending by number."""

    bins: tuple[tuple[int, int], ...] = ()

    @property
    def count(self) -> int:
        return sum([count for _, count in self.bins])

    def above(self, number: int) -> int:
        """How many values lie in bins higher than `number`."""
        return sum(count for b, count in self.bins if b > number)

    def quantile_bin(self, q: float) -> int | None:
        """The bin that holds the q-quantile (the ceil(q * count)-th smallest value); None if empty. 0 < q <= 1."""
        return self.quantile_bins((q,))[0]

    def quantile_bins(self, qs: Sequence[float]) -> tuple[int | None, ...]:
        """`quantile_bin` of each, counted through once."""
        if not self.bins:
            return (None,) * len(qs)
        up_to = tuple(accumulate(count for _, count in self.bins))
        return tuple(self.bins[bisect_left(up_to, math.ceil(q * up_to[-1]))][0] for q in qs)

    def quantile(self, q: float) -> float | None:
        """The q-quantile in seconds, known to 1 %: the geometric middle of its bin. None if empty."""
        return self.quantiles((q,))[0]

    def quantiles(self, qs: Sequence[float]) -> tuple[float | None, ...]:
        """`quantile` of each, counted through once."""
        return tuple(None if number is None else BASE ** (number + 0.5) for number in self.quantile_bins(qs))


EMPTY = Histogram()


def histogram_from_counts(counts: Counter[int]) -> Histogram:
    return Histogram(tuple(sorted((number, count) for number, count in counts.items() if count > 0)))


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """The sum of all. It is asked for several times a look, so it begins with the widest and adds the others to it."""
    widest, *others = sorted(histograms, key=lambda histogram: -len(histogram.bins)) or [EMPTY]
    if not any(other.bins for other in others):
        return widest
    counts = dict(widest.bins)
    for other in others:
        for number, count in other.bins:
            counts[number] = counts.get(number, 0) + count
    return Histogram(tuple(sorted(counts.items())))
