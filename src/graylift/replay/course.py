"""The records of both arms -> their windows, interval by interval, as the gateway would have counted them. Pure.

A record belongs to the interval it ended in and to the weight that assigned it, as on live traffic. The counting is
done on arrays, a million records in about a second; the windows that come of it are the domain's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from graylift.domain.evidence import INTERVAL_S, Window
from graylift.domain.histogram import BASE, EMPTY, LARGEST, SMALLEST, Histogram
from graylift.domain.scores import STEPS, ScoreCounts
from graylift.domain.spec import Metric
from graylift.domain.weights import NONE, Role, Weights
from graylift.replay.records import Records

MOST_INTERVALS = 2_000
"""More intervals than this make a replay slow without making it sharper."""

_LENGTHS_S = (INTERVAL_S, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600)
_BINS = LARGEST - SMALLEST + 1
_BEFORE = "before"


@dataclass(frozen=True, slots=True)
class Interval:
    """Both arms in one interval. windows: none if it is no evidence; began: weights seen for the first time."""

    start_s: float
    length_s: float
    windows: tuple[Window, ...]
    began: tuple[Weights, ...]

    @property
    def end_s(self) -> float:
        return self.start_s + self.length_s


@dataclass(frozen=True, slots=True)
class Course:
    """All intervals with a record in them, oldest first.

    share: of all records, the candidate's
    left_out: intervals that are no evidence
    weighted: did the records say their weight?
    """

    intervals: tuple[Interval, ...]
    length_s: float
    share: float
    left_out: int
    weighted: bool


def split_of(weights: Weights) -> str:
    """What the records of a weight carry."""
    return f"weight {weights}" if weights != NONE else _BEFORE


def length_for(stable: Records, candidate: Records) -> float:
    """The controller's interval, or the shortest longer one with which there are at most MOST_INTERVALS."""
    times = [times for times in (stable.time_s, candidate.time_s) if len(times)]
    if not times:
        return INTERVAL_S
    span = max(float(t[-1]) for t in times) - min(float(t[0]) for t in times)
    return next((length for length in _LENGTHS_S if span <= MOST_INTERVALS * length), math.ceil(span / MOST_INTERVALS))


def course_from(stable: Records, candidate: Records, length_s: float) -> Course:
    """The course of two recordings. Without a `weight` in either, all records are of one stage."""
    weighted = stable.weight is not None or candidate.weight is not None
    arms = ((Role.STABLE, stable), (Role.CANDIDATE, candidate))
    weights = {role: _weights(records, candidate if role is Role.STABLE else stable) for role, records in arms}
    total = len(stable) + len(candidate)
    levels = np.unique(np.concatenate([weights[role] for role, _ in arms]))
    numbers = {role: np.floor(records.time_s / length_s).astype(np.int64) for role, records in arms}
    every = np.unique(np.concatenate([numbers[role] for role, _ in arms]))
    spoilt = _spoilt(every, arms, numbers, length_s)
    windows: dict[int, list[Window]] = {}
    began: dict[int, list[Weights]] = {}
    for role, records in arms:
        for place, window in _windows(role, records, np.searchsorted(every, numbers[role]), weights[role], levels):
            windows.setdefault(place, []).append(window)
    for level in levels.tolist():
        firsts = [numbers[role][weights[role] == level] for role, _ in arms]
        first = int(np.searchsorted(every, min(int(found[0]) for found in firsts if len(found))))
        began.setdefault(first, []).append(Weights(level))
    intervals = tuple(
        Interval(
            start_s=number * length_s,
            length_s=length_s,
            windows=() if spoilt[place] else tuple(windows.get(place, ())),
            began=tuple(began.get(place, ())),
        )
        for place, number in enumerate(every.tolist())
    )
    share = len(candidate) / total if total else 0.0
    return Course(intervals, length_s, share, int(spoilt.sum()), weighted)


def _weights(records: Records, other: Records) -> NDArray[np.int64]:
    """The weight of each record; where only the other arm's file tells it, the one in force at that time."""
    if records.weight is not None:
        return records.weight
    if other.weight is None or not len(other):
        return np.full(len(records), NONE.candidate, np.int64)
    place = np.searchsorted(other.time_s, records.time_s, side="right") - 1
    return np.where(place >= 0, other.weight[np.maximum(place, 0)], NONE.candidate)


def _spoilt(
    every: NDArray[np.int64],
    arms: tuple[tuple[Role, Records], ...],
    numbers: dict[Role, NDArray[np.int64]],
    length_s: float,
) -> NDArray[np.bool_]:
    """Which of the intervals are no evidence."""
    spoilt = np.zeros(len(every), np.bool_)
    for role, records in arms:
        spoilt[np.searchsorted(every, numbers[role][records.no_evidence])] = True
        for start_s, end_s in records.jumps:
            spoilt |= (every >= math.floor(start_s / length_s)) & (every <= math.floor(end_s / length_s))
    return spoilt


def _windows(
    role: Role, records: Records, places: NDArray[np.int64], weights: NDArray[np.int64], levels: NDArray[np.int64]
) -> Iterator[tuple[int, Window]]:
    """(index of the interval, window) of one arm, ascending."""
    if not len(records):
        return
    keys = places * len(levels) + np.searchsorted(levels, weights)
    groups, group_of = np.unique(keys, return_inverse=True)
    requests = np.bincount(group_of).tolist()
    failed = np.bincount(group_of, weights=records.failed).astype(np.int64).tolist()

    def counted(known: NDArray[np.bool_], numbers: NDArray[np.int64], width: int) -> list[list[tuple[int, int]]]:
        """Of each group, (number, count) of the records whose number, from 0 to width, is known; ascending."""
        filled, counts = np.unique(group_of[known].astype(np.int64) * width + numbers, return_counts=True)
        pairs = list(zip((filled % width).tolist(), counts.tolist(), strict=True))
        borders = np.searchsorted(filled, np.arange(len(groups) + 1) * width).tolist()
        return [pairs[start:end] for start, end in pairwise(borders)]

    def histograms(metric: Metric) -> list[Histogram]:
        if metric not in records.times_s:
            return [EMPTY] * len(groups)
        seconds = records.times_s[metric]
        known = ~records.failed & np.isfinite(seconds)
        found = counted(known, bins_of(seconds[known]) - SMALLEST, _BINS)
        return [Histogram(tuple((number + SMALLEST, count) for number, count in own)) for own in found]

    latency, ttft, tpot = (histograms(metric) for metric in (Metric.LATENCY, Metric.TTFT, Metric.TPOT))
    scores: list[list[tuple[str, ScoreCounts]]] = [[] for _ in groups]
    for name, values in sorted(records.scores.items()):
        known = np.isfinite(values)
        for of_group, own in zip(
            scores, counted(known, np.rint(values[known] * STEPS).astype(np.int64), STEPS + 1), strict=True
        ):
            if own:
                of_group.append((name, ScoreCounts(tuple(own))))
    for index, key in enumerate(groups.tolist()):
        place, level = divmod(key, len(levels))
        yield (
            place,
            Window(
                service="",
                split=split_of(Weights(int(levels[level]))),
                arm=role,
                revision_id=role.value,
                label=None,
                requests=requests[index],
                failed=failed[index],
                latency=latency[index],
                ttft=ttft[index],
                tpot=tpot[index],
                scores=tuple(scores[index]),
            ),
        )


def bins_of(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each duration, as `domain.histogram.bin_of` finds it for one."""
    numbers = np.floor(np.log(np.maximum(seconds, 1e-6)) / math.log(BASE)).astype(np.int64)
    return np.clip(numbers, SMALLEST, LARGEST)
