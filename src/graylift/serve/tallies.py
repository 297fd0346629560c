"""Numbers that grow, told to Prometheus under the names they are given.

The client library's own counters end in `_total`, which Triton's do not, and its histograms lock: a server that
answers 20,000 requests a second would spend a tenth of its time in them. Not safe between threads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.registry import Collector


@dataclass(slots=True)
class Total:
    """A number that only grows."""

    name: str
    text: str
    labels: dict[str, str]
    value: float = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount

    def describe(self, family: Metric) -> None:
        family.add_sample(self.name, self.labels, self.value)


@dataclass(slots=True)
class Distribution:
    """How often a number fell into which bucket. bounds: upper ends, ascending, each within its bucket."""

    name: str
    text: str
    labels: dict[str, str]
    bounds: Sequence[float]
    sum: float = 0.0
    counts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def describe(self, family: Metric) -> None:
        ends = [*(repr(float(bound)) for bound in self.bounds), "+Inf"]
        for end, count in zip(ends, accumulate(self.counts), strict=True):
            family.add_sample(f"{self.name}_bucket", {**self.labels, "le": end}, count)
        family.add_sample(f"{self.name}_count", self.labels, sum(self.counts))
        family.add_sample(f"{self.name}_sum", self.labels, self.sum)


class Tallies(Collector):
    """All of one server, in the order they were added."""

    def __init__(self) -> None:
        self._tallies: list[Total | Distribution] = []

    def total(self, name: str, text: str, labels: dict[str, str]) -> Total:
        total = Total(name, text, labels)
        self._tallies.append(total)
        return total

    def distribution(self, name: str, text: str, labels: dict[str, str], bounds: Sequence[float]) -> Distribution:
        distribution = Distribution(name, text, labels, bounds)
        self._tallies.append(distribution)
        return distribution

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for tally in self._tallies:
            kind = "untyped" if isinstance(tally, Total) else "histogram"
            tally.describe(families.setdefault(tally.name, Metric(tally.name, tally.text, kind)))
        return families.values()
