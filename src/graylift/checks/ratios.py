"""How much slower or faster candidate is than stable, with an interval, from loads that took turns.

Both sides are loaded in short blocks, in pairs that lie next to each other in time. The machine's mood changes from
minute to minute, so that requests of one block resemble each other; what is drawn anew in the bootstrap is therefore
the pair of blocks, not the request (a block bootstrap, Efron and Tibshirani, *An Introduction to the Bootstrap*,
section 8.6), and both blocks of a pair together, so that what hit both cancels.

With n pairs a percentile interval is too narrow by about sqrt((n-1)/n) and by the normal for Student's t. The cure is
the expanded percentile interval (Hesterberg, *What Teachers Should Know About the Bootstrap*, 2015, section 3.4): the
level is set so that it would be exact for a mean. It assumes that pairs are exchangeable and at least some eight of
them; a drift that hits one side alone is not seen as noise, but as a difference, which is what it is.

Pure: chance comes from a seed. Called by `performance`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from graylift.domain.histogram import BASE, Histogram

FEWEST_PAIRS = 8
_FEWEST_BEYOND = 5
"""Requests beyond a quantile, on each side, below which it is one request's luck."""
_DRAWS = 2000

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Ratio:
    """candidate / stable of one figure. stable, candidate: that figure; low, high: the interval of their ratio."""

    stable: float
    candidate: float
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.candidate / self.stable


class Standing(Enum):
    """Where an interval lies. OPEN: it holds the limit, so nothing is claimed."""

    WITHIN = "within"
    BEYOND = "beyond"
    OPEN = "open"


def at_most(ratio: Ratio, limit: float) -> Standing:
    """Of a figure that shall be small."""
    if ratio.high <= limit:
        return Standing.WITHIN
    return Standing.BEYOND if ratio.low > limit else Standing.OPEN


def at_least(ratio: Ratio, limit: float) -> Standing:
    """Of a figure that shall be large."""
    if ratio.low >= limit:
        return Standing.WITHIN
    return Standing.BEYOND if ratio.high < limit else Standing.OPEN


def requests_for(quantile: float) -> int:
    """How many requests of one side a quantile needs."""
    return math.ceil(round(_FEWEST_BEYOND / min(quantile, 1 - quantile), 6))


def quantile_ratio(
    pairs: Sequence[tuple[Histogram, Histogram]], quantile: float, confidence: float, seed: int
) -> Ratio | None:
    """Of the quantile of all (stable's, candidate's) blocks together; None with too few pairs or requests.

    Widened by one bin on either side: the histograms know a duration to 1 %.
    """
    stable, candidate = ([pair[side] for pair in pairs] for side in (0, 1))
    needed = requests_for(quantile)
    if len(pairs) < FEWEST_PAIRS or any(sum(h.count for h in side) < needed for side in (stable, candidate)):
        return None
    bins = sorted({number for histogram in (*stable, *candidate) for number, _ in histogram.bins})
    numbers = np.array(bins)
    counts = [_table(side, bins) for side in (stable, candidate)]
    everything = np.ones((1, len(pairs)))
    of_stable, of_candidate = (int(_quantile_bins(everything @ table, numbers, quantile)[0]) for table in counts)
    draws = _draws(len(pairs), seed)
    shifts = _quantile_bins(draws @ counts[1], numbers, quantile) - _quantile_bins(draws @ counts[0], numbers, quantile)
    low, high = _interval(shifts.astype(np.float64), len(pairs), confidence)
    return Ratio(
        stable=BASE ** (of_stable + 0.5),
        candidate=BASE ** (of_candidate + 0.5),
        low=BASE ** (low - 1),
        high=BASE ** (high + 1),
    )


def rate_ratio(
    pairs: Sequence[tuple[tuple[int, float], tuple[int, float]]], confidence: float, seed: int
) -> Ratio | None:
    """Of answers per second; each block is (answers, seconds). None with too few pairs or a side without answers."""
    counts = np.array([[block[0] for block in pair] for pair in pairs], dtype=np.float64)
    seconds = np.array([[block[1] for block in pair] for pair in pairs], dtype=np.float64)
    if len(pairs) < FEWEST_PAIRS or not counts.sum(axis=0).all():
        return None
    stable, candidate = (counts.sum(axis=0) / seconds.sum(axis=0)).tolist()
    draws = _draws(len(pairs), seed)
    drawn = (draws @ counts) / (draws @ seconds)
    # A draw of blocks without an answer is as slow as can be; the smallest count instead keeps its logarithm finite.
    logs = np.log(np.maximum(drawn, np.finfo(np.float64).tiny))
    low, high = _interval(logs[:, 1] - logs[:, 0], len(pairs), confidence)
    return Ratio(stable, candidate, math.exp(low), math.exp(high))


def _table(blocks: Sequence[Histogram], bins: Sequence[int]) -> NDArray[np.float64]:
    """Counts, one row a block."""
    place = {number: index for index, number in enumerate(bins)}
    table = np.zeros((len(blocks), len(bins)))
    for row, block in enumerate(blocks):
        for number, count in block.bins:
            table[row, place[number]] = count
    return table


def _draws(pairs: int, seed: int) -> NDArray[np.float64]:
    """How often each pair stands in each of the drawn samples."""
    return np.random.default_rng(seed).multinomial(pairs, [1 / pairs] * pairs, size=_DRAWS).astype(np.float64)


def _quantile_bins(counts: NDArray[np.float64], numbers: NDArray[np.int_], quantile: float) -> NDArray[np.int_]:
    """The bin of the quantile in each row, by the same rule as `Histogram.quantile_bin`."""
    seen = np.cumsum(counts, axis=1)
    # A draw may hold no request at all, where blocks are nearly empty; its rank of 0 then gives the first bin.
    ranks = np.ceil(quantile * seen[:, -1])
    return numbers[(seen >= ranks[:, None]).argmax(axis=1)]


def _interval(values: NDArray[np.float64], n: int, confidence: float) -> tuple[float, float]:
    """The expanded percentile interval."""
    outside = _NORMAL.cdf(-math.sqrt(n / (n - 1)) * _student((1 + confidence) / 2, n - 1))
    low, high = np.quantile(values, [outside, 1 - outside]).tolist()
    return low, high


def _student(probability: float, degrees: int) -> float:
    """Quantile of Student's t, by the expansion 26.7.5 of Abramowitz and Stegun: to 1 % from 5 degrees on."""
    x, v = _NORMAL.inv_cdf(probability), float(degrees)
    return (
        x
        + (x**3 + x) / (4 * v)
        + (5 * x**5 + 16 * x**3 + 3 * x) / (96 * v**2)
        + (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / (384 * v**3)
    )
