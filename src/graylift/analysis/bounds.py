"""The 95 % interval of a check's effect that holds at every look of the release at once.

Formula. A fixed grid of effect levels (latency ratios in bins, differences or ratios of failure shares). At each
level two running e-processes of kernel B: one against "the effect is at most this", one against "it is at least
this", three bets each. The lower end is the last level of an unbroken run, from the bottom, that the first kind has
refused at 2.5 %; the upper end likewise from the top. A wrong lower end would need the smallest level above the truth
refused, a true hypothesis: a chance of at most 2.5 % ever, and the same above.

Assumes one effect that lasts, and for latency that the candidate multiplies stable's latencies (what a ratio says);
it is the ratio of answers, whatever fails.
Two ends that contradict each other are told as none. The run along a fixed grid is our assembly; it is as coarse as
its grid. Small n: unbounded. Cost: O(levels * 6), no sum over tables; kernel A would be too dear here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def follow(
    bounds: Sequence[Bounds], checks: Sequence[Check], pasts: Sequence[Known | None], stratum: Stratum
) -> tuple[Bounds, ...]:
    """The bounds of all checks after one more stratum in which both arms have requests."""
    at_most = _followed([one.at_most for one in bounds], Side.WORSE, checks, pasts, stratum)
    at_least = _followed([one.at_least for one in bounds], Side.WITHIN, checks, pasts, stratum)
    return tuple(Bounds(most, least) for most, least in zip(at_most, at_least, strict=True))


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


def _followed(
    logs: Sequence[tuple[float, ...]],
    side: Side,
    checks: Sequence[Check],
    pasts: Sequence[Known | None],
    stratum: Stratum,
) -> list[tuple[float, ...]]:
    """The wealth of one side's bets, check by check; the latencies, which share their levels, are bet on together."""
    after = list(logs)
    slow: list[tuple[int, Known]] = []
    for number, (check, past) in enumerate(zip(checks, pasts, strict=True)):
        if past is None:
            continue
        if check.quantile is not None:
            slow.append((number, past))
            continue
        events = (np.array(stratum.candidate.failed), np.array(stratum.stable.failed))
        points = check.rollback_if_worse.kind is MarginKind.POINTS
        rho, delta = (np.ones(1), np.asarray(_POINTS)) if points else (np.asarray(_RATIOS), np.zeros(1))
        log_e = _log_e(side, stratum, *events, np.array(past.guess), rho, delta)
        after[number] = tuple((np.asarray(logs[number]) + log_e.ravel()).tolist())
    if slow:
        x = np.array([threshold(past, side) for _, past in slow])[:, None]
        answered = Stratum(stratum.candidate.answered(), stratum.stable.answered())
        events = (answered.candidate.slower_than(x + np.asarray(_SHIFTS)), answered.stable.slower_than(x))
        guess = np.array([past.guess for _, past in slow])[:, None]
        rows = _log_e(side, answered, *events, guess, np.ones(1), np.zeros(1))
        for (number, _), row in zip(slow, rows, strict=True):
            after[number] = tuple((np.asarray(logs[number]) + row.ravel()).tolist())
    return after


def _log_e(
    side: Side,
    stratum: Stratum,
    events_c: NDArray[np.int64],
    events_p: NDArray[np.int64],
    guess: NDArray[np.float64],
    rho: NDArray[np.float64],
    delta: NDArray[np.float64],
) -> NDArray[np.float64]:
    n_c, n_p, x_c, x_p, m, rho, delta = np.broadcast_arrays(
        stratum.candidate.requests, stratum.stable.requests, events_c, events_p, guess, rho, delta
    )
    return betting.log_e(n_c, n_p, x_c, x_p, side=side, guess=m, rho=rho, delta=delta, effects=_BETS[side])


def _refused(logs: tuple[float, ...], count: int) -> NDArray[np.bool_]:
    wealth = np.logaddexp.reduce(np.asarray(logs).reshape(count, -1), axis=1)
    return wealth >= -math.log(MISSES / 2)
