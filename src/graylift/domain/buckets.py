"""Counts of values between bounds that somebody else chose: a histogram of another system, as it counts.

Unlike `Histogram`, whose bins are everywhere the same, these have bounds of their own. Nothing is interpolated: what is
known is how many values lie above each bound, and that is all a judge may ask.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True, slots=True)
class Buckets:
    """bounds: ascending, finite; counts[i]: values above bounds[i - 1] and up to bounds[i], the last ones above all.

    A share of bad events has one bound, 0.5, and counts of values 0 (good) and 1 (bad): see `share`.
    ValueError for bounds or counts that cannot be.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.bounds or len(self.counts) != len(self.bounds) + 1:
            raise ValueError(f"expected one count more than bounds, got {len(self.counts)} and {len(self.bounds)}")
        if not all(math.isfinite(bound) for bound in self.bounds) or any(a >= b for a, b in pairwise(self.bounds)):
            raise ValueError(f"expected finite, rising bounds, got {self.bounds}")
        if any(count < 0 for count in self.counts):
            raise ValueError(f"a count below 0 in {self.counts}")

    @property
    def count(self) -> int:
        return sum(self.counts)

    def above(self, number: int) -> int:
        """How many values lie above bounds[number]."""
        return sum(self.counts[number + 1 :])

    def quantile_bound(self, q: float) -> int | None:
        """The number of the bound that the q-quantile lies in the bucket of, so that about 1 - q lie above it; None
        if there is no value. A quantile above all bounds has the last one, since nothing is known beyond."""
        if not self.count:
            return None
        up_to = tuple(accumulate(self.counts))
        return min(bisect_left(up_to, math.ceil(q * up_to[-1])), len(self.bounds) - 1)

    def since(self, earlier: Buckets) -> Buckets:
        """What was counted after `earlier`. ValueError if anything is less than it was, or bounds differ."""
        if earlier.bounds != self.bounds:
            raise ValueError("the bounds are others than before")
        return Buckets(self.bounds, tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True)))

    def on(self, bounds: Sequence[float]) -> Buckets:
        """The same values counted between `bounds`, some of its own. ValueError if there are others among them."""
        wanted = set(bounds)
        if not wanted <= set(self.bounds):
            raise ValueError(f"bounds {sorted(wanted - set(self.bounds))} are not among {self.bounds}")
        counts: list[int] = []
        running = 0
        for bound, count in zip(self.bounds, self.counts[:-1], strict=True):
            running += count
            if bound in wanted:
                counts.append(running)
                running = 0
        return Buckets(tuple(sorted(wanted)), (*counts, running + self.counts[-1]))


def share(bad: int, total: int) -> Buckets:
    """`bad` of `total` events, as values 1 and 0. ValueError if there are more bad events than events."""
    return Buckets((0.5,), (total - bad, bad))


def added(buckets: Sequence[Buckets]) -> Buckets:
    """The sum of at least one, on the bounds that all of them have. ValueError if there is no such bound."""
    common = tuple(sorted(set[float].intersection(*(set(one.bounds) for one in buckets))))
    if not common:
        raise ValueError(f"no bound is common to all: {'; '.join(sorted({str(one.bounds) for one in buckets}))}")
    on_common = [one if one.bounds == common else one.on(common) for one in buckets]
    return Buckets(common, tuple(map(sum, zip(*(one.counts for one in on_common), strict=True))))
