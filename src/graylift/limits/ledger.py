"""The budgets of one gateway, in memory: a request is admitted by all that it asks, or charged by none.

Pure; `now_s` is an argument. `gateway/budgets.py` keeps one and brings the time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, TypeVar

from graylift.domain.limits import Admission, Budget, Charge, Reservation, Unit
from graylift.limits import bucket as buckets
from graylift.limits.bucket import Bucket

_T = TypeVar("_T")

MAX_BUDGETS = 100_000
"""Of each kind. Clients choose their keys, so memory must have an end: beyond it the budget that was asked least lately
is forgotten and begins anew."""


class Ledger:
    """Budgets by name; one that nobody has asked yet is full."""

    def __init__(self, max_budgets: int = MAX_BUDGETS) -> None:
        self._buckets = _Recent[Bucket](max_budgets)
        self._under_way = _Recent[dict[str, float]](max_budgets)
        """budget -> reservation -> when it is given up for ended"""

    def reserve(self, reservation: Reservation, now_s: float) -> Admission:
        """Make all of its charges if they all fit, else none."""
        charges = reservation.charges
        before = buckets.admission(charges, self._left(charges, now_s), is_granted=False)
        if not before.is_granted:
            return before
        for charge in charges:
            self._make(charge, reservation.id, now_s)
        return buckets.admission(charges, self._left(charges, now_s), is_granted=True)

    def settle(self, reservation: Reservation, used_tokens: int | None, now_s: float) -> None:
        """The request has ended: its place is free, and its tokens are those it used. None: nobody knows how many, so
        what was reserved stays charged."""
        for charge in reservation.charges:
            name = charge.budget.name
            match charge.budget.unit:
                case Unit.REQUESTS:
                    pass
                case Unit.TOKENS:
                    if used_tokens is not None:
                        bucket = self._bucket(charge.budget, now_s)
                        unused = charge.amount - used_tokens
                        self._buckets.put(name, buckets.given_back(bucket, charge.budget, unused))
                case Unit.CONCURRENT:
                    leases = self._leases(charge.budget, now_s)
                    leases.pop(reservation.id, None)
                    self._under_way.put(name, leases) if leases else self._under_way.drop(name)

    def _make(self, charge: Charge, id: str, now_s: float) -> None:  # noqa: A002 - the reservation's
        budget = charge.budget
        if budget.unit is Unit.CONCURRENT:
            self._under_way.put(budget.name, {**self._leases(budget, now_s), id: now_s + budget.per_s})
        else:
            self._buckets.put(budget.name, buckets.taken(self._bucket(budget, now_s), charge.amount))

    def _left(self, charges: Sequence[Charge], now_s: float) -> list[float]:
        return [
            charge.budget.limit - len(self._leases(charge.budget, now_s))
            if charge.budget.unit is Unit.CONCURRENT
            else self._bucket(charge.budget, now_s).level
            for charge in charges
        ]

    def _bucket(self, budget: Budget, now_s: float) -> Bucket:
        known = self._buckets.get(budget.name)
        return buckets.full(budget, now_s) if known is None else buckets.refilled(known, budget, now_s)

    def _leases(self, budget: Budget, now_s: float) -> dict[str, float]:
        """Without those that no request outlives: their end was never told."""
        leases = self._under_way.get(budget.name) or {}
        return {lease: end_s for lease, end_s in leases.items() if end_s > now_s}


class _Recent(Generic[_T]):
    """The values that were put most lately, at most so many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, _T] = OrderedDict()

    def get(self, name: str) -> _T | None:
        return self._values.get(name)

    def put(self, name: str, value: _T) -> None:
        self._values[name] = value
        self._values.move_to_end(name)
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def drop(self, name: str) -> None:
        self._values.pop(name, None)
