"""Kernel A: is an event more frequent on the candidate? One interval's 2x2 table, judged given its own margins.

Formula. Of n_c candidate and n_p stable requests x_c and x_p had the event, k = x_c + x_p. With Z(psi) = sum_j C(n_c,
j) C(n_p, k - j) psi^j, given n_c, n_p and k, x_c has the probability C(n_c, x) C(n_p, k - x) psi^x / Z(psi) where psi
is the odds ratio (Fisher's noncentral hypergeometric law). The e-value of an alternative psi against "the odds ratio
is 1" is the ratio of the two likelihoods: E = psi^x_c Z(1) / Z(psi), and Z(1) = C(n_c + n_p, k).

Why it may be trusted. E[E] is exactly 1 at odds ratio 1. The law has a monotone likelihood ratio, so for psi > 1 it
is at most 1 at every odds ratio below 1, and for psi < 1 at every one above. Given the interval's own k its level
cancels: a rhythm of the day biases nothing, and any split of the traffic will do. Assumes that requests of one
interval are exchangeable but for their arm. Small n: with no event, only events, or an empty arm the table says
nothing and E = 1.

Source. The law: Fisher 1935. E-values of this kind: Lindon and Malek (arXiv 2011.03567), Turner and Grunwald on
stratified 2x2 tables (arXiv 2302.11401). To condition on each interval and multiply is our assembly, not a published
procedure.

Cost: O(min(k, n_c) * effects), at most WIDEST * effects: Z's terms fall off geometrically on both sides of their
mode; beyond the widest window the rest is replaced by its geometric upper bound, which makes E smaller and never
larger.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graylift.analysis.mixture import Grid

WORSE = Grid(effects=(1.3, 2.0, 4.0, 12.0, 100.0), weights=(0.15, 0.25, 0.25, 0.2, 0.15))
"""Odds ratios bet on to show that the event is more frequent on the candidate."""
WITHIN = Grid(effects=(0.75, 0.45, 0.15, 0.03), weights=(0.15, 0.3, 0.35, 0.2))
"""Odds ratios bet on to show that it is less frequent."""

WIDEST = 2048
"""Terms of Z that are summed one by one."""

_STIRLING_FROM = 4096
_LOG_FACTORIALS = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, _STIRLING_FROM)))))


def log_e(n_c: ArrayLike, n_p: ArrayLike, x_c: ArrayLike, x_p: ArrayLike, odds: ArrayLike) -> NDArray[np.float64]:
    """Natural log of E, one for each odds ratio: counts of shape S and odds of shape (J,) give shape S + (J,)."""
    candidate, stable, events, others = (np.asarray(a, dtype=np.float64)[..., None] for a in (n_c, n_p, x_c, x_p))
    psi = np.asarray(odds, dtype=np.float64)
    k = events + others
    log_z = _log_z(candidate, stable, k, psi)
    return events * np.log(psi) + _log_choose(candidate + stable, k) - log_z


def _log_z(
    n_c: NDArray[np.float64], n_p: NDArray[np.float64], k: NDArray[np.float64], psi: NDArray[np.float64]
) -> NDArray[np.float64]:
    """ln Z(psi), or a little more where the support is wider than WIDEST."""
    low, high = np.maximum(0.0, k - n_p), np.minimum(k, n_c)
    width = int(min(WIDEST, np.max(high - low, initial=0.0) + 1))
    first = np.clip(_mode(n_c, n_p, k, psi) - width // 2, low, np.maximum(low, high - width + 1))
    j = first[..., None] + np.arange(width)
    in_front = _rise(n_c, n_p, k, psi, first - 1)
    # Each term over the one before it. Beyond the support it is 0, and so is everything after.
    rise = np.where(j < high[..., None], _rise(n_c[..., None], n_p[..., None], k[..., None], psi[..., None], j), 0.0)
    with np.errstate(divide="ignore"):
        log_terms = np.cumsum(np.log(rise[..., :-1]), axis=-1)
    log_terms = np.concatenate((np.zeros((*first.shape, 1)), log_terms), axis=-1)
    peak = log_terms.max(axis=-1)
    terms = np.exp(log_terms - peak[..., None])
    with np.errstate(divide="ignore"):
        before = np.where(first > low, 1 / in_front, 0.0)
    total = terms.sum(axis=-1) + terms[..., 0] * _tail(before) + terms[..., -1] * _tail(rise[..., -1])
    log_first = _log_choose(n_c, first) + _log_choose(n_p, k - first) + first * np.log(psi)
    return log_first + peak + np.log(total)


def _rise(
    n_c: NDArray[np.float64],
    n_p: NDArray[np.float64],
    k: NDArray[np.float64],
    psi: NDArray[np.float64],
    j: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Z's term j + 1 over its term j."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return psi * (n_c - j) * (k - j) / ((j + 1) * (n_p - k + j + 1))


def _tail(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """The most that all terms beyond an edge can sum to, over the term at the edge: ratios only fall from there on."""
    ratio = np.minimum(ratio, 1 - 1e-9)
    return ratio / (1 - ratio)


def _mode(
    n_c: NDArray[np.float64], n_p: NDArray[np.float64], k: NDArray[np.float64], psi: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where the terms of Z(psi) are largest: the smaller root of the quadratic that sets two neighbours equal."""
    b = (n_c + k + 2) * psi + n_p - k
    c = (n_c + 1) * (k + 1) * psi
    root = np.sqrt(np.maximum(b * b - 4 * (psi - 1) * c, 0.0))
    return np.floor(2 * c / (b + root))


def _log_choose(n: NDArray[np.float64], k: NDArray[np.float64]) -> NDArray[np.float64]:
    return _log_factorial(n) - _log_factorial(k) - _log_factorial(n - k)


def _log_factorial(n: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln n!, to 15 digits: a table, and from there Stirling's series (numpy has no lgamma)."""
    small = _LOG_FACTORIALS[np.minimum(n, _STIRLING_FROM - 1).astype(np.int64)]
    if n.max(initial=0.0) < _STIRLING_FROM:
        return small
    m = np.maximum(n, _STIRLING_FROM)
    series = m * np.log(m) - m + 0.5 * np.log(2 * np.pi * m) + 1 / (12 * m) - 1 / (360 * m**3)
    return np.where(n < _STIRLING_FROM, small, series)
