"""Kernel B for scores: does the candidate's mean score differ from stable's by more than delta? A balanced bet on one
interval.

Formula. y in [0, 1] is a score, or 1 less it where lower is worse, so that more is worse. The bet is that of
`betting` with rho = 1: E = prod_c (1 + lam (y - q)) * prod_p (1 - lam (n_c / n_p) (y - m)), q = m + delta. Its proof
uses of y nothing but the mean and the range, so what holds for failures holds for scores: E[E] <= 1 under H0,
whatever the shape of the scores and whatever m is. n_c and n_p count scores, not requests: a sample of the answers
will do, as long as it is drawn alike in both arms.

Knots. A factor is linear in y, so ln E is concave in it, and a score between two of the KNOTS is counted as a part of
each that keeps its mean: that makes E smaller, never larger, and the cost the same for two scores or for a million.

lam is chosen by effects d in (0, 1), shares of the largest lam that keeps every factor positive. The best one is the
gap of the means over the variance, which nobody knows beforehand; the grid spans it in steps of about three.

Assumes independent scores within an interval (those of one conversation are not, if many fall into one interval), and
an H0 that holds for its averages. Small n: an arm without scores gives E = 1. Source: as `betting`; to spread scores
on knots is our assembly. Cost: O(KNOTS * effects).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graylift.analysis import betting
from graylift.analysis.betting import Side
from graylift.analysis.mixture import Grid
from graylift.domain.scores import STEPS, ScoreCounts

WORSE = Grid(effects=(0.01, 0.03, 0.1, 0.3, 0.9), weights=(0.15, 0.25, 0.25, 0.2, 0.15))
"""Shares of the largest lam that are bet to show that the candidate is worse."""
WITHIN = Grid(effects=(0.03, 0.1, 0.3, 0.6, 0.95), weights=(0.15, 0.25, 0.25, 0.2, 0.15))
"""Shares of the largest lam that are bet to show that it is within the margin."""

KNOTS = np.linspace(0.0, 1.0, 41)
_STEPS_APART = STEPS // (len(KNOTS) - 1)


def spread(scores: ScoreCounts, *, lower_is_worse: bool) -> NDArray[np.float64]:
    """How many of the scores count at each knot; in sum, and in the mean, all of them. Turned so that more is worse."""
    at = np.zeros(len(KNOTS) + 1)
    if scores.steps:
        steps, counts = np.array(scores.steps, dtype=np.int64).T
        knots, beyond = np.divmod(steps, _STEPS_APART)
        np.add.at(at, knots, counts * (1 - beyond / _STEPS_APART))
        np.add.at(at, knots + 1, counts * (beyond / _STEPS_APART))
    return at[-2::-1] if lower_is_worse else at[:-1]


def log_e(
    candidate: NDArray[np.float64],
    stable: NDArray[np.float64],
    *,
    side: Side,
    guess: ArrayLike,
    delta: ArrayLike,
    effects: ArrayLike,
) -> NDArray[np.float64]:
    """Natural log of E, one for each effect.

    candidate, stable: scores at each knot, as `spread` gives them; shape S + (K,)
    guess: m, in (0, 1), and delta: of shapes that S can be stretched to. Returns that shape + (J,).
    """
    n_c, n_p, m, delta = np.broadcast_arrays(candidate.sum(axis=-1), stable.sum(axis=-1), guess, delta)
    bet = betting.stakes(n_c, n_p, side=side, guess=m, rho=1.0, delta=delta, effects=effects)
    lam, q, tilt, m = (part[..., None] for part in (bet.lam, bet.q, bet.tilt, bet.m))
    ours = np.log1p(lam * (KNOTS - q)) * candidate[..., None, :]
    theirs = np.log1p(-lam * tilt * (KNOTS - m)) * stable[..., None, :]
    return np.sum(ours + theirs, axis=-1)
