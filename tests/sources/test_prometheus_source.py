"""A real Prometheus read into intervals of both arms, with everything that goes wrong on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from prometheus_lab import PROMETHEUS, Exporter, a_histogram, counters, exporters, free_port, prometheus, wanted

from graylift.adapters.prometheus import PrometheusSource
from graylift.domain.evidence import IntervalReport
from graylift.domain.sources import PrometheusHistogram, WantedMetric
from graylift.domain.tally import Tally, tallied
from graylift.domain.weights import Role

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(PROMETHEUS is None, reason="no `prometheus` on the path; Debian has a package of that name"),
]


@dataclass
class Site:
    url: str
    stable: Exporter
    candidate: Exporter


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One Prometheus for all tests here: each counts only what comes after its beginning."""
    with exporters() as (stable, candidate):
        both_serve(stable, candidate)
        with prometheus(tmp_path_factory.mktemp("prometheus"), stable, candidate) as url:
            yield Site(url, stable, candidate)


class Reader:
    """A controller's part: it stores what it reads and so moves the cursor on."""

    def __init__(self, one: WantedMetric) -> None:
        self.one = one
        self.stored: list[IntervalReport] = []
        self.source = PrometheusSource()

    async def look(self) -> None:
        cursors = [(self.one.source, self.stored[-1].sequence)] if self.stored else []
        self.stored += await self.source.read([self.one], cursors)

    async def until(self, holds: Callable[[Sequence[IntervalReport]], bool]) -> None:
        for _ in range(400):
            await self.look()
            if holds(self.stored):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not in 20 s: {self.stored[-3:]}, {self.source.troubles()}")

    async def is_killed(self) -> None:
        await self.source.close()
        self.source = PrometheusSource()

    def counted(self, role: Role) -> Tally:
        return tallied(window.external[0][1] for r in self.stored for window in r.windows if window.arm is role)

    async def until_all_is_read(self) -> None:
        """An interval that began now is over."""
        now = time.time()
        await self.until(lambda reports: bool(reports) and reports[-1].start_s > now)


async def ready(reader: Reader) -> None:
    """Until an interval of both arms was read, so that what comes now is a difference."""
    await reader.until(lambda reports: any(report.windows for report in reports))


def both_serve(stable: Exporter, candidate: Exporter) -> None:
    stable.serve(0.05, 20)
    stable.serve(0.7, 2)
    candidate.serve(0.05, 5, bad=2)
    candidate.serve(2.0, 1)


async def test_what_both_arms_counted_is_read_once_also_over_a_restart(site: Site) -> None:
    reader = Reader(wanted(a_histogram(site.url), time.time()))
    await ready(reader)
    for _ in range(4):
        both_serve(site.stable, site.candidate)
        await reader.look()
        await asyncio.sleep(0.4)
        await reader.is_killed()
    await reader.until_all_is_read()
    await reader.source.close()
    assert reader.counted(Role.STABLE) == Tally(8, 88)
    assert reader.counted(Role.CANDIDATE) == Tally(4, 24)
    assert [report.gap for report in reader.stored if report.gap] == []
    sequences = [report.sequence for report in reader.stored]
    assert sequences == sorted(set(sequences))


async def test_a_share_is_read_of_two_counters(site: Site) -> None:
    reader = Reader(wanted(counters(site.url), time.time()))
    await ready(reader)
    both_serve(site.stable, site.candidate)
    await reader.until_all_is_read()
    await reader.source.close()
    assert reader.counted(Role.CANDIDATE) == Tally(2, 6)
    assert reader.counted(Role.STABLE) == Tally(0, 22)


async def test_a_server_that_restarts_leaves_a_gap_and_neither_negative_nor_double_counts(site: Site) -> None:
    reader = Reader(wanted(a_histogram(site.url), time.time()))
    await ready(reader)
    both_serve(site.stable, site.candidate)
    await reader.until_all_is_read()
    site.candidate.restart()
    site.candidate.serve(0.05, 1)  # fewer than before: a counter that falls
    await reader.until(lambda reports: any(report.gap for report in reports))
    await reader.until_all_is_read()
    both_serve(site.stable, site.candidate)
    await reader.until_all_is_read()
    await reader.source.close()
    gaps = [report for report in reader.stored if report.gap is not None]
    assert all("candidate" in str(report.gap) and not report.windows for report in gaps)
    assert any("began anew" in str(report.gap) or "was not read" in str(report.gap) for report in gaps)
    assert reader.counted(Role.CANDIDATE) == Tally(2, 12)
    assert reader.counted(Role.STABLE) == Tally(4, 44)


async def trouble_of(origin: PrometheusHistogram) -> str:
    """The first trouble with a metric, of which no evidence came."""
    reader = Reader(wanted(origin, time.time()))
    await reader.until(lambda _: bool(reader.source.troubles()))
    ((metric, why),) = reader.source.troubles()
    await reader.source.close()
    assert metric == "queue-time of s"
    assert reader.stored == []
    return why


async def test_a_metric_that_nobody_scrapes_is_a_trouble_with_the_selector(site: Site) -> None:
    origin = PrometheusHistogram(site.url, "queue", 0.5, (("revision", "{revision}"), ("job", 'a "b"')), 1.0)
    assert r'queue_bucket{revision="v2", job="a \"b\""}: is it scraped, and labelled so?' in await trouble_of(origin)


async def test_a_bound_that_is_none_is_a_trouble_with_those_that_are(site: Site) -> None:
    why = await trouble_of(PrometheusHistogram(site.url, "queue", 0.3, (("revision", "{revision}"),), 1.0))
    assert why == "the histogram has no bucket that ends at 0.3; `above` is one of 0.1, 0.5, 1"


async def test_a_query_that_prometheus_refuses_is_told_in_its_words(site: Site) -> None:
    assert "parse error" in await trouble_of(PrometheusHistogram(site.url, "no-name", 0.5, (("v", "{revision}"),), 1.0))


async def test_what_is_no_prometheus_is_a_trouble(site: Site) -> None:
    assert "404" in await trouble_of(a_histogram(f"{site.url}/nowhere"))
    assert "cannot be asked" in await trouble_of(a_histogram(f"http://127.0.0.1:{free_port()}"))
