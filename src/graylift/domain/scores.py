"""Counts of scores from 0 to 1 on a fixed grid: exact counts, any two add up, the same steps everywhere and for ever.

A score is rounded to the nearest step before it is counted. Its mean moves by half a step at most, far less than any
margin that traffic could tell.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

STEPS = 1_000
"""Step `s` stands for the score s / STEPS; there are STEPS + 1 of them."""


def step_of(value: float) -> int:
    """The step that a score is counted at. ValueError for NaN and for what is not from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"a score is a number from 0 to 1, not {value}")
    return round(value * STEPS)


@dataclass(frozen=True, slots=True)
class ScoreCounts:
    """steps: (step, count > 0), ascending by step."""

    steps: tuple[tuple[int, int], ...] = ()

    @property
    def count(self) -> int:
        return sum(count for _, count in self.steps)

    @property
    def mean(self) -> float | None:
        """None without a score."""
        count = self.count
        return sum(step * times for step, times in self.steps) / (STEPS * count) if count else None


NO_SCORES = ScoreCounts()


def scores_from_counts(counts: Counter[int]) -> ScoreCounts:
    return ScoreCounts(tuple(sorted((step, count) for step, count in counts.items() if count > 0)))


@dataclass(frozen=True, slots=True)
class Score:
    """What somebody says of an answer. value: from 0 to 1"""

    request_id: str
    name: str
    value: float


class ScoreFate(Enum):
    """COUNTED: for the arm that its request was assigned to. REPEATED: counted before, and not again. UNKNOWN: no such
    request is remembered. REFUSED: it cannot be counted."""

    COUNTED = "counted"
    REPEATED = "repeated"
    UNKNOWN = "unknown"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of one score. why: for what was not counted, with the cure"""

    fate: ScoreFate
    why: str | None = None
