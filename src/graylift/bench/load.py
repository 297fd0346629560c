"""The load generator: sends prepared requests at times fixed ahead, whatever became of the earlier ones.

A closed loop (send, wait, send) stops asking exactly while the server stalls, and so never measures the stall.
Here every request has its due time; its latency counts from there. Knows HTTP and nothing of models: the demo, the
benchmarks and the performance check bring the requests and, if they like, a score for each answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import aiohttp

from graylift.bench.report import LoadReport, RevisionReport, StreamReport
from graylift.bench.schedule import Arrivals, due_times
from graylift.bench.streams import Written, is_stream, read_stream
from graylift.domain.histogram import bin_of, histogram_from_counts
from graylift.errors import ProtocolError

REVISION_HEADER = "x-graylift-revision"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, complete."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A POST, ready to be sent.

    path:  begins with a slash
    score: how good an answer below 400 is, in [0, 1]; None from it: cannot tell. Runs between two requests: keep it
           well under a millisecond. What it raises ends the load, in an ExceptionGroup.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    score: Callable[[Answer], float | None] | None = None


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How much, how long, to whom.

    url:           http://host:port
    max_in_flight: requests under way at once; one that is due beyond it is shed, never sent late
    timeout_s:     for one request, from when it is sent; counted as error `timeout`
    """

    url: str
    rate_per_s: float
    duration_s: float
    arrivals: Arrivals = Arrivals.POISSON
    seed: int = 0
    max_in_flight: int = 256
    timeout_s: float = 30.0


async def load(plan: LoadPlan, requests: Iterator[PreparedRequest], stop: asyncio.Event | None = None) -> LoadReport:
    """Send the plan's requests and report. Takes `duration_s` and, for the last answers, at most `timeout_s` more.

    Ends early when `requests` is exhausted; at once when `stop` is set (what is under way is cut off and counted as
    abandoned). Cancelling it ends it at once without a report. A server that answers nothing is no error here: it is
    in the report. ValueError for a plan without a schedule (see `due_times`).
    """
    run = _Run(plan, requests)
    sender = asyncio.create_task(run.send_all())
    stopper = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        await asyncio.wait({sender, stopper}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sender.cancel()
        stopper.cancel()
        await asyncio.wait({sender, stopper})
    if not sender.cancelled():
        sender.result()  # what a score raised
    return run.report()


_now = time.perf_counter
"""Not the event loop's own time: some loops keep that in milliseconds, and fixed for a whole turn."""


async def _until(due: float) -> None:
    """At least one turn of the loop, also when already late: each lets answers in, so that a backlog is not sent in one
    burst. Never early, though a loop may round a delay down."""
    await asyncio.sleep(max(0.0, due - _now()))
    while (early := due - _now()) > 0:  # noqa: ASYNC110 - what is waited for is the clock
        await asyncio.sleep(early)


@dataclass(slots=True)
class _Streams:
    """The growing side of a StreamReport."""

    first: Counter[int] = field(default_factory=Counter[int])
    per_token: Counter[int] = field(default_factory=Counter[int])
    tokens: int = 0
    written_s: float = 0.0
    finishes: Counter[str] = field(default_factory=Counter[str])

    def add(self, stream: Written) -> None:
        self.first[bin_of(stream.first_s)] += 1
        if stream.per_token_s is not None:
            self.per_token[bin_of(stream.per_token_s)] += 1
        self.tokens += stream.tokens
        self.written_s += stream.last_s
        self.finishes[stream.finish or "none"] += 1

    def report(self) -> StreamReport | None:
        if not self.finishes:
            return None
        return StreamReport(
            first=histogram_from_counts(self.first),
            per_token=histogram_from_counts(self.per_token),
            tokens=self.tokens,
            written_s=self.written_s,
            finishes=tuple(sorted(self.finishes.items())),
        )


@dataclass(slots=True)
class _Tally:
    """The growing side of a RevisionReport."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    latency: Counter[int] = field(default_factory=Counter[int])
    scored: int = 0
    score_sum: float = 0.0
    streams: _Streams = field(default_factory=_Streams)


class _Run:
    def __init__(self, plan: LoadPlan, requests: Iterator[PreparedRequest]) -> None:
        self._plan = plan
        self._requests = requests
        self._due = due_times(plan.rate_per_s, plan.duration_s, plan.arrivals, plan.seed)
        self._start = _now()
        self._reached = 0
        self._in_flight = 0
        self._shed = 0
        self._errors: Counter[str] = Counter()
        self._tallies: dict[str | None, _Tally] = {}
        self._lag: Counter[int] = Counter()

    async def send_all(self) -> None:
        # limit=0: the bound is ours; a connector that queued would make requests late in silence.
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=self._plan.timeout_s)
        async with (
            aiohttp.ClientSession(
                self._plan.url, connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            self._start = _now()
            for offset in self._due.tolist():
                due = self._start + offset
                await _until(due)
                if self._in_flight >= self._plan.max_in_flight:
                    self._shed += 1
                elif (request := next(self._requests, None)) is not None:
                    self._in_flight += 1
                    group.create_task(self._send(session, request, due))
                else:
                    return
                self._reached += 1

    async def _send(self, session: aiohttp.ClientSession, request: PreparedRequest, due: float) -> None:
        self._lag[bin_of(_now() - due)] += 1
        try:
            async with session.post(
                request.path, data=request.body, headers=request.headers, allow_redirects=False
            ) as response:
                stream = await read_stream(response, due) if is_stream(response) else None
                body = b"" if stream is not None else await response.read()
            self._count(request, Answer(response.status, response.headers, body), _now() - due, stream)
        except ProtocolError:
            self._errors["broken stream"] += 1
        except TimeoutError:
            self._errors["timeout"] += 1
        except aiohttp.ClientError as error:
            self._errors[type(error).__name__] += 1
        finally:
            self._in_flight -= 1

    def _count(self, request: PreparedRequest, answer: Answer, latency_s: float, stream: Written | None = None) -> None:
        tally = self._tallies.setdefault(answer.headers.get(REVISION_HEADER), _Tally())
        tally.statuses[answer.status] += 1
        if answer.status >= 400:
            return
        tally.latency[bin_of(latency_s)] += 1
        if stream is not None:
            tally.streams.add(stream)
        score = None if request.score is None else request.score(answer)
        if score is not None:
            tally.scored += 1
            tally.score_sum += score

    def report(self) -> LoadReport:
        answered = sum(sum(tally.statuses.values()) for tally in self._tallies.values())
        return LoadReport(
            rate_per_s=self._plan.rate_per_s,
            elapsed_s=_now() - self._start,
            scheduled=len(self._due),
            shed=self._shed,
            # What was begun and has no other end. Not counted one by one: a task that is cancelled before its first
            # turn never runs, and could not count itself.
            abandoned=self._reached - self._shed - answered - self._errors.total(),
            not_due=len(self._due) - self._reached,
            errors=tuple(sorted(self._errors.items())),
            revisions=tuple(
                RevisionReport(
                    revision=revision,
                    statuses=tuple(sorted(tally.statuses.items())),
                    latency=histogram_from_counts(tally.latency),
                    scored=tally.scored,
                    score_sum=tally.score_sum,
                    streams=tally.streams.report(),
                )
                for revision, tally in sorted(self._tallies.items(), key=lambda item: item[0] or "")
            ),
            lag=histogram_from_counts(self._lag),
        )
