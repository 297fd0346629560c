"""Absolute health: is stable fit to compare with, and does the candidate fail far too much by any standard?

stable: over its last RECENT intervals with traffic, of at least FEWEST requests, a share of SICK or more failed. A
rule, not a test: it only holds a stage, and it must speak while there is little to go by.

candidate: where nothing is left to compare with (the watch), a test of its own. H0: of its requests it fails no
larger a share than q = max(SICK, 2 m), m being the share that stable failed last. Per interval E = (mu / q)^x ((1 -
mu) / (1 - q))^(n - x) with mu = q + d (1 - q): a Bernoulli likelihood ratio, 1 in expectation at q and less below;
mixed over d and late starts, anew in each stage. The bound is false_rollback, apart from the comparison's. It cannot
tell a sick candidate from a sick client: that takes a second arm. Textbook (Wald); the choice of q is ours. Small n:
three failures in a row at the start of a stage are enough, two are not. There is no such rule for latency: without a
second arm the rhythm of the day looks like a regression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graylift.analysis.mixture import Grid

SICK = 0.10
RECENT = 20
FEWEST = 20
EFFECTS = Grid(effects=(0.1, 0.4, 0.9), weights=(0.3, 0.3, 0.4))
_LARGEST_Q = 0.9


@dataclass(frozen=True, slots=True)
class Recent:
    """(requests, failed) of an arm's last intervals with traffic, oldest first."""

    intervals: tuple[tuple[int, int], ...] = ()

    @property
    def requests(self) -> int:
        return sum(requests for requests, _ in self.intervals)

    @property
    def failed(self) -> int:
        return sum(failed for _, failed in self.intervals)

    @property
    def failed_share(self) -> float:
        return self.failed / max(self.requests, 1)

    @property
    def is_sick(self) -> bool:
        return self.requests >= FEWEST and self.failed_share >= SICK


NEVER = Recent()


def remember(recent: Recent, requests: int, failed: int) -> Recent:
    """The last intervals after one more; one without a request changes nothing."""
    if not requests:
        return recent
    return Recent((*recent.intervals, (requests, failed))[-RECENT:])


def tolerable_share(stable_share: float) -> float:
    """The share of failures up to which a candidate is not called sick: q."""
    return min(_LARGEST_Q, max(SICK, 2 * stable_share))


def log_e(requests: int, failed: int, q: float) -> NDArray[np.float64]:
    """Log e-values of one interval against "the candidate fails a share of at most q", one for each effect."""
    mu = q + np.asarray(EFFECTS.effects) * (1 - q)
    return failed * np.log(mu / q) + (requests - failed) * np.log((1 - mu) / (1 - q))
