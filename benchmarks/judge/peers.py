"""The judges that people use today, on the same counts: our own re-implementations of documented behaviour.

Each says when it would first roll back, in intervals of a simulated release. None was run in its original program.
All see minutes, as their metrics stores give them. They get five metrics: the share of failures, and of the latency
p50, p90, p99 and the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from simulated_releases import A_MINUTE, MIDDLES_S, ArmCounts

QUANTILES = (0.5, 0.9, 0.99)
NO_MARGINS = (0.0,) * 5
P99 = 3
Series = NDArray[np.float64]


def series(arm: ArmCounts) -> Series:
    """The five metrics of each minute, shape (5, minutes); NaN where there is none. arm: by minutes."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rows = [arm.failed / arm.requests]
    up_to = np.cumsum(arm.latency, axis=1)
    total = up_to[:, -1]
    for q in QUANTILES:
        found = MIDDLES_S[np.argmax(up_to >= np.ceil(q * total)[:, None], axis=1)]
        rows.append(np.where(total > 0, found, np.nan))
    with np.errstate(invalid="ignore", divide="ignore"):
        rows.append(arm.latency @ MIDDLES_S / total)
    return np.stack(rows)


class Class:
    PASS, HIGH, NO_DATA = range(3)


@dataclass(frozen=True, slots=True)
class Kayenta:
    """Kayenta's NetflixACAJudge, a growing look-back: each look judges all minutes so far.

    Follows its documentation and source: per metric a Mann-Whitney test of the minutes' values (Wilcoxon's confidence
    interval of the shift at 98 %, normal approximation with ties and continuity correction); a metric is "High" if
    the interval's lower end is above a quarter of the Hodges-Lehmann estimate, and, where an effect size is set, the
    ratio of means reaches it. The score is the share of metrics with data that pass, 0 if a critical metric does not
    pass or has no data. At `marginal` or less Spinnaker stops the canary, and at the last look at less than `enough`.
    Direction "increase", one group, outliers kept, missing values removed.

    critical: every metric is; allowed: of each metric, the ratio of means that it takes to fail (its effect size)
    """

    critical: bool
    allowed: tuple[float, ...] = NO_MARGINS
    every_minutes: int = 10
    marginal: float = 75.0
    enough: float = 95.0

    def first_fail(self, candidate: Series, control: Series) -> int:
        minutes = candidate.shape[1]
        for end in range(self.every_minutes, minutes + 1, self.every_minutes):
            classes = [
                self._classified(candidate[m, :end], control[m, :end], self.allowed[m]) for m in range(len(candidate))
            ]
            judged = [one for one in classes if one != Class.NO_DATA]
            score = 100 * sum(one == Class.PASS for one in judged) / len(judged) if judged else 0.0
            if self.critical and any(one != Class.PASS for one in classes):
                score = 0.0
            if score <= self.marginal or (end + self.every_minutes > minutes and score < self.enough):
                return end * A_MINUTE - 1
        return -1

    def _classified(self, candidate: Series, control: Series, allowed: float) -> int:
        x, y = candidate[~np.isnan(candidate)], control[~np.isnan(control)]
        if not len(x) or not len(y):
            return Class.NO_DATA
        if np.array_equal(np.sort(x), np.sort(y)) or (np.ptp(x) == 0 and np.ptp(y) == 0 and x[0] == y[0]):
            return Class.PASS
        if np.ptp(x) == 0 and np.ptp(y) == 0:
            return Class.NO_DATA  # all observations tied: the original gives an error, which is no pass either
        lower, estimate = shift_interval(x, y)
        if lower > 0.25 * abs(estimate) and x.mean() >= allowed * y.mean():
            return Class.HIGH
        return Class.PASS


_Z = NormalDist().inv_cdf(0.99)


def shift_interval(x: Series, y: Series) -> tuple[float, float]:
    """The lower end of the 98 % interval of x's shift over y, and its estimate: order statistics of all differences."""
    m, n = len(x), len(y)
    ties = sum(float((count.astype(float) ** 3 - count).sum()) for _, count in (_counts(x), _counts(y)))
    sigma = math.sqrt(m * n / 12 * (m + n + 1 - ties / ((m + n) * (m + n - 1))))
    differences = np.subtract.outer(x, y).ravel()
    # The lower end is where (number of differences above it - m n / 2 - 1/2) / sigma falls through z.
    above = math.floor(m * n / 2 + 0.5 + _Z * sigma) + 1
    low, middle = max(0, m * n - above), (m * n) // 2
    parted = np.partition(differences, (low, middle))
    return float(parted[low]), float(parted[middle])


def _counts(values: Series) -> tuple[Series, NDArray[np.int64]]:
    return np.unique(values, return_counts=True)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Fixed limits on each minute of the candidate alone.

    Flagger, by its documentation: request-success-rate and request-duration (p99) against a limit; failed checks add
    up and are not reset by a good one; at `failures` it rolls back. Argo Rollouts: an analysis metric with an interval
    of a minute and failureLimit L fails once more than L measurements failed. Both add up, so one class does:
    failures is Flagger's threshold, or Argo's failureLimit + 1. A minute without an answer is a failed check.
    """

    most_errors: float
    slowest_s: float
    failures: int

    def first_fail(self, candidate: Series) -> int:
        good = (candidate[0] <= self.most_errors) & (candidate[P99] <= self.slowest_s)
        failed = np.cumsum(~good)
        reached = failed >= self.failures
        return (int(np.argmax(reached)) + 1) * A_MINUTE - 1 if reached.any() else -1


@dataclass(frozen=True, slots=True)
class PeekingT:
    """What a careful person does by hand: each minute a one-sided test of everything since the start, until it is
    significant. Welch's t on the latency of answers and a pooled z on the share of failures, each at `level`, from
    30 requests an arm on. A textbook test, but for one look."""

    level: float = 0.01

    def first_fail(self, candidate: ArmCounts, stable: ArmCounts) -> int:
        limit = NormalDist().inv_cdf(1 - self.level)
        n_c, x_c, n_p, x_p = (np.cumsum(a) for arm in (candidate, stable) for a in (arm.requests, arm.failed))
        with np.errstate(invalid="ignore", divide="ignore"):
            pooled = (x_c + x_p) / (n_c + n_p)
            z = (x_c / n_c - x_p / n_p) / np.sqrt(pooled * (1 - pooled) * (1 / n_c + 1 / n_p))
            (a, mean_a, var_a), (b, mean_b, var_b) = _moments(candidate), _moments(stable)
            t = (mean_a - mean_b) / np.sqrt(var_a / a + var_b / b)
            found = ((z > limit) & (np.minimum(n_c, n_p) >= 30)) | ((t > limit) & (np.minimum(a, b) >= 30))
        return (int(np.argmax(found)) + 1) * A_MINUTE - 1 if found.any() else -1


def _moments(arm: ArmCounts) -> tuple[Series, Series, Series]:
    """Answers, mean and variance of their latency, of everything up to each minute."""
    count, first, second = (np.cumsum(arm.latency @ MIDDLES_S**power) for power in (0, 1, 2))
    mean = first / count
    return count, mean, (second / count - mean**2) * count / np.maximum(count - 1, 1)
