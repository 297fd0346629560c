"""Whole releases, request by request: the traffic on which the judge and its peers are compared.

One release is 1,000 intervals of 10 s and about 200,000 requests, stages 1-5-20-50 % of equal length after a while of
stable alone. A day moves traffic by 40 %, latency by a factor e^0.2 and errors by 50 %, of both arms alike and from a
random phase; traffic doubles on the way. Latency is lognormal (sigma 0.5) with a Pareto tail of 1.5 % (index 1.4);
a request that took longer than 20 s counts as one of 20 s. Counts are kept in the bins that the gateway uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from judged_traffic import MEDIAN_S, P98_S, SIGMA, TAIL, TAIL_INDEX
from numpy.typing import NDArray

from graylift.domain.histogram import BASE, lower_bound

STAGES = (0.01, 0.05, 0.2, 0.5)
EARLIER = 60
"""Intervals of stable alone before the first stage."""
INTERVALS = 1_000
A_MINUTE = 6
"""Intervals in a minute; for judges that look at minutes."""
ERRORS = 0.005
LOG_BASE = math.log(BASE)
FIRST_BIN = math.floor(math.log(0.005) / LOG_BASE)
LAST_BIN = math.floor(math.log(20.0) / LOG_BASE)
BINS = LAST_BIN - FIRST_BIN + 1
MIDDLES_S = np.array([lower_bound(FIRST_BIN + number) * BASE**0.5 for number in range(BINS)])
HALF_WAY_S = 0.11
"""Between stable's median and its p90, on an average hour."""


@dataclass(frozen=True, slots=True)
class Change:
    """What the candidate does otherwise.

    errors, more_errors: its share of failures is stable's times `more_errors` plus `errors`
    faster_half, slower_half: its latencies below and above HALF_WAY_S times these; tail: those beyond p98 times this
    onset: the share of the release that is over when this begins
    """

    errors: float = 0.0
    more_errors: float = 1.0
    faster_half: float = 1.0
    slower_half: float = 1.0
    tail: float = 1.0
    onset: float = 0.0


NO_CHANGE = Change()


def slower(factor: float) -> Change:
    """All latencies times a factor."""
    return Change(faster_half=factor, slower_half=factor)


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """One arm: requests and failures of each interval, shape (T,), and its answers by bin, shape (T, BINS)."""

    requests: NDArray[np.int64]
    failed: NDArray[np.int64]
    latency: NDArray[np.int32]

    def minutes(self) -> ArmCounts:
        """The same by whole minutes."""
        whole = len(self.requests) // A_MINUTE
        starts = np.arange(whole) * A_MINUTE
        end = whole * A_MINUTE
        requests, failed, latency = (
            np.add.reduceat(a[:end], starts, axis=0) for a in (self.requests, self.failed, self.latency)
        )
        return ArmCounts(requests, failed, latency)


@dataclass(frozen=True, slots=True)
class Release:
    """stable has EARLIER intervals more than the others, in front. baseline: part of stable, as large as candidate."""

    candidate: ArmCounts
    stable: ArmCounts
    baseline: ArmCounts | None


def release(rng: np.random.Generator, change: Change, *, baseline: bool = False, intervals: int = INTERVALS) -> Release:
    """One release. The same generator state gives the same traffic whatever `change` is."""
    t = np.arange(-EARLIER, intervals)
    stage = np.clip(t, 0, None) * len(STAGES) // intervals
    share = np.where(t < 0, 0.0, np.array(STAGES)[stage])
    wave = np.sin(2 * math.pi * t / intervals + rng.uniform(0, 2 * math.pi))
    n = rng.poisson(200 * (1 + 0.4 * wave) * (0.67 + 0.67 * np.clip(t, 0, None) / intervals))
    when = np.repeat(np.arange(len(t)), n)
    total = len(when)
    logs = math.log(MEDIAN_S) + SIGMA * rng.standard_normal(total, dtype=np.float32)
    in_tail = np.flatnonzero(rng.random(total, dtype=np.float32) < TAIL)
    logs[in_tail] = math.log(2.5 * MEDIAN_S) + rng.standard_exponential(len(in_tail)) / TAIL_INDEX
    luck, place = rng.random(total, dtype=np.float32), rng.random(total, dtype=np.float32)
    is_candidate = place < np.repeat(share.astype(np.float32), n)
    changed = is_candidate.copy()
    changed[: int(n[: EARLIER + int(change.onset * intervals)].sum())] = False
    base = np.repeat((ERRORS * (1 + 0.5 * wave)).astype(np.float32), n)
    failed = luck < np.where(changed, base * change.more_errors + change.errors, base)
    whose = np.flatnonzero(changed)
    mine = logs[whose]
    factor = np.where(mine < math.log(HALF_WAY_S), math.log(change.faster_half), math.log(change.slower_half))
    logs[whose] = mine + factor + np.where(mine > math.log(P98_S), math.log(change.tail), 0.0)
    logs += np.repeat((0.2 * wave).astype(np.float32), n)
    bins = np.clip((logs * (1 / LOG_BASE) - FIRST_BIN).astype(np.int32), 0, BINS - 1)
    place_of = when * BINS + bins

    def arm(which: NDArray[np.bool_]) -> ArmCounts:
        latency = np.bincount(place_of[which & ~failed], minlength=len(t) * BINS).astype(np.int32)
        requests, bad = (np.bincount(when[a], minlength=len(t)) for a in (which, which & failed))
        return ArmCounts(requests, bad, latency.reshape(len(t), BINS))

    def without_earlier(arm: ArmCounts) -> ArmCounts:
        return ArmCounts(arm.requests[EARLIER:], arm.failed[EARLIER:], arm.latency[EARLIER:])

    beside = without_earlier(arm(~is_candidate & (place < 2 * share[when]))) if baseline else None
    return Release(without_earlier(arm(is_candidate)), arm(~is_candidate), beside)
