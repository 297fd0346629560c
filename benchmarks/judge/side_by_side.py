"""Our judge over many simulated releases at once: its kernels, priors and reference, vectorised over releases.

A test holds it to `graylift.analysis.judge`, release by release. One pass turns a release into the tables that the
judge would see (`tables`); the rest runs over all releases together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from judged_releases import Many
from numpy.typing import NDArray
from simulated_releases import EARLIER, STAGES, Release

from graylift.analysis import betting, conditional
from graylift.analysis.betting import Side
from graylift.analysis.evidence import bins_of, failures_are_slow, grid_of, linear
from graylift.analysis.mixture import LASTING
from graylift.analysis.reference import GENERATION, PRIOR_FAILED, PRIOR_REQUESTS, answers_needed
from graylift.domain.spec import Check

_TOGETHER = 400_000
"""Terms of Z that are summed in one call: what a processor keeps near it."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What the judge sees of a release to show "worse": shape (T, checks), interval by interval.

    compared: is the check's reference known, and had both arms requests?
    guess:    stable's share of failures before, shape (T,)
    """

    n_c: NDArray[np.int64]
    n_p: NDArray[np.int64]
    x_c: NDArray[np.int64]
    x_p: NDArray[np.int64]
    compared: NDArray[np.bool_]
    guess: NDArray[np.float64]


def tables(release: Release, checks: Sequence[Check]) -> Tables:
    """The tables of every check at its rollback margin."""
    candidate, stable = release.candidate, release.stable
    begins = _generations(stable.requests)
    count = len(stable.requests)
    # The older of the two generations that interval t is compared with begins one before the one that t is in.
    before = np.array([begins[max(0, np.searchsorted(begins, t, side="right") - 2)] for t in range(count)])

    def past(sums: NDArray[np.integer]) -> NDArray[np.integer]:
        running = np.zeros((count + 1, *sums.shape[1:]), dtype=sums.dtype)
        np.cumsum(sums, axis=0, out=running[1:])
        return running[EARLIER:count] - running[before[EARLIER:]]

    requests, failed = past(stable.requests), past(stable.failed)
    answers = past(stable.latency)
    np.cumsum(answers, axis=1, out=answers)
    slower_c, slower_p = _slower(candidate.latency), _slower(stable.latency[EARLIER:])
    n_c, n_p, x_c, x_p = candidate.requests, stable.requests[EARLIER:], candidate.failed, stable.failed[EARLIER:]
    both, every = (n_c > 0) & (n_p > 0), np.arange(len(n_c))
    columns: list[tuple[NDArray[np.integer], ...]] = []
    for check in checks:
        if check.quantile is None:
            columns.append((n_c, n_p, x_c, x_p, both))
            continue
        total = answers[:, -1]
        x = np.argmax(answers >= np.ceil(check.quantile * total)[:, None], axis=1)
        beyond = np.minimum(x + bins_of(check.rollback_if_worse, Side.WORSE), slower_c.shape[1] - 1)
        slow_c, slow_p = slower_c[every, beyond], slower_p[every, x]
        compared = both & (total >= answers_needed(check))
        if failures_are_slow(checks, Side.WORSE):
            columns.append((n_c, n_p, slow_c + x_c, slow_p + x_p, compared))
        else:
            columns.append((n_c - x_c, n_p - x_p, slow_c, slow_p, compared))
    arrays = [np.stack(column, axis=1) for column in zip(*columns, strict=True)]
    return Tables(*arrays, guess=(failed + PRIOR_FAILED) / (requests + PRIOR_REQUESTS))


def evidence(seen: Sequence[Tables], checks: Sequence[Check]) -> NDArray[np.float64]:
    """ln M against each check's rollback margin after each interval: shape (releases, T, checks)."""
    guess = np.stack([one.guess for one in seen])
    count = guess.shape[1]
    values = np.zeros((len(seen), count, len(checks)))
    for number, check in enumerate(checks):
        counts = (np.stack([getattr(one, name)[:, number] for one in seen]) for name in ("n_c", "n_p", "x_c", "x_p"))
        compared = np.stack([one.compared[:, number] for one in seen])
        log_e = _log_e(check, *counts, guess)
        many = Many(len(seen), grid_of(check, Side.WORSE), LASTING)
        for t in range(count):
            if t and t % (count // len(STAGES)) == 0:
                many.stage_begins()
            many.follow(log_e[:, t], compared[:, t])
            values[:, t, number] = many.log_value()
    return values


def first_fail(values: NDArray[np.float64], bound: float) -> NDArray[np.int64]:
    """The interval in which each release is FAIL, -1 for never. values: of `evidence`."""
    together = np.logaddexp.reduce(values, axis=2) - math.log(values.shape[2])
    over = together >= -math.log(bound)
    return np.where(over.any(axis=1), np.argmax(over, axis=1), -1)


def _log_e(
    check: Check,
    n_c: NDArray[np.int64],
    n_p: NDArray[np.int64],
    x_c: NDArray[np.int64],
    x_p: NDArray[np.int64],
    guess: NDArray[np.float64],
) -> NDArray[np.float64]:
    effects = grid_of(check, Side.WORSE).effects
    if check.quantile is None:
        rho, delta = linear(check.rollback_if_worse)
        one = np.ones(n_c.shape)
        return betting.log_e(
            n_c, n_p, x_c, x_p, side=Side.WORSE, guess=guess, rho=rho * one, delta=delta * one, effects=effects
        )
    # Tables of like width together: the widest decides how many terms are summed for all.
    flat = [a.ravel() for a in (n_c, n_p, x_c, x_p)]
    width = np.minimum(flat[0], flat[2] + flat[3])
    order = np.argsort(width, kind="stable")
    result = np.zeros((len(width), len(effects)))
    at = int(np.searchsorted(width[order], 1))
    while at < len(order):
        # The widths ascend: as many as would fit at the first one's width, then cut to what fits at the last one's.
        size = max(1, _TOGETHER // (len(effects) * (int(width[order[at]]) + 1)))
        size = max(1, _TOGETHER // (len(effects) * (int(width[order[min(at + size, len(order)) - 1]]) + 1)))
        some = order[at : at + size]
        result[some] = conditional.log_e(*(a[some] for a in flat), effects)
        at += size
    return result.reshape(*n_c.shape, len(effects))


def _generations(requests: NDArray[np.int64]) -> list[int]:
    """The first interval of each generation of the reference."""
    begins, seen = [0], 0
    for t, count in enumerate(requests.tolist()):
        seen += count
        if seen >= GENERATION:
            begins.append(t + 1)
            seen = 0
    return begins


def _slower(latency: NDArray[np.int32]) -> NDArray[np.int32]:
    """How many answers lie in bins higher than each: shape (T, bins)."""
    up_to = np.cumsum(latency, axis=1, dtype=latency.dtype)
    return up_to[:, -1:] - up_to
