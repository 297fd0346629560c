"""A table -> the records of one arm in time order, with everything that makes them no evidence marked and told.

What is broken is missing evidence: it takes its whole interval out of the comparison, both arms of it, since whatever
broke some records of one arm may have hidden others. It never speaks for or against the candidate. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graylift.domain.spec import Check, Metric
from graylift.domain.weights import TOTAL
from graylift.replay.reading import Table

LATE_S = 60.0
"""A row this much earlier than one before it is no late line of a log: the clock jumped, or files were mixed."""
SILENCE_S = 600.0
"""A stretch this long without any record is told."""
CONSTANT_FROM = 20
"""This many answers of one and the same latency are no measurement."""
TWINS_AT_MOST = 0.5
"""Beyond this share of rows that stand more than once, nothing of a file is evidence."""
COLUMNS = {Metric.LATENCY: "latency_ms", Metric.TTFT: "ttft_ms", Metric.TPOT: "tpot_ms"}
"""The columns of the metrics of time."""
_WRONG_TIME = {
    Metric.LATENCY: "an answer without a `latency_ms` from 0 on (NaN, Inf or negative)",
    Metric.TTFT: "a `ttft_ms` that is no time (Inf or negative)",
    Metric.TPOT: "a `tpot_ms` that is no time (Inf or negative)",
}
_FINE_CLOCK_S = 1e-3


@dataclass(frozen=True, slots=True)
class Records:
    """The requests of one arm, ascending by time.

    failed:    no complete answer below 400
    times_s:   of each metric of time that the file has a column of; NaN where none is known
    scores:    by name, from 0 to 1; NaN where there is none
    weight:    the candidate's, out of TOTAL, when the request was assigned; None if the file does not say
    no_evidence: records whose interval is missing evidence
    jumps:     (from_s, to_s) in which a clock that jumped put records in the wrong place
    measured:  what can be judged: names of metrics, and of scores
    told:      what is the matter, one sentence each
    """

    name: str
    time_s: NDArray[np.float64]
    failed: NDArray[np.bool_]
    times_s: Mapping[Metric, NDArray[np.float64]]
    scores: Mapping[str, NDArray[np.float64]]
    weight: NDArray[np.int64] | None
    no_evidence: NDArray[np.bool_]
    jumps: tuple[tuple[float, float], ...]
    measured: frozenset[str]
    told: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.time_s)


def records_from(table: Table, checks: Sequence[Check]) -> Records:
    """Nothing is dropped but rows without a time, which belong nowhere; columns no check asks for are passed over."""
    count = len(table)
    status = table.numbers.get("status", np.full(count, 200.0))
    # How long streams last says when a stage is old enough to speak for them.
    asked = {check.metric for check in checks} | {Metric.LATENCY}
    times = {m: table.numbers[name] / 1000 for m, name in COLUMNS.items() if m in asked and name in table.numbers}
    found = {check.score: table.numbers[check.score] for check in checks if check.score in table.numbers}
    percent = table.numbers.get("weight")
    known = np.isfinite(table.time_s)
    wrong_status = ~(np.isfinite(status) & (status >= 0) & (status <= 999) & (status == np.floor(status)))
    failed = ~wrong_status & ((status >= 400) | (status < 100))
    wrong_times = {metric: (seconds < 0) | np.isinf(seconds) for metric, seconds in times.items()}
    if Metric.LATENCY in times:
        # A request that failed may have no latency; one that was answered has one.
        wrong_times[Metric.LATENCY] |= np.isnan(times[Metric.LATENCY]) & ~failed
    wrong_scores = {name: (values < 0) | (values > 1) for name, values in found.items()}
    wrong_weight = np.zeros(count, np.bool_) if percent is None else ~((percent >= 0) & (percent <= 100))
    broken = np.any([wrong_status, wrong_weight, *wrong_times.values(), *wrong_scores.values()], axis=0)
    twins = table.twins
    fine_clock = bool(np.any(np.abs(table.time_s[known] % _FINE_CLOCK_S - _FINE_CLOCK_S / 2) < 0.4 * _FINE_CLOCK_S))
    spoilt = bool(count and twins.mean() > TWINS_AT_MOST)
    no_evidence = broken | twins if fine_clock or spoilt else broken
    if spoilt:
        no_evidence = np.ones(count, np.bool_)
    ordered, order, jumps, disorder = _in_order(table.time_s[known])
    taken = np.flatnonzero(known)[order]
    answered = {metric: seconds[known & ~failed & ~broken & ~np.isnan(seconds)] for metric, seconds in times.items()}
    constant = {
        metric: seconds
        for metric, seconds in answered.items()
        if len(seconds) >= CONSTANT_FROM and float(seconds.min()) == float(seconds.max())
    }
    wrong = {
        "no time, and are left out": ~known,
        "a `status` that is none (NaN, negative or no whole number)": wrong_status,
        **{_WRONG_TIME[metric]: rows for metric, rows in wrong_times.items()},
        **{f"a `{name}` that is no score from 0 to 1": rows for name, rows in wrong_scores.items()},
        "a `weight` outside 0 to 100": wrong_weight,
    }
    told = [
        *_told_of_rows(table, wrong),
        *_told_of_twins(table, fine_clock=fine_clock, spoilt=spoilt),
        *disorder,
        *_told_of_silence(ordered),
        *(
            f"every one of {len(seconds):,} answers took {seconds[0] * 1000:g} ms: that is no measurement, "
            f"{metric.value} is not judged"
            for metric, seconds in constant.items()
            if any(check.metric is metric for check in checks)
        ),
    ]
    measured = {metric.value for metric in times if metric not in constant} | set(found)
    if "status" in table.numbers:
        measured.add(Metric.ERRORS.value)
    weight = None if percent is None else np.rint(np.where(wrong_weight, 0, percent) * TOTAL / 100).astype(np.int64)
    return Records(
        name=table.name,
        time_s=ordered,
        failed=failed[taken],
        times_s={metric: np.where(broken, np.nan, seconds)[taken] for metric, seconds in times.items()},
        scores={name: np.where(broken, np.nan, values)[taken] for name, values in found.items()},
        weight=None if weight is None else weight[taken],
        no_evidence=no_evidence[taken],
        jumps=jumps,
        measured=frozenset(measured),
        told=tuple(f"{table.name}: {sentence}" for sentence in told) or (() if count else (f"{table.name}: no rows",)),
    )


def _in_order(
    times: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64], tuple[tuple[float, float], ...], list[str]]:
    """Times ascending, the order that makes them so, where the clock jumped, and what there is to tell."""
    count = len(times)
    if count < 2:
        return times, np.arange(count), (), []
    if np.all(np.diff(times) <= 0) and times[0] > times[-1]:
        return times[::-1], np.arange(count)[::-1], (), ["the rows stand newest first; they were read from the end"]
    latest = np.maximum.accumulate(times)
    late = latest - times
    order = np.argsort(times, kind="stable")
    told: list[str] = []
    if np.any((late > 0) & (late <= LATE_S)):
        told.append(f"{int(np.sum((late > 0) & (late <= LATE_S))):,} rows are out of order; they were put in order")
    far = late > LATE_S
    if np.any(far):
        row = int(np.argmax(far))
        told.append(
            f"time goes back by {late[row]:,.0f} s at row {row + 1:,}: a clock jumped or files were mixed. What lies "
            "between is no evidence; sort each file by time if its times are right"
        )
    return times[order], order, _merged(times[far], latest[far]), told


def _merged(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """Stretches of time, those that overlap as one."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(zip(starts.tolist(), ends.tolist(), strict=True)):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)


def _told_of_rows(table: Table, wrong: Mapping[str, NDArray[np.bool_]]) -> Iterator[str]:
    for what, rows in wrong.items():
        if np.any(rows):
            first = int(table.lines[int(np.argmax(rows))])
            kept = "" if "left out" in what else "; their intervals are no evidence"
            yield f"{int(rows.sum()):,} rows have {what}, the first in line {first:,}{kept}"


def _told_of_twins(table: Table, *, fine_clock: bool, spoilt: bool) -> Iterator[str]:
    twins = int(table.twins.sum())
    if not twins:
        return
    first = int(table.lines[int(np.argmax(table.twins))])
    begun = f"{twins:,} of {len(table):,} rows stand more than once, the first in line {first:,}"
    if spoilt:
        yield f"{begun}: nothing of this file is evidence. Give each request a column `id` if they are real"
    elif fine_clock:
        yield f"{begun}; their intervals are no evidence"
    else:
        yield f"{begun}; times this coarse cannot tell equal requests from repeated rows, and all are counted"


def _told_of_silence(times: NDArray[np.float64]) -> Iterator[str]:
    if len(times) < 2:
        return
    gaps = np.diff(times)
    if float(gaps.max()) > SILENCE_S:
        yield f"no record for {gaps.max():,.0f} s after second {times[int(np.argmax(gaps))]:,.0f}"
