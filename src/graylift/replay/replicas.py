"""Recordings or stored intervals of stable -> each replica's answers, block by block of time. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from graylift.analysis.sample import sample_from_windows
from graylift.domain.evidence import IntervalReport
from graylift.domain.histogram import Histogram, histogram_from_counts
from graylift.domain.spec import Check, Metric
from graylift.domain.weights import Role
from graylift.replay.course import bins_of
from graylift.replay.reading import Table
from graylift.replay.records import Records, records_from

Blocks = Mapping[int, Histogram]
"""Answers by the number of the block they ended in."""

LENGTHS_S = (30.0, 60.0, 120.0, 300.0, 600.0)


def recorded(tables: Iterable[Table], checks: Sequence[Check]) -> tuple[Records, ...]:
    """One for each replica: those that the column `replica` names, and each file without it."""
    return tuple(records_from(part, checks) for table in tables for part in _parts(table))


def _parts(table: Table) -> Iterator[Table]:
    if table.replica is None:
        yield table
        return
    names = np.array(table.replica)
    for name in sorted(set(table.replica)):
        own = names == name
        yield dataclasses.replace(
            table,
            name=f"{table.name}, replica {name}",
            lines=table.lines[own],
            time_s=table.time_s[own],
            numbers={column: values[own] for column, values in table.numbers.items()},
            twins=table.twins[own],
            replica=None,
        )


def blocks_of(records: Records, metric: Metric, length_s: float) -> Blocks:
    """The answers of a recording that are evidence, by a metric of time."""
    if metric not in records.times_s:
        return {}
    seconds = records.times_s[metric]
    use = ~records.failed & ~records.no_evidence & np.isfinite(seconds)
    for start_s, end_s in records.jumps:
        use &= (records.time_s < start_s) | (records.time_s > end_s)
    numbers = np.floor(records.time_s[use] / length_s).astype(np.int64)
    bins = bins_of(seconds[use])
    blocks: dict[int, Histogram] = {}
    for number in np.unique(numbers).tolist():
        values, counts = np.unique(bins[numbers == number], return_counts=True)
        blocks[number] = Histogram(tuple(zip(values.tolist(), counts.tolist(), strict=True)))
    return blocks


def blocks_from_reports(
    reports: Iterable[IntervalReport], service: str, metric: Metric, length_s: float
) -> tuple[Blocks, ...]:
    """Stable's answers in stored intervals that are whole, as one series for each gateway."""
    sums: dict[str, dict[int, Counter[int]]] = {}
    for report in reports:
        if report.gap is not None:
            continue
        for window in report.windows:
            if window.service == service and window.arm is Role.STABLE and window.label is None:
                block = math.floor(report.start_s / length_s)
                times = sample_from_windows((window,)).times(metric)
                sums.setdefault(report.gateway, {}).setdefault(block, Counter()).update(dict(times.bins))
    return tuple({block: histogram_from_counts(counts) for block, counts in blocks.items()} for blocks in sums.values())


def fitting_length(records: Sequence[Records], answers: int) -> float:
    """The shortest block in which most replicas have so many answers."""
    rates = sorted(len(one) / max(1.0, float(one.time_s[-1] - one.time_s[0])) for one in records if len(one) > 1)
    rate = rates[len(rates) // 2] if rates else 0.0
    return next((length for length in LENGTHS_S if rate * length >= answers), LENGTHS_S[-1])
