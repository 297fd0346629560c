"""What a check asks of one stratum: which kernel, which table, which bets.

`errors` bets on shares (kernel B), so that a margin may be in points or a ratio. A latency quantile compares how many
requests are slower than stable's trailing quantile (kernel A): with x the bin of stable's tau-quantile in earlier
intervals and s the margin in bins, candidate requests above bin x + s against stable requests above bin x. For a
candidate whose latencies are at most BASE**s times stable's, the former are no more frequent than the latter.

Failures. To show "within", a request that failed is slower than every answer, or failing would make fast. To show
"worse", only answers are compared, where the release has a check on errors: a candidate that is within its margin of
errors must not be found slow for them. Without such a check nobody else would see them, and they count as slow.

A ratio margin is a whole number of bins: up for rollback, down for promotion, so that neither claim says more than
the counts do. Anything a kernel does not know before the interval, it does not use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graylift.analysis import betting, conditional
from graylift.analysis.betting import Side
from graylift.analysis.mixture import Grid
from graylift.analysis.reference import Reference, answers_needed
from graylift.analysis.sample import Stratum
from graylift.domain.histogram import lower_bound, shift_of
from graylift.domain.spec import Check, Margin, MarginKind

_ROUNDING = 1e-6


def grid_of(check: Check, side: Side) -> Grid:
    """The bets that a check makes."""
    kernel = betting if check.quantile is None else conditional
    return kernel.WORSE if side is Side.WORSE else kernel.WITHIN


@dataclass(frozen=True, slots=True)
class Known:
    """Stable's past, for one check. guess: the share that fails, or of answers that are slow; x: the quantile's bin, 0
    for errors."""

    guess: float
    x: int


def known(checks: Sequence[Check], reference: Reference) -> tuple[Known | None, ...]:
    """What each check knows before an interval; None while that is too little."""
    failed, answers = reference.failed_share, reference.answers
    quantiles = tuple(check.quantile for check in checks if check.quantile is not None)
    bins = iter(reference.latency.quantile_bins(quantiles))

    def of(check: Check) -> Known | None:
        if check.quantile is None:
            return Known(failed, x=0)
        x = next(bins)
        if x is None or answers < answers_needed(check.quantile):
            return None
        return Known(1 - check.quantile, x)

    return tuple(of(check) for check in checks)


def log_e(
    checks: Sequence[Check],
    margins: Sequence[Margin],
    side: Side,
    pasts: Sequence[Known | None],
    stratum: Stratum,
) -> tuple[NDArray[np.float64] | None, ...]:
    """Log e-values of one stratum in which both arms have requests: for each check one for each bet of `grid_of`, or
    None where its past is. All quantiles pass their kernel together, which costs little more than one of them."""
    found: list[NDArray[np.float64] | None] = [None] * len(checks)
    slow: list[tuple[int, int, int]] = []
    for number, (check, margin, past) in enumerate(zip(checks, margins, pasts, strict=True)):
        if past is None:
            continue
        if check.quantile is None:
            found[number] = _of_errors(check, margin, side, past, stratum)
        else:
            x = threshold(past, side)
            slow.append((number, x + bins_of(margin, side), x))
    if slow:
        numbers, beyond_c, beyond_p = np.array(slow).T
        candidate, stable = stratum.candidate, stratum.stable
        if not failures_are_slow(checks, side):
            candidate, stable = candidate.answered(), stable.answered()
        effects = (conditional.WORSE if side is Side.WORSE else conditional.WITHIN).effects
        rows = conditional.log_e(
            candidate.requests, stable.requests, candidate.slower_than(beyond_c), stable.slower_than(beyond_p), effects
        )
        for number, row in zip(numbers.tolist(), rows, strict=True):
            found[number] = row
    return tuple(found)


def failures_are_slow(checks: Sequence[Check], side: Side) -> bool:
    """Does a failed request count as slower than every answer?"""
    return side is Side.WITHIN or all(check.quantile is not None for check in checks)


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


def threshold(past: Known, side: Side) -> int:
    """The bin beyond which stable's requests are slow; the kernels are valid at any.

    To show "within", the quantile's own bin counts as slow, or a stable whose latencies hardly differ would show none.
    """
    return past.x if side is Side.WORSE else past.x - 1


def slowest_s(check: Check, margin: Margin, past: Known) -> float:
    """The latency, in seconds, beyond which a candidate's request speaks against "within the margin"; 0 for errors."""
    return 0.0 if check.quantile is None else lower_bound(past.x + bins_of(margin, Side.WITHIN))


def linear(margin: Margin) -> tuple[float, float]:
    """A margin as (rho, delta): the candidate's share is compared with rho * stable's + delta."""
    return (margin.value, 0.0) if margin.kind is MarginKind.RATIO else (1.0, margin.value)


def bins_of(margin: Margin, side: Side) -> int:
    """A ratio margin in whole bins, rounded so that the claim is not stronger than the counts."""
    exact = shift_of(margin.value)
    return math.ceil(exact - _ROUNDING) if side is Side.WORSE else math.floor(exact + _ROUNDING)
