"""Histograms pushed by OTLP: real payloads through the real endpoint into intervals of both arms."""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from otlp_lab import CUMULATIVE, DELTA, as_json, export

from graylift.adapters.otlp import OtlpSource
from graylift.adapters.sql_store import SqlStore
from graylift.api import ApiServer, create_app
from graylift.domain.evidence import IntervalReport
from graylift.domain.sources import OtlpHistogram, WantedArm, WantedMetric
from graylift.domain.tally import Tally, tallied
from graylift.domain.weights import Role
from graylift.protocols.otlp import export_from
from graylift.testing.fakes import FakeClock

PROTOBUF = "application/x-protobuf"
EVERY_S = 30.0


def wanted(since_s: float = 0.0, above: float = 0.5, split: str = "s-1/0") -> WantedMetric:
    arms = (WantedArm(Role.CANDIDATE, "s.v2.0", "v2"), WantedArm(Role.STABLE, "s.v1.0", "v1"))
    return WantedMetric(
        "s", "queue", OtlpHistogram("queue", above, (("model", "tiny"),), EVERY_S), split, since_s, arms
    )


@dataclass
class Plane:
    """The control plane's part, in virtual time; it stores what it reads."""

    one: WantedMetric = field(default_factory=wanted)
    now: float = 0.0
    stored: list[IntervalReport] = field(default_factory=list[IntervalReport])

    def __post_init__(self) -> None:
        self.source = OtlpSource(lambda: self.now)

    async def look(self, now: float) -> None:
        self.now = now
        cursors = [(self.one.source, self.stored[-1].sequence)] if self.stored else []
        self.stored += await self.source.read([self.one], cursors)

    def push(self, revision: str, *points: dict[str, Any], **settings: Any) -> Sequence[str]:
        made = export_from(export(revision, points, **settings).SerializeToString(), PROTOBUF)
        self.source.take(made.points)
        return made.rejected

    async def is_killed(self) -> None:
        self.source = OtlpSource(lambda: self.now)
        await self.look(self.now)

    def counted(self, role: Role) -> Tally:
        return tallied(window.external[0][1] for r in self.stored for window in r.windows if window.arm is role)


def at(moment: float, *counts: int, start: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"start": start, "at": moment, "counts": counts, **more}


async def test_cumulative_histograms_of_both_arms_become_their_increments() -> None:
    plane = Plane()
    await plane.look(0.0)
    for moment in (10.0, 25.0, 40.0, 55.0, 70.0):
        n = int(moment)
        plane.push("v1", at(moment, 10 * n, 0, n, 0))
        plane.push("v2", at(moment, n, n, 0, n))
        await plane.look(moment)
    assert [(report.start_s, report.gap) for report in plane.stored] == [(0.0, None), (30.0, None)]
    assert plane.counted(Role.STABLE) == Tally(55, 605)  # from their beginning at 1 s to the last reading before 60 s
    assert plane.counted(Role.CANDIDATE) == Tally(55, 165)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=6, max_size=6), st.booleans())
async def test_delta_and_cumulative_count_the_same_and_what_comes_twice_counts_once(
    events: list[tuple[int, int]], twice: bool
) -> None:
    planes = {DELTA: Plane(), CUMULATIVE: Plane()}
    for temporality, plane in planes.items():
        await plane.look(0.0)
        good = bad = 0
        for number, (more_good, more_bad) in enumerate(events):
            start, moment = 1.0 + 15 * number, 16.0 + 15 * number
            good, bad = good + more_good, bad + more_bad
            delta = at(moment, more_good, 0, more_bad, 0, start=start)
            point = delta if temporality == DELTA else at(moment, good, 0, bad, 0)
            for revision in ("v1", "v2"):
                for _ in range(2 if twice else 1):
                    plane.push(revision, point, temporality=temporality)
            await plane.look(moment)
    assert planes[DELTA].stored == planes[CUMULATIVE].stored
    assert not any(report.gap for report in planes[DELTA].stored)
    assert planes[DELTA].counted(Role.STABLE).bad == sum(bad for _, bad in events[:5])


async def test_series_of_one_process_add_up_also_those_that_begin_later() -> None:
    plane = Plane()
    await plane.look(0.0)
    for moment in (10.0, 25.0, 40.0):
        chat = at(moment, 5, 0, 0, 0, attributes={"model": "tiny", "kind": "chat"})
        late = at(moment, 0, 0, 7, 0, start=20.0, attributes={"model": "tiny", "kind": "late"})
        other = at(moment, 0, 0, 999, 0, attributes={"model": "large"})
        for revision in ("v1", "v2"):
            plane.push(revision, chat, other, *([late] if moment > 20 else []))
        await plane.look(moment)
    assert plane.counted(Role.CANDIDATE) == Tally(7, 12)


async def test_a_lost_export_of_deltas_is_a_gap() -> None:
    plane = Plane()
    await plane.look(0.0)
    for number in range(8):
        plane.push("v1", at(16.0 + 15 * number, 1, 0, 0, 0, start=1.0 + 15 * number), temporality=DELTA)
        if number != 3:  # of 46 s to 61 s
            plane.push("v2", at(16.0 + 15 * number, 1, 0, 0, 0, start=1.0 + 15 * number), temporality=DELTA)
        await plane.look(16.0 + 15 * number)
    gaps = [report.start_s for report in plane.stored if report.gap]
    assert gaps == [60.0]
    assert all("candidate" in str(report.gap) for report in plane.stored if report.gap)


async def test_a_controller_that_died_counts_nothing_twice() -> None:
    plane = Plane()
    await plane.look(0.0)
    total = 0
    for moment in (10.0, 25.0, 40.0, 55.0, 70.0, 85.0, 100.0, 115.0, 130.0):
        total = int(moment)
        for revision in ("v1", "v2"):
            plane.push(revision, at(moment, total, 0, 0, 0, start=5.0))
        await plane.look(moment)
        if moment in (40.0, 85.0):
            await plane.is_killed()
    counted = plane.counted(Role.STABLE)
    assert counted.total <= total
    assert [report.sequence for report in plane.stored] == [30_000, 60_000, 90_000, 120_000]


async def test_another_split_takes_the_readings_over_and_nothing_of_before() -> None:
    plane = Plane()
    await plane.look(0.0)
    for moment in (10.0, 25.0, 40.0, 55.0, 70.0, 85.0, 100.0):
        for revision in ("v1", "v2"):
            plane.push(revision, at(moment, int(moment), 0, 0, 0))
        if moment == 55.0:
            plane.one = wanted(since_s=50.0, split="s-1/1")
        await plane.look(moment)
    splits = [(report.start_s, {window.split for window in report.windows}) for report in plane.stored]
    assert splits == [(0.0, {"s-1/0"}), (60.0, {"s-1/1"})]


@pytest.mark.parametrize(
    ("points", "settings", "said"),
    [
        ([at(10.0, 1, 2, bounds=(0.3,))], {}, "no bucket that ends at 0.5; `above` is one of 0.3"),
        ([at(10.0, 1, 0, 0, 0)], {"name": "other"}, "no histogram queue with service.version=v2"),
        ([at(10.0, 1, 0, 0, 0, attributes={"model": "large"})], {}, "no histogram queue"),
    ],
)
async def test_what_cannot_be_used_is_a_trouble_and_no_evidence(
    points: list[dict[str, Any]], settings: dict[str, Any], said: str
) -> None:
    plane = Plane()
    await plane.look(0.0)
    plane.push("v2", *points, **settings)
    plane.push("v1", at(10.0, 1, 0, 0, 0))
    ((metric, why),) = plane.source.troubles()
    assert metric == "queue of s"
    assert said in why
    await plane.look(200.0)
    assert not any(report.windows for report in plane.stored)
    assert all(report.gap for report in plane.stored)


@pytest.mark.parametrize(
    ("point", "settings", "said"),
    [
        (at(10.0, 1, 0, 0), {}, "expected one count more"),
        (at(10.0, 1, 0, 0, 0, count=5), {}, "its buckets hold 1 values, and it says 5"),
        (at(10.0, 1, 0, 0, 0), {"temporality": 0}, "neither delta nor cumulative"),
        (at(10.0, 1, 0, 0, 0, start=11.0), {}, "the time it began at"),
        (at(10.0, 1, 0, offset=0, scale=-1), {"kind": "exponential_histogram"}, "too coarse"),
    ],
)
def test_points_that_cannot_be_are_rejected_by_name(point: dict[str, Any], settings: dict[str, Any], said: str) -> None:
    (rejected,) = Plane().push("v2", point, **settings)
    assert rejected.startswith("queue: ")
    assert said in rejected


@given(st.integers(0, 6), st.lists(st.floats(0.01, 100.0), max_size=50))
def test_an_exponential_histogram_knows_what_lies_above_powers_of_two(scale: int, values: list[float]) -> None:
    # Bucket i holds (base**i, base**(i + 1)]; values on a bound, where a rounded logarithm may err, are not drawn.
    numbers = [math.ceil(math.log2(value) * 2**scale) - 1 for value in values]
    offset = min(numbers, default=0)
    counts = [numbers.count(number) for number in range(offset, max(numbers, default=offset) + 1)]
    point = at(10.0, *counts, offset=offset, scale=scale)
    made = export_from(export("v1", [point], kind="exponential_histogram").SerializeToString(), PROTOBUF)
    (found,) = made.points
    assert found.bounds[0.5] == sum(number >= -(2**scale) for number in numbers)
    assert found.bounds[4.0] == sum(number >= 2 * 2**scale for number in numbers)
    for value, number in zip(values, numbers, strict=True):
        if abs(math.log2(value) + 1) > 1e-6:
            assert (number >= -(2**scale)) is (value > 0.5)


@pytest.fixture
async def posting(tmp_path: Path) -> AsyncIterator[tuple[Plane, aiohttp.ClientSession, str]]:
    plane = Plane()
    await plane.look(0.0)
    store = SqlStore(f"sqlite:///{tmp_path / 'graylift.db'}")
    server = ApiServer(create_app(store, NoScores(), plane.source, FakeClock(), "127.0.0.1"), "127.0.0.1", 0)
    await server.start()
    async with aiohttp.ClientSession() as session:
        yield plane, session, f"http://{server.address}/v1/metrics"
    await server.close()
    store.close()


class NoScores:
    async def score(self, given: object, known: object) -> Sequence[Any]:
        return []


async def test_protobuf_json_and_gzip_are_taken_and_answered_in_kind(
    posting: tuple[Plane, aiohttp.ClientSession, str],
) -> None:
    plane, session, url = posting
    for moment in (10.0, 25.0, 40.0):
        for revision in ("v1", "v2"):
            made = export(revision, [at(moment, int(moment), 0, 0, 0)])
            packed = gzip.compress(made.SerializeToString())
            headers = {"content-type": PROTOBUF, "content-encoding": "gzip"}
            async with session.post(url, data=packed, headers=headers) as response:
                assert (response.status, response.content_type) == (200, PROTOBUF)
                assert (
                    ExportMetricsServiceResponse.FromString(await response.read()).partial_success.error_message == ""
                )
        await plane.look(moment)
    assert plane.counted(Role.STABLE) == Tally(0, 25)
    wrong = export("v1", [at(55.0, 1, 0, 0)])
    async with session.post(url, data=as_json(wrong), headers={"content-type": "application/json"}) as response:
        answer = json_format.Parse(await response.read(), ExportMetricsServiceResponse())
        assert response.status == 200
    assert answer.partial_success.rejected_data_points == 1
    assert "expected one count more" in answer.partial_success.error_message


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff\xff", {"content-type": PROTOBUF}, 400),
        (b"{half", {"content-type": "application/json"}, 400),
        (b"", {"content-type": "text/plain"}, 415),
        (b"x", {"content-type": PROTOBUF, "content-encoding": "br"}, 415),
        (b"no gzip", {"content-type": PROTOBUF, "content-encoding": "gzip"}, 400),
        (gzip.compress(b"x" * 100)[:-9], {"content-type": PROTOBUF, "content-encoding": "gzip"}, 400),
        (gzip.compress(b"\0" * (5 * 1024 * 1024)), {"content-type": PROTOBUF, "content-encoding": "gzip"}, 413),
        (b"\0" * (4 * 1024 * 1024 + 1), {"content-type": PROTOBUF}, 413),
    ],
)
async def test_a_body_that_is_no_export_is_refused(
    posting: tuple[Plane, aiohttp.ClientSession, str], body: bytes, headers: dict[str, str], status: int
) -> None:
    _, session, url = posting
    async with session.post(url, data=io.BytesIO(body), headers=headers) as response:
        assert response.status == status
        assert "error" in await response.json()
