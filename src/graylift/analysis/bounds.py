"""The 95 % interval of a check's effect that holds at every look of the release at once.

Formula. A fixed grid of effect levels (latency ratios in bins, differences or ratios of failure shares). At each
level two running e-processes of kernel B: one against "the effect is at most this", one against "it is at least
this", three bets each. The lower end is the last level of an unbroken run, from the bottom, that the first kind has
refused at 2.5 %; the upper end likewise from the top. A wrong lower end would need the smallest level above the truth
refused, a true hypothesis: a chance of at most 2.5 % ever, and the same above.

Assumes one effect that lasts, and for latency that the candidate multiplies stable's latencies (what a ratio says).
Two ends that contradict each other are told as none. The run along a fixed grid is our assembly; it is as coarse as
its grid. Small n: unbounded. Cost: O(levels * 6), no sum over tables; kernel A would be too dear here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graylift.analysis import betting
from graylift.analysis.betting import Side
from graylift.analysis.evidence import Known, threshold
from graylift.analysis.sample import Stratum
from graylift.domain.histogram import BASE
from graylift.domain.spec import Check, MarginKind

MISSES = 0.05
_BETS = {Side.WORSE: (0.02, 0.1, 0.5), Side.WITHIN: (0.2, 0.6, 0.95)}
_BETS_EACH = 3
_SHIFTS = (
    -160,
    -110,
    -70,
    -50,
    -35,
    -25,
    -18,
    -13,
    -9,
    -6,
    -4,
    -2,
    0,
    2,
    4,
    6,
    9,
    13,
    18,
    25,
    35,
    50,
    70,
    110,
    160,
    230,
)
_RATIOS = tuple(BASE**shift for shift in _SHIFTS)
_POINTS = (
    *(-0.5, -0.2, -0.1, -0.05, -0.02, -0.01, -0.005, -0.002, 0.0, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015),
    *(0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """ln wealth of each bet at each level, level by level: against "at most" and against "at least"."""

    at_most: tuple[float, ...]
    at_least: tuple[float, ...]


def begin(check: Check) -> Bounds:
    """No evidence at any level."""
    flat = (-math.log(_BETS_EACH),) * (len(levels(check)) * _BETS_EACH)
    return Bounds(flat, flat)


def levels(check: Check) -> tuple[float, ...]:
    """The effects that are tested, ascending, in the unit of the check's margin."""
    if check.quantile is None and check.rollback_if_worse.kind is MarginKind.POINTS:
        return _POINTS
    return _RATIOS


def follow(bounds: Bounds, check: Check, past: Known, stratum: Stratum) -> Bounds:
    """One more stratum in which both arms have requests."""
    return Bounds(
        at_most=_followed(bounds.at_most, Side.WORSE, check, past, stratum),
        at_least=_followed(bounds.at_least, Side.WITHIN, check, past, stratum),
    )


def interval(bounds: Bounds, check: Check) -> tuple[float | None, float | None]:
    """(low, high) of the effect, each None while unbounded."""
    tested = levels(check)
    above = _refused(bounds.at_most, len(tested))
    below = _refused(bounds.at_least, len(tested))[::-1]
    low = int(np.argmin(np.append(above, False))) - 1
    high = len(tested) - int(np.argmin(np.append(below, False)))
    if low >= high:
        return None, None
    return (tested[low] if low >= 0 else None, tested[high] if high < len(tested) else None)


def _followed(logs: tuple[float, ...], side: Side, check: Check, past: Known, stratum: Stratum) -> tuple[float, ...]:
    candidate, stable = stratum.candidate, stratum.stable
    tested = np.asarray(levels(check))
    one, zero = np.ones_like(tested), np.zeros_like(tested)
    if check.quantile is not None:
        x = threshold(past, side)
        events_c, events_p = candidate.slower_than(x + np.asarray(_SHIFTS)), stable.slower_than(np.array(x))
        rho, delta = one, zero
    else:
        events_c, events_p = candidate.failed, stable.failed
        rho, delta = (one, tested) if check.rollback_if_worse.kind is MarginKind.POINTS else (tested, zero)
    log_e = betting.log_e(
        one * candidate.requests,
        one * stable.requests,
        one * events_c,
        one * events_p,
        side=side,
        guess=one * past.guess,
        rho=rho,
        delta=delta,
        effects=_BETS[side],
    )
    return tuple((np.asarray(logs) + log_e.ravel()).tolist())


def _refused(logs: tuple[float, ...], count: int) -> NDArray[np.bool_]:
    wealth = np.logaddexp.reduce(np.asarray(logs).reshape(count, -1), axis=1)
    return wealth >= -math.log(MISSES / 2)
