"""Kernel B: is the candidate's share of failures beyond rho times stable's plus delta? A balanced bet on one
interval.

Formula. y is 1 for a failure. To show "worse" against H0: mu_c <= rho mu_p + delta, E = prod_c (1 + lam (y - q)) *
prod_p (1 - lam rho (n_c / n_p) (y - m)), q = rho m + delta, and to show "within" against H0: mu_c >= rho mu_p + delta
the same with -lam for lam. m is a guess of stable's share made before the interval; lam > 0 may depend on n_c and n_p
but on no outcome, and keeps every factor positive.

Why it may be trusted. By the inequality of the means, E[E] <= (1 + lam n_c (mu_c - rho mu_p - delta) / (n_c +
n_p))^(n_c + n_p), which is at most 1 under H0, whatever m is: a bad guess costs speed, never validity. Assumes
independent requests within an interval, and an H0 that holds for the interval's averages (weaker ground than kernel
A's randomisation, but kernel A cannot state a margin in points). Small n: an empty arm gives E = 1; a thin stable arm
caps lam near n_p / n_c.

lam is chosen by effects d in (0, 1): for "worse" the bet is best if the candidate fails a share d of the requests
that it may not fail (mu = q + d (1 - q), lam = d / q); for "within", if it spares a share d of those that it may fail
(mu = q (1 - d), lam = d / (1 - q)).

Source: two-sample e-values of Turner, Ly and Grunwald (arXiv 2106.02693), betting of Waudby-Smith and Ramdas (arXiv
2010.09686). The form with rho, delta and the guess m is our assembly. Cost: O(effects); only counts are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graylift.analysis.mixture import Grid

WORSE = Grid(effects=(0.005, 0.02, 0.07, 0.25, 0.9), weights=(0.15, 0.2, 0.2, 0.2, 0.25))
"""Effects bet on to show that the candidate is worse. The last is for one that fails everything."""
WITHIN = Grid(effects=(0.3, 0.6, 0.85, 0.99), weights=(0.1, 0.15, 0.15, 0.6))
"""Effects bet on to show that it is within the margin. The last is for arms that do not fail at all."""

_BOLDEST = 0.95
"""Of the largest lam that stable's side allows: at 1 a single interval could end the bet for ever."""
_LARGEST_Q = 0.99


class Side(Enum):
    """What a bet wants to show."""

    WORSE = 1
    WITHIN = -1


@dataclass(frozen=True, slots=True)
class Stakes:
    """A bet before its interval is seen: each request multiplies the wealth, the candidate's with outcome y by
    1 + lam (y - q), stable's by 1 - lam tilt (y - m). All of shape S + (J,)."""

    lam: NDArray[np.float64]
    q: NDArray[np.float64]
    tilt: NDArray[np.float64]
    m: NDArray[np.float64]


def stakes(
    n_c: ArrayLike,
    n_p: ArrayLike,
    *,
    side: Side,
    guess: ArrayLike,
    rho: ArrayLike,
    delta: ArrayLike,
    effects: ArrayLike,
) -> Stakes:
    """The bets of `log_e`; no factor of an outcome from 0 to 1 is negative."""
    candidate, stable, rho_, delta_ = (np.asarray(a, dtype=np.float64)[..., None] for a in (n_c, n_p, rho, delta))
    # Any guess is valid, so one that would put q out of reach is lowered.
    m = np.minimum(np.asarray(guess, dtype=np.float64)[..., None], (_LARGEST_Q - delta_) / rho_)
    q = rho_ * m + delta_
    d = np.asarray(effects, dtype=np.float64)
    tilt = rho_ * candidate / np.maximum(stable, 1.0)
    scale, worst = (q, 1 - m) if side is Side.WORSE else (1 - q, m)
    with np.errstate(divide="ignore"):
        wanted = np.where(scale > 0, d / scale, np.inf)
        allowed = np.where(stable > 0, _BOLDEST / (tilt * worst), 0.0)
    return Stakes(side.value * np.where(candidate > 0, np.minimum(wanted, allowed), 0.0), q, tilt, m)


def log_e(
    n_c: ArrayLike,
    n_p: ArrayLike,
    x_c: ArrayLike,
    x_p: ArrayLike,
    *,
    side: Side,
    guess: ArrayLike,
    rho: ArrayLike,
    delta: ArrayLike,
    effects: ArrayLike,
) -> NDArray[np.float64]:
    """Natural log of E, one for each effect.

    n_c, n_p, x_c, x_p: requests and failures; guess: m, in (0, 1); rho > 0; delta in (-1, 0.99): all of one shape S
    effects: shape (J,). Returns shape S + (J,).
    """
    candidate, stable, bad_c, bad_p = (np.asarray(a, dtype=np.float64)[..., None] for a in (n_c, n_p, x_c, x_p))
    bet = stakes(n_c, n_p, side=side, guess=guess, rho=rho, delta=delta, effects=effects)
    lam, q, tilt, m = bet.lam, bet.q, bet.tilt, bet.m
    return (
        bad_c * np.log1p(lam * (1 - q))
        + (candidate - bad_c) * np.log1p(-lam * q)
        + bad_p * np.log1p(-lam * tilt * (1 - m))
        + (stable - bad_p) * np.log1p(lam * tilt * m)
    )
