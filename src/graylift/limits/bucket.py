"""One token bucket: what is in it, and when that was looked at.

A charge is taken when it fits as a whole. What was taken may turn out to be too much (given back) or too little (taken
later, whether it fits or not: the level is then negative, and time pays the debt before anybody is admitted again). So
within any T seconds at most limit + rate * T is used, plus what reservations were too small.

The clock may jump. Forward, a bucket is full at most; backward, nothing refills until time passes again, and nothing
is lost. `valkey_budgets.lua` in `gateway/` says the same in Lua; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

from graylift.domain.limits import Budget


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
    """May leave a debt; whether a charge fits, `wait_s` says."""
    return Bucket(bucket.level - amount, bucket.at_s)


def given_back(bucket: Bucket, budget: Budget, amount: float) -> Bucket:
    return Bucket(min(float(budget.limit), bucket.level + amount), bucket.at_s)


def wait_s(bucket: Bucket, budget: Budget, amount: float) -> float | None:
    """Until the amount fits; 0 if it does, None if it is more than the bucket ever holds."""
    if amount > budget.limit:
        return None
    return max(0.0, amount - bucket.level) * budget.per_s / budget.limit


def full_s(bucket: Bucket, budget: Budget) -> float:
    """Until it is full again if nothing is taken."""
    return max(0.0, budget.limit - bucket.level) * budget.per_s / budget.limit
