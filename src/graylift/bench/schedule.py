"""When each request of a load is due, decided before the first one is sent.

Knows nothing of requests or answers. Called by `bench.load`; a pure function of its arguments.
"""

from __future__ import annotations

from enum import Enum
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

LARGEST_SCHEDULE = 10_000_000
"""Requests in one schedule; 80 MB of due times. A longer load is several loads."""


class Arrivals(Enum):
    """POISSON: independent users, gaps exponentially distributed. CONSTANT: equal gaps; kinder than real traffic."""

    POISSON = "poisson"
    CONSTANT = "constant"


def due_times(rate_per_s: float, duration_s: float, arrivals: Arrivals, seed: int) -> NDArray[np.float64]:
    """Seconds from the start at which requests are due: ascending, in [0, duration_s). Equal arguments, equal times.

    ValueError if rate or duration is not a positive number, or if the schedule would exceed LARGEST_SCHEDULE.
    """
    expected = rate_per_s * duration_s
    if not (rate_per_s > 0 and duration_s > 0 and expected <= LARGEST_SCHEDULE):
        raise ValueError(
            f"a load needs a rate and a duration above 0 and at most {LARGEST_SCHEDULE:,} requests, "
            f"not {rate_per_s:g} requests/s for {duration_s:g} s"
        )
    match arrivals:
        case Arrivals.CONSTANT:
            return np.arange(int(np.ceil(expected))) / rate_per_s
        case Arrivals.POISSON:
            chance = np.random.default_rng(seed)
            # A Poisson process of this length is a Poisson number of independent uniform instants, sorted.
            return np.sort(chance.uniform(0.0, duration_s, chance.poisson(expected)))
        case _:
            assert_never(arrivals)
