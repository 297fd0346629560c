"""Pairs of answers to the same requests: is the candidate worse on them, or within its margins? One bet a pair.

Formula. y is a pair's value in [lo, hi], mu the margin as a bound of y's mean. To show "worse" against H0: E[y | past]
<= mu, E = prod (1 + lam (y - mu)), lam = d / (mu - lo); to show "within" against H0: E[y | past] >= mu, E = prod (1 -
lam (y - mu)), lam = d / (hi - mu); d in (0, 1) are the effects bet on, all fixed beforehand. The values:

    errors     y = 1 if only the candidate failed, -1 if only stable did, else 0; mu: the margin in points
    latency    y = 1 if the candidate took more than r times as long as stable, else 0; mu = 1/2: half of the pairs
    agreement  y = 1 if the answers do not agree, else 0; mu: the share that may not

Why it may be trusted. Each factor is positive and has a mean of at most 1 under H0, so the product is a nonnegative
supermartingale (Ville); no assumption on how hard a request is, since both arms got it: what makes requests differ
cancels within the pair, which is why far fewer are needed than of separate samples. Ratios are counted in bins of 1 %;
a margin is rounded to its own safe side. Small n: E stays near 1. What it does not see: both revisions answer at the
same time, so if they share a machine they slow each other down; the latency margin has to leave room for that.

Source: betting on a bounded mean, Waudby-Smith and Ramdas (arXiv 2010.09686); with 0 and 1 it is the sign test and, for
errors, a McNemar test with a margin. Cost: O(effects) an interval; only counts are needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from graylift.analysis import mixture
from graylift.analysis.betting import Side
from graylift.analysis.mixture import LASTING, ONE_STAGE, Grid, Mixture, Starts
from graylift.domain.histogram import shift_of
from graylift.domain.shadow import ShadowWindow, summed
from graylift.domain.spec import ShadowCheck, ShadowJudge

GRID = Grid(effects=(0.05, 0.2, 0.5, 0.95), weights=(0.2, 0.25, 0.25, 0.3))
"""Effects bet on, on both sides. The last is for a candidate that is always, or never, as bad as feared."""
_NEAREST = 1e-3
"""A bound of all or none is tested at this distance: there, a single pair would decide."""

Values: TypeAlias = "tuple[tuple[float, int], ...]"
"""(y, how many pairs have it)."""


@dataclass(frozen=True, slots=True)
class Paired:
    """The evidence of pairs, for each check of the judge of shadows.

    against: that the candidate is worse than the rollback margin; over the whole release
    within:  that it is within the promote margin; of this stage
    seen:    all pairs of this stage, None before the first
    """

    against: tuple[Mixture, ...]
    within: tuple[Mixture, ...]
    seen: ShadowWindow | None = None


def begin(judge: ShadowJudge) -> Paired:
    return Paired(
        against=tuple(mixture.begin(GRID, LASTING) for _ in judge.checks),
        within=tuple(mixture.begin(GRID, ONE_STAGE) for _ in judge.checks),
    )


def stage_begins(judge: ShadowJudge, paired: Paired) -> Paired:
    """A later stage: what speaks for the candidate begins anew, what speaks against it stays."""
    against = tuple(mixture.stage_begins(running, GRID, LASTING) for running in paired.against)
    return Paired(against, begin(judge).within)


def follow(judge: ShadowJudge, paired: Paired, windows: Sequence[ShadowWindow], split: str) -> Paired:
    """After the pairs of one interval. `split` is the current stage's; others are of earlier ones of the release."""
    window = summed(windows)
    if window is None:
        return paired
    against = tuple(
        _followed(running, LASTING, check, judge, Side.WORSE, window)
        for check, running in zip(judge.checks, paired.against, strict=True)
    )
    current = summed(one for one in windows if one.split == split)
    if current is None:
        return Paired(against, paired.within, paired.seen)
    within = tuple(
        _followed(running, ONE_STAGE, check, judge, Side.WITHIN, current)
        for check, running in zip(judge.checks, paired.within, strict=True)
    )
    return Paired(against, within, summed(one for one in (paired.seen, current) if one is not None))


def _followed(
    running: Mixture, starts: Starts, check: ShadowCheck, judge: ShadowJudge, side: Side, window: ShadowWindow
) -> Mixture:
    values, lowest, bound, highest = _values(check, judge, side, window)
    if not any(count for _, count in values):
        return running
    return mixture.follow(running, GRID, starts, log_e(values, lowest, bound, highest, side))


def log_e(values: Values, lowest: float, bound: float, highest: float, side: Side) -> NDArray[np.float64]:
    """Natural log of E, one for each effect of GRID. lowest < bound < highest."""
    effects = np.asarray(GRID.effects)
    lam = effects / (bound - lowest if side is Side.WORSE else highest - bound)
    total = np.zeros_like(effects)
    for value, count in values:
        total += count * np.log1p(side.value * lam * (value - bound))
    return total


def _values(
    check: ShadowCheck, judge: ShadowJudge, side: Side, window: ShadowWindow
) -> tuple[Values, float, float, float]:
    """(values, lowest, bound, highest) of y."""
    worse = side is Side.WORSE
    match check:
        case ShadowCheck.ERRORS:
            ours, theirs = window.only_candidate_failed, window.only_stable_failed
            margin = judge.errors_rollback if worse else judge.errors_promote
            return ((1.0, ours), (-1.0, theirs), (0.0, window.pairs - ours - theirs)), -1.0, margin.value, 1.0
        case ShadowCheck.LATENCY:
            shift = shift_of((judge.latency_rollback if worse else judge.latency_promote).value)
            # `above` counts the bins beyond one that itself reaches beyond the margin, or still holds it.
            slower = window.latency_ratio.above(math.ceil(shift) - 1 if worse else math.floor(shift) - 1)
            return ((1.0, slower), (0.0, window.latency_ratio.count - slower)), 0.0, 0.5, 1.0
        case ShadowCheck.AGREEMENT:
            assert judge.agreement is not None
            share = 1 - (judge.agreement.rollback_if_below if worse else judge.agreement.promote_if_above)
            others = window.compared - window.agreeing
            bound = min(max(share, _NEAREST), 1 - _NEAREST)
            return ((1.0, others), (0.0, window.agreeing)), 0.0, bound, 1.0
        case _:
            assert_never(check)


def measured(check: ShadowCheck, seen: ShadowWindow | None) -> tuple[float | None, float | None, int]:
    """(the candidate's, stable's, of how many pairs): a share of failures, a median in seconds, a share that agrees."""
    if seen is None or not seen.pairs:
        return None, None, 0
    match check:
        case ShadowCheck.ERRORS:
            both, pairs = seen.both_failed, seen.pairs
            return (seen.only_candidate_failed + both) / pairs, (seen.only_stable_failed + both) / pairs, pairs
        case ShadowCheck.LATENCY:
            return seen.candidate_s.quantile(0.5), seen.stable_s.quantile(0.5), seen.latency_ratio.count
        case ShadowCheck.AGREEMENT:
            return seen.agreement, None, seen.compared
        case _:
            assert_never(check)
