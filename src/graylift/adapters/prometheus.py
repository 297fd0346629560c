"""ports.MetricSource on a Prometheus: the raw samples of counters, asked for again and again, cut into intervals.

Samples and not `rate()` or `increase()`: those extrapolate, and what is judged must have happened. Prometheus keeps the
samples, so this keeps nothing: where a controller's cursor stands it reads on, after a restart or an outage as well.
A sample is final once a later one of its series is there, so no delay has to be guessed.

What it is told that is no count (NaN, a fraction, a falling bucket) is left out, which leaves a gap, and is told as a
trouble. Called by the controller through the port.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

import aiohttp

from graylift.domain.evidence import IntervalReport
from graylift.domain.sources import (
    REVISION,
    OtlpHistogram,
    PrometheusCounters,
    PrometheusHistogram,
    WantedArm,
    WantedMetric,
)
from graylift.domain.tally import Tally
from graylift.domain.weights import Role
from graylift.metrics.counters import Cutter, Reading, Series

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MOST_INTERVALS = 20
"""Read at a time, by a controller that was away."""
ASKS_AN_INTERVAL = 3
FASTEST_S = 0.5

_TARGET = ("job", "instance")


class Unusable(Exception):
    """What a Prometheus answered, or that it did not, in words for people. Stays in this module."""


@dataclass(slots=True)
class _Followed:
    """A metric that is read. reports: those that no cursor has passed yet."""

    cutter: Cutter
    reports: list[IntervalReport] = field(default_factory=list[IntervalReport])
    trouble: str | None = None
    task: asyncio.Task[None] | None = None


class PrometheusSource:
    """Reads each wanted metric in a task of its own, so that `read` waits for no Prometheus. `close` ends them."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._followed: dict[str, _Followed] = {}
        self._session: aiohttp.ClientSession | None = None

    async def read(self, wanted: Sequence[WantedMetric], after: Sequence[tuple[str, int]]) -> Sequence[IntervalReport]:
        """See `ports.MetricSource`."""
        cursors = dict(after)
        ours = {one.source: one for one in wanted if isinstance(one.origin, PrometheusHistogram | PrometheusCounters)}
        for source in self._followed.keys() - ours.keys():
            await self._leave(source)
        for source, one in ours.items():
            cursor = cursors.get(source)
            followed = self._followed.get(source)
            if followed is None or followed.cutter.wanted != one:
                await self._leave(source)
                self._follow(source, one, cursor)
            elif cursor is not None:
                followed.reports = [report for report in followed.reports if report.sequence > cursor]
        return [report for _, one in sorted(self._followed.items()) for report in one.reports]

    def troubles(self) -> Sequence[tuple[str, str]]:
        """See `ports.MetricSource`."""
        return [(source, one.trouble) for source, one in sorted(self._followed.items()) if one.trouble is not None]

    async def close(self) -> None:
        """Stop reading. What was not taken is read again by the next one."""
        for source in list(self._followed):
            await self._leave(source)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _follow(self, source: str, wanted: WantedMetric, cursor: int | None) -> None:
        cutter = Cutter(wanted)
        cutter.begin(cursor)
        followed = self._followed[source] = _Followed(cutter)
        followed.task = asyncio.create_task(self._keep_reading(followed), name=f"prometheus: {source}")

    async def _leave(self, source: str) -> None:
        followed = self._followed.pop(source, None)
        if followed is not None and followed.task is not None:
            followed.task.cancel()
            await asyncio.wait([followed.task])

    async def _keep_reading(self, followed: _Followed) -> None:
        cutter = followed.cutter
        while True:
            # Of an interval that has only begun nothing can be known.
            await asyncio.sleep(max(FASTEST_S, cutter.length_s / ASKS_AN_INTERVAL))
            now = self._now()
            if now < (cutter.next + 1) * cutter.length_s:
                continue
            most_s = max(MOST_INTERVALS * cutter.length_s, 2 * cutter.patience_s)
            until_s = min(now, cutter.begins_s + most_s)
            try:
                arms, fault = await self._readings(cutter.wanted, cutter.begins_s - cutter.length_s, until_s)
            except Unusable as unusable:
                followed.trouble = str(unusable)
                continue
            followed.reports += cutter.cut(arms, until_s)
            followed.trouble = fault

    async def _readings(
        self, wanted: WantedMetric, from_s: float, until_s: float
    ) -> tuple[Mapping[Role, Series], str | None]:
        """What both arms counted, and the first thing of it that could not be used. Unusable if nothing came."""
        arms: dict[Role, Series] = {}
        faults: list[str] = []
        for arm in wanted.arms:
            arms[arm.role] = Series()
            match wanted.origin:
                case PrometheusHistogram() as origin:
                    (selector,) = selectors(origin, arm)
                    samples = await self._samples(origin.url, selector, from_s, until_s)
                    found = histogram_readings(samples, origin.above, faults)
                case PrometheusCounters() as origin:
                    bad, selector = selectors(origin, arm)
                    found = counter_readings(
                        await self._samples(origin.url, bad, from_s, until_s),
                        await self._samples(origin.url, selector, from_s, until_s),
                        faults,
                    )
                case OtlpHistogram():
                    raise AssertionError("only metrics of a Prometheus are followed here")
                case _:
                    assert_never(wanted.origin)
            for name, reading in found:
                arms[arm.role].add(name, reading)
            if not found and not faults:
                faults.append(f"{origin.url} has no sample of {selector}: is it scraped, and labelled so?")
        return arms, faults[0] if faults else None

    async def _samples(self, url: str, selector: str, from_s: float, until_s: float) -> list[_Sampled]:
        """The raw samples of each series that `selector` matches."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        query = {"query": f"{selector}[{max(1, math.ceil((until_s - from_s) * 1000))}ms]", "time": f"{until_s:.3f}"}
        try:
            async with self._session.post(f"{url}/api/v1/query", data=query) as response:
                status, body = response.status, await response.content.read(MAX_ANSWER_BYTES + 1)
                while len(body) <= MAX_ANSWER_BYTES and (more := await response.content.read(MAX_ANSWER_BYTES + 1)):
                    body += more
        except TimeoutError as error:
            raise Unusable(f"{url} did not answer within {TIMEOUT_S:g} s") from error
        except aiohttp.ClientError as error:
            raise Unusable(f"{url} cannot be asked: {error}") from error
        if len(body) > MAX_ANSWER_BYTES:
            raise Unusable(f"{url} answers {selector} with more than {MAX_ANSWER_BYTES >> 20} MiB: select fewer series")
        return matrix_from(url, status, body)


@dataclass(frozen=True, slots=True)
class _Sampled:
    """One series: its labels, and (epoch seconds, value as text) of its samples."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, str], ...]

    @property
    def target(self) -> str:
        """The process that counts. What one process has under several labels is read at one moment and adds up."""
        return ", ".join(f"{name}={self.labels[name]}" for name in _TARGET if name in self.labels)


def matrix_from(url: str, status: int, body: bytes) -> list[_Sampled]:
    """The series of an answer of Prometheus. Unusable, with what it says, if it is none."""
    try:
        answer: Any = json.loads(body)
        if answer["status"] != "success":
            raise Unusable(f"{url} answers {status}: {str(answer.get('error', 'without a reason'))[:300]}")
        return [
            _Sampled(series["metric"], tuple((float(at), str(value)) for at, value in series["values"]))
            for series in answer["data"]["result"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unusable(f"{url} answers {status} with something that is no answer of Prometheus to a query") from error


def selectors(origin: PrometheusHistogram | PrometheusCounters, arm: WantedArm) -> tuple[str, ...]:
    """What to ask for: the buckets, or the bad events and all events."""
    labels = {name: value.replace(REVISION, arm.revision) for name, value in origin.labels}
    # JSON's escapes are those of PromQL.
    matchers = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())
    names = (f"{origin.histogram}_bucket",) if isinstance(origin, PrometheusHistogram) else (origin.bad, origin.total)
    return tuple(f"{name}{{{matchers}}}" for name in names)


def histogram_readings(buckets: Sequence[_Sampled], above: float, faults: list[str]) -> list[tuple[str, Reading]]:
    """(target, reading) of the series of a histogram's buckets; what is no histogram is left out and told."""
    bounds = {_number(one.labels.get("le", "")) for one in buckets}
    if buckets and not {above, math.inf} <= bounds:
        known = ", ".join(f"{bound:g}" for bound in sorted(b for b in bounds if b is not None and b < math.inf))
        faults.append(f"the histogram has no bucket that ends at {above:g}; `above` is one of {known or 'none'}")
        return []
    up_to = _sums([one for one in buckets if _number(one.labels["le"]) == above], faults)
    everything = _sums([one for one in buckets if _number(one.labels["le"]) == math.inf], faults)
    return _tallies({key: (up_to[key], total) for key, total in everything.items() if key in up_to}, faults, good=True)


def counter_readings(
    bad: Sequence[_Sampled], total: Sequence[_Sampled], faults: list[str]
) -> list[tuple[str, Reading]]:
    """(target, reading) of the sums of both counters; a target that knows no bad event yet has none."""
    bad_sums, sums = _sums(bad, faults), _sums(total, faults)
    return _tallies({key: (bad_sums.get(key, 0), events) for key, events in sums.items()}, faults, good=False)


def _tallies(
    counts: Mapping[tuple[str, float], tuple[int | None, int | None]], faults: list[str], *, good: bool
) -> list[tuple[str, Reading]]:
    """counts: by target and time, (part, total) of the events; is the part the `good` ones?"""
    found: list[tuple[str, Reading]] = []
    for (target, at_s), (part, total) in counts.items():
        if part is None or total is None:
            continue
        try:
            found.append((target, Reading(at_s, Tally(total - part if good else part, total))))
        except ValueError as error:
            faults.append(f"{target or 'what is counted'} cannot be: {error}")
    return found


def _sums(series: Sequence[_Sampled], faults: list[str]) -> dict[tuple[str, float], int | None]:
    """By target and time; None where a part is no count."""
    sums: dict[tuple[str, float], int | None] = {}
    for one in series:
        for at_s, value in one.samples:
            count, before = _count(value), sums.get((one.target, at_s), 0)
            if count is None:
                faults.append(f"a counter of {one.target or 'this name'} is no count: {value}")
            sums[one.target, at_s] = None if count is None or before is None else before + count
    return sums


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _count(text: str) -> int | None:
    number = _number(text)
    if number is None or not math.isfinite(number) or number < 0 or number != int(number):
        return None
    return int(number)
