"""Limits on a service's clients: what a release file says of them, what one request asks of a budget, how that stands.

A *budget* is what a limit holds for one key: so many requests or tokens, refilled steadily, or so many requests at
once. Written by `spec/`; `envoy/` carries it through Envoy, `limits/` does its arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import ceil


class WhenAway(Enum):
    """What happens to a limited request while nobody can say whether it is over its limits."""

    ALLOW = "allow"
    DENY = "deny"


class Unit(Enum):
    """What a budget is counted in. CONCURRENT: requests that have begun and not ended."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENT = "concurrent"


@dataclass(frozen=True, slots=True)
class Quota:
    """`amount` in `per_s` seconds (1, 60 or 3600): a budget holds at most `amount`, and refills so fast."""

    amount: int
    per_s: float

    def __str__(self) -> str:
        return f"{self.amount}/{ {1.0: 's', 60.0: 'm', 3600.0: 'h'}[self.per_s] }"


@dataclass(frozen=True, slots=True)
class LimitRule:
    """One limit. It concerns the requests that fit `label` and `path`, and holds for each value of `key_header` apart.

    key_header: the header whose values have a budget each (requests without it share one); None: one budget for all
    label:      (header, value) that a request must have; None: any
    path:       the path, or the beginning of the path up to a `/`, that a request must have; None: any
    requests, tokens, concurrent: how much, at least one of them; None: not limited
    answer_tokens: what of `tokens` is reserved for an answer whose request says nothing of how long it may be
    """

    key_header: str | None = None
    label: tuple[str, str] | None = None
    path: str | None = None
    requests: Quota | None = None
    tokens: Quota | None = None
    concurrent: int | None = None
    answer_tokens: int = 1024

    @property
    def scope(self) -> str:
        """Whom it concerns, in words; what clients are told, and half of a budget's name."""
        parts = (
            None if self.key_header is None else f"each {self.key_header}",
            None if self.label is None else f"{self.label[0]}={self.label[1]}",
            self.path,
        )
        return " on ".join(part for part in parts if part) or "all"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a service. Every rule that concerns a request must have room for it."""

    rules: tuple[LimitRule, ...]
    when_away: WhenAway


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget, with all that its arithmetic needs, so that whoever keeps it needs to know no release file.

    name:   unique among all budgets; holds no secret (keys are hashed)
    scope:  see `LimitRule.scope`
    limit:  at most so many in it; of CONCURRENT at most so many at once
    per_s:  seconds in which an empty one is full again; of CONCURRENT the longest that a request may last before it
            is given up for ended
    """

    name: str
    scope: str
    unit: Unit
    limit: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Charge:
    """What one request asks of a budget: 1 of REQUESTS and CONCURRENT, its reservation of TOKENS."""

    budget: Budget
    amount: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a budget stands after a request was admitted or refused.

    remaining: what is left for the next one, not below 0
    full_s:    until it is full again if nobody asks
    wait_s:    until this charge fits; 0 if it does, None if no waiting helps
    """

    charge: Charge
    remaining: int
    full_s: float
    wait_s: float | None

    @property
    def is_refusal(self) -> bool:
        return self.wait_s != 0


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may go on: all of its charges are made, or none. One standing a charge, in their order."""

    standings: tuple[Standing, ...]

    @property
    def is_granted(self) -> bool:
        return not any(standing.is_refusal for standing in self.standings)

    @property
    def retry_after_s(self) -> int | None:
        """Whole seconds until it may be tried again; None if no waiting helps."""
        waits = [standing.wait_s for standing in self.standings]
        return None if None in waits else max(1, ceil(max((wait for wait in waits if wait is not None), default=0.0)))


@dataclass(frozen=True, slots=True)
class Reservation:
    """The charges that were made for one request, under an id of its own, until its end settles them."""

    id: str
    charges: tuple[Charge, ...]
