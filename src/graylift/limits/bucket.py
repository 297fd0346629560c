"""One token bucket: what is in it, and when that was looked at.

A charge is taken when it fits as a whole. What was taken may turn out to be too much (given back) or too little (taken
later, whether it fits or not: the level is then negative, and time pays the debt before anybody is admitted again). So
within any T seconds at most limit + rate * T is used, plus what reservations were too small.

The clock may jump. Forward, a bucket is full at most; backward, nothing refills until time passes again, and nothing
is lost. `valkey_budgets.lua` in `gateway/` says the same in Lua; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graylift.domain.limits import Admission, Budget, Charge, Standing, Unit

BUSY_RETRY_S = 1.0
"""What a client is told to wait for a place among the concurrent requests: nobody knows when one ends."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """`level` of its unit were in it at `at_s`."""

    level: float
    at_s: float


def full(budget: Budget, now_s: float) -> Bucket:
    return Bucket(float(budget.limit), now_s)


def refilled(bucket: Bucket, budget: Budget, now_s: float) -> Bucket:
    """The bucket now: never more than the limit, which may have changed since."""
    passed_s = max(0.0, now_s - bucket.at_s)
    return Bucket(min(float(budget.limit), bucket.level + passed_s * budget.limit / budget.per_s), now_s)


def taken(bucket: Bucket, amount: float) -> Bucket:
    """May leave a debt; whether a charge fits, `standing` says."""
    return Bucket(bucket.level - amount, bucket.at_s)


def given_back(bucket: Bucket, budget: Budget, amount: float) -> Bucket:
    return Bucket(min(float(budget.limit), bucket.level + amount), bucket.at_s)


def standing(charge: Charge, left: float) -> Standing:
    """How a budget stands with `left` in it, or with so many places free, while the charge is not made."""
    budget = charge.budget
    remaining = max(0, int(left))
    if budget.unit is Unit.CONCURRENT:
        return Standing(charge, remaining, 0.0, 0.0 if remaining >= charge.amount else BUSY_RETRY_S)
    lacking_s, full_s = (max(0.0, n - left) * budget.per_s / budget.limit for n in (charge.amount, budget.limit))
    return Standing(charge, remaining, full_s, None if charge.amount > budget.limit else lacking_s)


def admission(charges: Sequence[Charge], left: Sequence[float], *, is_granted: bool) -> Admission:
    """`left` in each budget: after the charges if they were made, else before."""
    standings = tuple(map(standing, charges, left))
    return Admission(tuple(replace(one, wait_s=0.0) for one in standings) if is_granted else standings)
