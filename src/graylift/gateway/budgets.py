"""Budgets in the agent's memory: of this gateway alone, and full again after a restart of the agent."""

from __future__ import annotations

import time
from collections.abc import Callable

from graylift.domain.limits import Admission, Reservation
from graylift.limits.ledger import Ledger


class MemoryBudgets:
    """See `limiter.Budgets`."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._ledger = Ledger()
        self._now_s = now_s

    async def reserve(self, reservation: Reservation) -> Admission:
        return self._ledger.reserve(reservation, self._now_s())

    async def settle(self, reservation: Reservation, used_tokens: int | None) -> None:
        self._ledger.settle(reservation, used_tokens, self._now_s())

    async def close(self) -> None:
        pass
