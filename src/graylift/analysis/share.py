"""Is the observed split the configured one? A binomial e-process on how many assigned requests were the candidate's.

Formula. X of N assigned requests are the candidate's, p is the configured share, theta a tilt of the log odds:
E(theta) = exp(theta X) / (1 - p + p exp(theta))^N, averaged over TILTS. X and N of the stage are all it needs. E is 1
in expectation if each request is drawn with p, so it ever reaches 1 / ALPHA with a chance of at most ALPHA.

Source: sequential sample-ratio tests, Lindon and Malek (arXiv 2011.03567). Assumes independent draws: not for sticky
users, whose requests come in bundles. Requests are counted when they end, so the first SETTLING_S of a stage are left
out: until then a slower arm has ended fewer than it was given. A candidate that ends none of its requests shows here
first. p of 0 or 1: one request on the wrong side is strong evidence, as it should be. Small n: E stays near 1. Cost:
O(tilts).
"""

from __future__ import annotations

import math

from graylift.analysis.mixture import log_sum

ALPHA = 0.001
SETTLING_S = 10.0
TILTS = (-2.0, -1.0, -0.5, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def log_value(candidate: int, total: int, p: float) -> float:
    """ln E that `candidate` of `total` is not a draw with share p."""
    parts = tuple(theta * candidate - total * math.log1p(p * math.expm1(theta)) for theta in TILTS)
    return log_sum(parts) - math.log(len(TILTS))


def is_off(candidate: int, total: int, p: float) -> bool:
    """Has it been shown that the split is not p?"""
    return log_value(candidate, total, p) >= -math.log(ALPHA)
