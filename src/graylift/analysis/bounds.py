"""The 95 % interval of a check's effect that holds at every look of the release at once.

Formula. A fixed grid of effect levels (ratios of times in bins, differences or ratios of failure shares, differences
of mean scores). At each level two running e-processes of kernel B: one against "the effect is at most this", one
against "it is at least this", three bets each. The lower end is the last level of an unbroken run, from the bottom,
that the first kind has refused at 2.5 %; the upper end likewise from the top. A wrong lower end would need the
smallest level above the truth refused, a true hypothesis: a chance of at most 2.5 % ever, and the same above.

Assumes one effect that lasts, and for times that the candidate multiplies stable's (what a ratio says); it is the
ratio of answers, whatever fails. A difference of scores is told as it is, whichever way is worse.
Two ends that contradict each other are told as none. The run along a fixed grid is our assembly; it is as coarse as
its grid. Small n: unbounded. Cost: O(levels * 6), for a score times its knots, no sum over tables; kernel A would be
too dear here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graylift.analysis import betting, scoring
from graylift.analysis.betting import Side
from graylift.analysis.evidence import Known, lower_is_worse, threshold
from graylift.analysis.sample import Stratum
from graylift.domain.histogram import BASE
from graylift.domain.spec import Check, MarginKind, Metric

MISSES = 0.05
_BETS = {Side.WORSE: (0.02, 0.1, 0.5), Side.WITHIN: (0.2, 0.6, 0.95)}
_SCORE_BETS = {Side.WORSE: (0.02, 0.15, 0.7), Side.WITHIN: (0.02, 0.15, 0.7)}
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
_UP = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5)
_SCORES = (*(-level for level in reversed(_UP)), 0.0, *_UP)


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
    match check.rollback_if_worse.kind:
        case MarginKind.RATIO:
            return _RATIOS
        case MarginKind.POINTS:
            return _POINTS
        case MarginKind.SCORE:
            return _SCORES
        case _:
            assert_never(check.rollback_if_worse.kind)


def follow(
    bounds: Sequence[Bounds], checks: Sequence[Check], pasts: Sequence[Known | None], stratum: Stratum
) -> tuple[Bounds, ...]:
    """The bounds of all checks after one more stratum in which no arm is empty."""
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
    """The wealth of one side's bets, check by check; all quantiles of one metric are bet on together."""
    after = list(logs)
    slow: dict[Metric, list[tuple[int, Known]]] = {}
    for number, (check, past) in enumerate(zip(checks, pasts, strict=True)):
        if past is None:
            continue
        match check.metric:
            case Metric.ERRORS:
                candidate, stable = stratum.candidate, stratum.stable
                counts = (candidate.requests, stable.requests, candidate.failed, stable.failed)
                log_e = _of_shares(side, check, past, counts)
            case Metric.SHARE:
                ours, theirs = stratum.candidate.tally(check.share), stratum.stable.tally(check.share)
                log_e = _of_shares(side, check, past, (ours.total, theirs.total, ours.bad, theirs.bad))
            case Metric.SCORE:
                log_e = _of_scores(side, check, past, stratum)
            case Metric.LATENCY | Metric.TTFT | Metric.TPOT:
                slow.setdefault(check.metric, []).append((number, past))
                continue
            case _:
                assert_never(check.metric)
        after[number] = tuple((np.asarray(logs[number]) + log_e.ravel()).tolist())
    for metric, of_metric in slow.items():
        rows = _of_times(side, metric, [past for _, past in of_metric], stratum)
        for (number, _), row in zip(of_metric, rows, strict=True):
            after[number] = tuple((np.asarray(logs[number]) + row.ravel()).tolist())
    return after


def _of_shares(side: Side, check: Check, past: Known, counts: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """counts: n_c, n_p, x_c, x_p."""
    points = check.rollback_if_worse.kind is MarginKind.POINTS
    rho, delta = (np.ones(1), np.asarray(_POINTS)) if points else (np.asarray(_RATIOS), np.zeros(1))
    return _log_e(side, counts, np.array(past.guess), rho, delta)


def _of_scores(side: Side, check: Check, past: Known, stratum: Stratum) -> NDArray[np.float64]:
    candidate, stable = (
        scoring.spread(arm.scored(check.score), lower_is_worse=False) for arm in (stratum.candidate, stratum.stable)
    )
    guess = 1 - past.guess if lower_is_worse(check) else past.guess
    return scoring.log_e(candidate, stable, side=side, guess=guess, delta=_SCORES, effects=_SCORE_BETS[side])


def _of_times(side: Side, metric: Metric, pasts: Sequence[Known], stratum: Stratum) -> NDArray[np.float64]:
    x = np.array([threshold(past, side) for past in pasts])[:, None]
    candidate, stable = stratum.candidate.answered(), stratum.stable.answered()
    counts = (
        candidate.times(metric).count,
        stable.times(metric).count,
        candidate.slower_than(x + np.asarray(_SHIFTS), metric),
        stable.slower_than(x, metric),
    )
    return _log_e(side, counts, np.array([past.guess for past in pasts])[:, None], np.ones(1), np.zeros(1))


def _log_e(
    side: Side,
    counts: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike],
    guess: NDArray[np.float64],
    rho: NDArray[np.float64],
    delta: NDArray[np.float64],
) -> NDArray[np.float64]:
    """counts: n_c, n_p, x_c, x_p."""
    n_c, n_p, x_c, x_p, m, rho, delta = np.broadcast_arrays(*counts, guess, rho, delta)
    return betting.log_e(n_c, n_p, x_c, x_p, side=side, guess=m, rho=rho, delta=delta, effects=_BETS[side])


def _refused(logs: tuple[float, ...], count: int) -> NDArray[np.bool_]:
    wealth = np.logaddexp.reduce(np.asarray(logs).reshape(count, -1), axis=1)
    return wealth >= -math.log(MISSES / 2)
