"""What the kernels' e-values add up to over a release: a mixture over effects and over the moment a regression
begins.

Formula. M_T = sum_j w_j sum_s pi_s prod_{t=s..T} E_t(effect j) + the part of pi not yet begun. One number per effect
and the recursion R_j <- (R_j + pi_t w_j) E_t(j) carry it; all in logarithms, so that nothing overflows however long
it goes.

Why it may be trusted. A mixture, with weights fixed before the data, of products of e-values, each valid given the
past: a nonnegative supermartingale from M_0 = 1, so the chance that it ever reaches 1 / alpha is at most alpha under
the null (Ville). pi may spend by stage and by interval because both are known before the interval's outcomes.

pi: `first` at the start, `stages` over later stage starts (1 / i(i+1), which sums to 1), and the rest over every
interval with a slowly falling share that needs no horizon: g(t) - g(t+1), g(t) = 1 / (1 + ln(1 + t / 60)). Late
starts keep the test sensitive to a regression that appears in the middle. Mixtures are textbook (Robbins 1970); this
pi is our choice. Small n: without evidence M stays 1. Cost: O(effects).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Grid:
    """The effects that are bet on, and the share of the prior that each gets; weights sum to 1."""

    effects: tuple[float, ...]
    weights: tuple[float, ...]

    @property
    def log_weights(self) -> NDArray[np.float64]:
        return np.log(np.asarray(self.weights))


@dataclass(frozen=True, slots=True)
class Starts:
    """How pi is spent: shares at the start, over later stage starts, and over all intervals; they sum to 1."""

    first: float
    stages: float
    anytime: float


LASTING = Starts(first=0.5, stages=0.3, anytime=0.2)
"""For evidence that goes on over the whole release."""
ONE_STAGE = Starts(first=0.9, stages=0.0, anytime=0.1)
"""For evidence that begins anew with each stage; the late part lets a candidate that warmed up slowly recover."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """One running mixture.

    log_parts: ln R_j
    stages, steps: later stage starts and intervals so far
    """

    log_parts: tuple[float, ...]
    stages: int = 0
    steps: int = 0


def begin(grid: Grid, starts: Starts) -> Mixture:
    """A mixture before any evidence; its value is 1."""
    log_parts = grid.log_weights + math.log(starts.first)
    return Mixture(tuple(log_parts.tolist()))


def stage_begins(mixture: Mixture, grid: Grid, starts: Starts) -> Mixture:
    """A later stage begins: part of the prior bets that a regression begins here."""
    stages = mixture.stages + 1
    fresh = starts.stages / (stages * (stages + 1))
    parts = np.logaddexp(np.asarray(mixture.log_parts), grid.log_weights + math.log(fresh))
    return replace(mixture, log_parts=tuple(parts.tolist()), stages=stages)


def follow(mixture: Mixture, grid: Grid, starts: Starts, log_e: NDArray[np.float64]) -> Mixture:
    """One more interval, with its log e-value for each effect, shape (J,)."""
    fresh = starts.anytime * late_share(mixture.steps)
    parts = np.logaddexp(np.asarray(mixture.log_parts), grid.log_weights + math.log(fresh)) + log_e
    return replace(mixture, log_parts=tuple(parts.tolist()), steps=mixture.steps + 1)


def late_share(step: int) -> float:
    """The share of the anytime part that begins with this interval, counted from 0. All together they sum to 1."""
    return _not_begun(step) - _not_begun(step + 1)


def log_value(mixture: Mixture, starts: Starts) -> float:
    """ln M."""
    not_begun = starts.stages / (mixture.stages + 1) + starts.anytime * _not_begun(mixture.steps)
    return log_sum((*mixture.log_parts, math.log(not_begun)))


def log_sum(logs: tuple[float, ...]) -> float:
    """ln of the sum of exponentials, without overflow."""
    peak = max(logs)
    return peak + math.log(sum(math.exp(value - peak) for value in logs))


def _not_begun(step: int) -> float:
    return 1 / (1 + math.log1p(step / 60))
