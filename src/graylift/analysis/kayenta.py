"""Kayenta's way to judge, for people who come from it and want to see both verdicts on one recording. Never ours.

Documented behaviour (Kayenta's NetflixACAJudge): each metric is a series of points, one a minute, of either arm. A
two-sided Mann-Whitney test with a 98 % interval of the shift d (candidate - stable): High if the interval lies above
TOLERANCE times the absolute Hodges-Lehmann estimate of d, Low if it lies below minus that, else Pass; equal series
Pass. A metric of which worse means more fails on High alone. The score is the share of metrics that passed, those
without data left out; at PASS_SCORE the canary passes, at MARGINAL_SCORE or below it fails.

Formula. W(d) counts the pairs with candidate - d above stable, ties half; its normal form has the variance
n_c n_p / 12 (N + 1 - sum(t^3 - t) / (N (N - 1))), t the sizes of ties, and a continuity correction of 1/2. The ends of
the interval are where it crosses the normal quantiles, the estimate is where it is 0 without correction; all found by
bisection (Bauer 1972, as R's wilcox.test does it).

What it does not promise: the test is run anew at each look and on points that are no independent draws, so there is
no bound over a release; `benchmarks/judge` shows what comes of that. Small n: the normal form from the first point on
(R is exact below 50 points without ties); the interval ends at the extreme differences, so two points can be High.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.98
TOLERANCE = 0.25
PASS_SCORE = 95.0
MARGINAL_SCORE = 75.0
STEP_S = 60.0
"""A point of a series is one such interval."""


class Classification(Enum):
    """Kayenta's words for one metric."""

    PASS = "Pass"
    HIGH = "High"
    LOW = "Low"
    NODATA = "Nodata"


@dataclass(frozen=True, slots=True)
class Classified:
    """One metric. low, high: of the shift, 98 %; estimate: Hodges and Lehmann's; None where no test was made."""

    classification: Classification
    points: tuple[int, int]
    estimate: float | None = None
    low: float | None = None
    high: float | None = None


def classify(candidate: Sequence[float], stable: Sequence[float]) -> Classified:
    """One metric of which more is worse."""
    points = len(candidate), len(stable)
    if not candidate or not stable:
        return Classified(Classification.NODATA, points)
    if list(candidate) == list(stable):
        return Classified(Classification.PASS, points)
    ours, theirs = np.asarray(candidate, dtype=np.float64), np.asarray(stable, dtype=np.float64)
    tail = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    low, high = _crossing(ours, theirs, tail, correct=True), _crossing(ours, theirs, -tail, correct=True)
    estimate = _crossing(ours, theirs, 0.0, correct=False)
    critical = TOLERANCE * abs(estimate)
    if low > critical:
        found = Classification.HIGH
    elif high < -critical:
        found = Classification.LOW
    else:
        found = Classification.PASS
    return Classified(found, points, estimate, low, high)


def score(classified: Mapping[str, Classified]) -> float | None:
    """0 to 100, of the metrics with data; None if there is none. Low passes: less of what is bad is no regression."""
    known = [one.classification for one in classified.values() if one.classification is not Classification.NODATA]
    if not known:
        return None
    return 100 * sum(one is not Classification.HIGH for one in known) / len(known)


def _crossing(ours: NDArray[np.float64], theirs: NDArray[np.float64], height: float, *, correct: bool) -> float:
    """The shift at which the test's normal form, which falls as the shift grows, comes down to `height`."""
    low, high = float(ours.min() - theirs.max()), float(ours.max() - theirs.min())
    if _normal_form(ours, theirs, low, correct=correct) < height:
        return low
    if _normal_form(ours, theirs, high, correct=correct) > height:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        if _normal_form(ours, theirs, middle, correct=correct) > height:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _normal_form(ours: NDArray[np.float64], theirs: NDArray[np.float64], shift: float, *, correct: bool) -> float:
    moved = np.round(ours - shift, 12)
    n_c, n_p = len(moved), len(theirs)
    ordered = np.sort(theirs)
    below = np.searchsorted(ordered, moved, side="left")
    up_to = np.searchsorted(ordered, moved, side="right")
    above_expected = float((below + up_to).sum()) / 2 - n_c * n_p / 2
    _, ties = np.unique(np.concatenate((moved, theirs)), return_counts=True)
    total = n_c + n_p
    tied = float((ties.astype(np.float64) ** 3 - ties).sum()) / (total * (total - 1))
    variance = n_c * n_p / 12 * (total + 1 - tied)
    if variance <= 0:
        return 0.0
    corrected = above_expected - np.sign(above_expected) * 0.5 if correct else above_expected
    return float(corrected) / variance**0.5
