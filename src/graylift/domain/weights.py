"""How the traffic of a service is split between the two arms: integers with a fixed sum."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

TOTAL = 10_000
"""The sum of all weights of a service, always. A fixed sum keeps sticky users where they are while a share grows."""


class Role(Enum):
    """The part a revision plays in a release."""

    STABLE = "stable"
    CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True)
class Weights:
    """The candidate's weight out of TOTAL; stable has the rest. 0 is no request at all, never rounded up."""

    candidate: int

    def __post_init__(self) -> None:
        if not 0 <= self.candidate <= TOTAL:
            raise ValueError(f"weight must be between 0 and {TOTAL}, not {self.candidate}")

    @property
    def stable(self) -> int:
        return TOTAL - self.candidate

    @property
    def percent(self) -> Decimal:
        """The candidate's share in percent, exact."""
        return Decimal(self.candidate) * 100 / TOTAL

    def __str__(self) -> str:
        return f"{self.percent.normalize():f} %"


NONE = Weights(0)
ALL = Weights(TOTAL)


def weights_from_percent(percent: Decimal) -> Weights:
    """`percent` of the traffic for the candidate. ValueError if outside 0..100 or finer than 0.01 %."""
    units = percent * TOTAL / 100
    if not 0 <= percent <= 100:
        raise ValueError(f"a weight is a percentage from 0 to 100, not {percent}")
    if units != units.to_integral_value():
        raise ValueError(f"{percent} % is finer than the smallest step, 0.01 %")
    return Weights(int(units))
