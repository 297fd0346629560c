"""How much do copies of one model differ by themselves? The noise floor under every latency margin, from stable alone.

Formula. y = ln of the latency's tau-quantile of one replica in one block of time, v its sampling variance. Within a
block of R replicas the sample variance of y has the mean w^2 + mean(v), w being the standard deviation of a replica's
own wander; w^2 is the average over blocks of what exceeds v, never below 0. v comes from the order statistics one
standard deviation of the rank to both sides. With one series alone, half the squared difference of two neighbouring
blocks takes the place of the sample variance: it holds what both arms would share, too, and no difference that lasts,
so it is the weaker ground. Told is w's upper 95 % limit, by the spread over blocks.

The floor: two arms differ by sqrt(2) w; a margin below exp(3 sqrt(2) w) will be crossed without any fault of the
candidate. That rule was fitted to simulations, not proven; wander in whole minutes is what it was fitted to.

Assumes blocks longer than a request and shorter than the wander. Small n: a replica with fewer than needed(tau)
answers in a block is left out; below FEWEST blocks nothing is said. Cost: one histogram sum a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graylift.domain.histogram import BASE, Histogram

FEWEST = 8
"""Blocks that an estimate takes."""

_UPPER = 1.645
_RANKS_OUTSIDE = 20


@dataclass(frozen=True, slots=True)
class Wander:
    """sd: of ln latency of one replica by itself, its upper 95 % limit; estimate: its best guess.

    compared: replicas beside each other (else: one series with itself, the weaker ground)
    """

    quantile: float
    estimate: float
    sd: float
    blocks: int
    compared: bool

    @property
    def floor(self) -> float:
        """The smallest ratio that is safe as a rollback margin."""
        return math.exp(3 * math.sqrt(2) * self.sd)


def needed(tau: float) -> int:
    """Answers of one replica in one block that its quantile takes."""
    return math.ceil(_RANKS_OUTSIDE / min(tau, 1 - tau))


def wander(replicas: Sequence[Mapping[int, Histogram]], tau: float) -> Wander | None:
    """From the answers of each replica, block by block. None if that is too little."""
    known = [
        {block: log_quantile(histogram, tau) for block, histogram in blocks.items() if histogram.count >= needed(tau)}
        for blocks in replicas
    ]
    excess = _beside(known) if len(replicas) > 1 else _along(known[0] if known else {})
    if len(excess) < FEWEST:
        return None
    values = np.asarray(excess)
    mean = float(values.mean())
    upper = mean + _UPPER * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Wander(tau, math.sqrt(max(0.0, mean)), math.sqrt(max(0.0, upper)), len(values), len(replicas) > 1)


def log_quantile(histogram: Histogram, tau: float) -> tuple[float, float]:
    """(ln of the quantile in seconds, its sampling variance), straight lines within a bin."""
    numbers, counts = np.array(histogram.bins, dtype=np.float64).T
    reached = np.cumsum(counts) / counts.sum()
    step = math.sqrt(tau * (1 - tau) / counts.sum())
    low, middle, high = (_log_at(numbers, reached, rank) for rank in (tau - step, tau, tau + step))
    return middle, ((high - low) / 2) ** 2


def _log_at(numbers: NDArray[np.float64], reached: NDArray[np.float64], rank: float) -> float:
    place = min(int(np.searchsorted(reached, rank)), len(numbers) - 1)
    before = float(reached[place - 1]) if place else 0.0
    inside = (rank - before) / max(float(reached[place]) - before, 1e-12)
    return (float(numbers[place]) + min(1.0, max(0.0, inside))) * math.log(BASE)


def _beside(known: Sequence[Mapping[int, tuple[float, float]]]) -> list[float]:
    """Of each block with two replicas or more: the variance among them beyond that of sampling."""
    excess: list[float] = []
    for block in sorted({block for one in known for block in one}):
        here = [one[block] for one in known if block in one]
        if len(here) > 1:
            logs, variances = np.array(here).T
            excess.append(float(logs.var(ddof=1) - variances.mean()))
    return excess


def _along(known: Mapping[int, tuple[float, float]]) -> list[float]:
    """Of each two neighbouring blocks: half the squared difference beyond that of sampling."""
    return [
        ((known[block + 1][0] - known[block][0]) ** 2 - known[block + 1][1] - known[block][1]) / 2
        for block in sorted(known)
        if block + 1 in known
    ]
