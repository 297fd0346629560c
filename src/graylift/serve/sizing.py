"""How many rows share a run and how many contexts run at once, chosen from what was measured: pure functions.

More rows cost a run more and each row less, until they do not. So the choice is the smallest number that gets nearly
all the speed there is, within the latency that was asked for; the sentence that comes with it shows the numbers.
Called by `starting`; `measuring` gets the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_ENOUGH = 0.95
"""Of the best speed: what the last few percent cost in latency and memory is not worth them."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A run of so many rows took so long (the median)."""

    rows: int
    seconds: float

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds


@dataclass(frozen=True, slots=True)
class Throughput:
    """So many contexts at once gave so many rows a second."""

    contexts: int
    rows_per_s: float


@dataclass(frozen=True, slots=True)
class Choice:
    """why: one clause with the numbers"""

    number: int
    why: str


def choose_rows(costs: Sequence[Cost], target_s: float | None = None) -> Choice:
    """The rows of one run at most. costs: ascending in rows, the first of one row; at least that one.

    target_s: what a request may take while the server keeps up, that is while no more rows come during a run than the
    next one takes. It then waits for one run at most and is in the next: twice the time of a run.
    """
    alone = costs[0]
    within = [cost for cost in costs if target_s is None or 2 * cost.seconds <= target_s]
    if not within:
        assert target_s is not None
        return Choice(
            1,
            f"even one row takes {_ms(alone.seconds)}, and a request waits for one run and is in the next: "
            f"{_ms(2 * alone.seconds)} where {_ms(target_s)} were asked for",
        )
    best = max(within, key=lambda cost: cost.rows_per_s)
    chosen = next(cost for cost in within if cost.rows_per_s >= _ENOUGH * best.rows_per_s)
    promise = "" if target_s is None else f", and two such runs ({_ms(2 * chosen.seconds)}) fit in {_ms(target_s)}"
    if chosen is alone:
        return Choice(1, f"one row takes {_ms(alone.seconds)}, and more gain less than 5 %{promise}")
    return Choice(
        chosen.rows,
        f"{chosen.rows} rows take {_ms(chosen.seconds)}, {chosen.rows_per_s:,.0f} rows/s where one by one gives "
        f"{alone.rows_per_s:,.0f}{promise}",
    )


def choose_contexts(measured: Sequence[Throughput]) -> Choice:
    """The contexts: as few as give nearly the best. measured: ascending in contexts, at least one."""
    best = max(measured, key=lambda throughput: throughput.rows_per_s)
    chosen = next(throughput for throughput in measured if throughput.rows_per_s >= _ENOUGH * best.rows_per_s)
    numbers = ", ".join(f"{one.contexts}: {one.rows_per_s:,.0f} rows/s" for one in measured)
    return Choice(chosen.contexts, numbers)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
