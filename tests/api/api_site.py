"""The API on a free port over a store with one release on traffic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from graylift.adapters.otlp import OtlpSource
from graylift.adapters.sql_store import SqlStore
from graylift.api import ApiServer, create_app
from graylift.domain.release import Phase, Release, Service
from graylift.domain.scores import Score, Scored, ScoreFate
from graylift.domain.spec import Check, Margin, MarginKind, Metric, RoutingSpec, ServingProtocol
from graylift.ports import Change, Tracked
from graylift.testing.fakes import FakeClock
from graylift.testing.samples import ERRORS, release_spec, revision

HELPFUL = Check(Metric.SCORE, None, Margin(MarginKind.SCORE, -0.02), Margin(MarginKind.SCORE, -0.05), score="helpful")


class CountingScores:
    """ports.Scores that knows one request of file-type, `known`."""

    def __init__(self) -> None:
        self.counted: list[Score] = []
        self.names: Mapping[str, Collection[str]] = {}

    async def score(self, given: Sequence[Score], known: Mapping[str, Collection[str]]) -> Sequence[Scored]:
        self.names = known
        return [self._count(one) for one in given]

    def _count(self, score: Score) -> Scored:
        if score.request_id != "known":
            return Scored(ScoreFate.UNKNOWN, "no request of this id has ended here")
        if score in self.counted:
            return Scored(ScoreFate.REPEATED, "counted before")
        self.counted.append(score)
        return Scored(ScoreFate.COUNTED)


@dataclass
class Site:
    url: str
    http: aiohttp.ClientSession
    store: SqlStore
    scores: CountingScores = field(default_factory=CountingScores)


def a_release(phase: Phase = Phase.PROGRESSING) -> Release:
    spec = release_spec(checks=(ERRORS, HELPFUL))
    return Release(
        *("file-type-1", spec, phase, "observed 3 s of 5 s", 0, 1_000_000.0, 3.0, 2, False, "salt", 999_990.0),
        stable=revision("v1"),
        candidate=revision("v2"),
    )


@asynccontextmanager
async def a_site(store: SqlStore) -> AsyncIterator[Site]:
    scores = CountingScores()
    lease = store.acquire("c1", 1_000_000.0, 60.0)
    assert lease is not None
    service = Service("file-type", ServingProtocol.OPEN_INFERENCE, RoutingSpec(), stable=revision("v1"), releases=1)
    store.commit(lease, Change(tracked=(Tracked(service, a_release(), None, 0),)))
    server = ApiServer(create_app(store, scores, OtlpSource(), FakeClock(), "127.0.0.1"), "127.0.0.1", 0)
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Site(f"http://{server.address}", session, store, scores)
    finally:
        await server.close()
