"""What a check asks of one stratum: which kernel, which table, which bets.

`errors`, like every share of events that others count, bets on shares (kernel B), so that a margin may be in points or
a ratio; a score bets on means (kernel B on knots). A quantile of a time compares how many requests are slower than
stable's trailing quantile (kernel A): with x the bin of stable's tau-quantile in earlier intervals and s the margin in
bins, candidate requests above bin x + s against stable requests above bin x. For a candidate whose times are at most
BASE**s times stable's, the former are no more frequent than the latter.

Failures. To show "within", a request that failed is slower than every answer, or failing would make fast. To show
"worse", only answers are compared, where the release has a check on errors: a candidate that is within its margin of
errors must not be found slow for them. Without such a check nobody else would see them, and they count as slow.
A score is of answers alone: one that failed has none.

A ratio margin is a whole number of bins: up for rollback, down for promotion, so that neither claim says more than
the counts do. Anything a kernel does not know before the interval, it does not use.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from graylift.analysis import betting, conditional, scoring
from graylift.analysis.betting import Side
from graylift.analysis.mixture import Grid
from graylift.analysis.reference import Reference, answers_needed
from graylift.analysis.sample import Sample, Stratum
from graylift.domain.histogram import lower_bound, shift_of
from graylift.domain.spec import Check, Margin, MarginKind, Metric

_ROUNDING = 1e-6
STREAMS_END = 0.99
"""The quantile of stable's latency by which a stream counts as ended."""


def grid_of(check: Check, side: Side) -> Grid:
    """The bets that a check makes."""
    match check.metric:
        case Metric.ERRORS | Metric.SHARE:
            kernel = betting
        case Metric.LATENCY | Metric.TTFT | Metric.TPOT:
            kernel = conditional
        case Metric.SCORE:
            kernel = scoring
        case _:
            assert_never(check.metric)
    return kernel.WORSE if side is Side.WORSE else kernel.WITHIN


def scores_of(checks: Sequence[Check]) -> Collection[str]:
    """The names of the scores that are judged; all others are passed over."""
    return {check.score for check in checks if check.score is not None}


def names_of(checks: Sequence[Check]) -> Collection[str]:
    """The same of scores and shares together."""
    return {own for check in checks if (own := check.score or check.share) is not None}


@dataclass(frozen=True, slots=True)
class Known:
    """Stable's past, for one check.

    guess: the share that fails or is bad, the share of answers that are slow, or the mean score, turned so that more
           is worse
    x:     the quantile's bin; 0 for what has none
    ends:  the bin of the time by which an answer that slow has ended; of a stream, that of a long answer
    """

    guess: float
    x: int = 0
    ends: int = 0


def known(checks: Sequence[Check], reference: Reference) -> tuple[Known | None, ...]:
    """What each check knows before an interval; None while that is too little."""
    tails: dict[Metric, dict[float, int | None]] = {}
    for metric in {check.metric for check in checks if check.quantile is not None}:
        quantiles = [check.quantile for check in checks if check.metric is metric and check.quantile is not None]
        found = reference.times(metric).quantile_bins(quantiles)
        tails[metric] = dict(zip(quantiles, found, strict=True))
    streams = any(metric is not Metric.LATENCY for metric in tails)
    longest = reference.times(Metric.LATENCY).quantile_bins((STREAMS_END,))[0] if streams else None

    def of(check: Check) -> Known | None:
        if check.metric is Metric.ERRORS:
            return Known(reference.failed_share)
        if check.metric is Metric.SHARE:
            return Known(reference.bad_share(check.share))
        if reference.answers(check) < answers_needed(check):
            return None
        if check.quantile is None:
            mean = reference.mean_score(check.score)
            return Known(1 - mean if lower_is_worse(check) else mean)
        x = tails[check.metric][check.quantile]
        long = None if check.metric is Metric.LATENCY else longest
        return None if x is None else Known(1 - check.quantile, x, x if long is None else max(x, long))

    return tuple(of(check) for check in checks)


def log_e(
    checks: Sequence[Check],
    margins: Sequence[Margin],
    side: Side,
    pasts: Sequence[Known | None],
    stratum: Stratum,
) -> tuple[NDArray[np.float64] | None, ...]:
    """Log e-values of one stratum in which no arm is empty: for each check one for each bet of `grid_of`, or None where
    its past is. All quantiles pass their kernel together, which costs little more than one of them."""
    found: list[NDArray[np.float64] | None] = [None] * len(checks)
    slow: list[int] = []
    tables: list[tuple[int, int, int, int]] = []
    for number, (check, margin, past) in enumerate(zip(checks, margins, pasts, strict=True)):
        if past is None:
            continue
        match check.metric:
            case Metric.ERRORS:
                found[number] = _of_errors(check, margin, side, past, stratum)
            case Metric.SHARE:
                found[number] = _of_tallies(check, margin, side, past, stratum)
            case Metric.SCORE:
                found[number] = _of_scores(check, margin, side, past, stratum)
            case Metric.LATENCY | Metric.TTFT | Metric.TPOT:
                slow.append(number)
                tables.append(_table(check, margin, side, past, stratum, failures=failures_are_slow(checks, side)))
            case _:
                assert_never(check.metric)
    if slow:
        effects = (conditional.WORSE if side is Side.WORSE else conditional.WITHIN).effects
        n_c, n_p, x_c, x_p = np.array(tables).T
        rows = conditional.log_e(n_c, n_p, x_c, x_p, effects)
        for number, row in zip(slow, rows, strict=True):
            found[number] = row
    return tuple(found)


def failures_are_slow(checks: Sequence[Check], side: Side) -> bool:
    """Does a failed request count as slower than every answer?"""
    return side is Side.WITHIN or all(check.metric is not Metric.ERRORS for check in checks)


def lower_is_worse(check: Check) -> bool:
    """Of a score: does its margin look down?"""
    return check.rollback_if_worse.value < 0


def _of_errors(check: Check, margin: Margin, side: Side, past: Known, stratum: Stratum) -> NDArray[np.float64]:
    rho, delta = linear(margin)
    return betting.log_e(
        stratum.candidate.requests,
        stratum.stable.requests,
        stratum.candidate.failed,
        stratum.stable.failed,
        side=side,
        guess=past.guess,
        rho=rho,
        delta=delta,
        effects=grid_of(check, side).effects,
    )


def _of_tallies(check: Check, margin: Margin, side: Side, past: Known, stratum: Stratum) -> NDArray[np.float64]:
    rho, delta = linear(margin)
    candidate, stable = stratum.candidate.tally(check.share), stratum.stable.tally(check.share)
    counts = (candidate.total, stable.total, candidate.bad, stable.bad)
    effects = grid_of(check, side).effects
    return betting.log_e(*counts, side=side, guess=past.guess, rho=rho, delta=delta, effects=effects)


def _of_scores(check: Check, margin: Margin, side: Side, past: Known, stratum: Stratum) -> NDArray[np.float64]:
    candidate, stable = (
        scoring.spread(arm.scored(check.score), lower_is_worse=lower_is_worse(check))
        for arm in (stratum.candidate, stratum.stable)
    )
    effects = grid_of(check, side).effects
    return scoring.log_e(candidate, stable, side=side, guess=past.guess, delta=margin.room, effects=effects)


def _table(
    check: Check, margin: Margin, side: Side, past: Known, stratum: Stratum, *, failures: bool
) -> tuple[int, int, int, int]:
    """(n_c, n_p, x_c, x_p): requests whose time is known, those that failed if they count, and the slow among them."""
    x = threshold(past, side)

    def counted(arm: Sample, beyond: int) -> tuple[int, int]:
        times, failed = arm.times(check.metric), arm.failed if failures else 0
        return times.count + failed, times.above(beyond) + failed

    (n_c, x_c), (n_p, x_p) = counted(stratum.candidate, x + bins_of(margin, side)), counted(stratum.stable, x)
    return n_c, n_p, x_c, x_p


def threshold(past: Known, side: Side) -> int:
    """The bin beyond which stable's requests are slow; the kernels are valid at any.

    To show "within", the quantile's own bin counts as slow, or a stable whose latencies hardly differ would show none.
    """
    return past.x if side is Side.WORSE else past.x - 1


def slowest_s(check: Check, margin: Margin, past: Known) -> float:
    """After how many seconds a candidate's request that speaks against "within the margin" has ended; 0 for what
    has no quantile."""
    return 0.0 if check.quantile is None else lower_bound(past.ends + bins_of(margin, Side.WITHIN))


def linear(margin: Margin) -> tuple[float, float]:
    """A margin as (rho, delta): the candidate's share is compared with rho * stable's + delta."""
    return (margin.value, 0.0) if margin.kind is MarginKind.RATIO else (1.0, margin.value)


def bins_of(margin: Margin, side: Side) -> int:
    """A ratio margin in whole bins, rounded so that the claim is not stronger than the counts."""
    exact = shift_of(margin.value)
    return math.ceil(exact - _ROUNDING) if side is Side.WORSE else math.floor(exact + _ROUNDING)
