"""The access log followed into interval reports, each request counted once whatever dies in between.

Read, parse, fold; when an interval is over, keep its report and the place in the log in one transaction. What is
counted but not kept is forgotten by a crash together with the place, and so is counted again from there. Only
`agent.py` uses this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from graylift.domain.evidence import IntervalReport, RequestRecord, ScoreRecord
from graylift.domain.scores import Score, Scored
from graylift.domain.shadow import BrokenShadow
from graylift.envoy.access_log import parse
from graylift.errors import GatewayError
from graylift.gateway.config import GatewayConfig
from graylift.gateway.recent import RecentRequests
from graylift.gateway.shadow import ShadowDesk
from graylift.gateway.state import AgentState, Checkpoint
from graylift.gateway.supervisor import Supervisor
from graylift.gateway.tail import LogReader
from graylift.gateway.timeline import Timeline
from graylift.metrics.intervals import Intervals, number_at, recut
from graylift.metrics.reports import reports

POLL_S = 0.05
GRACE_S = 0.2
"""An interval is closed this much, and the log's flush interval, after its end."""
RETRY_S = 1.0
"""After the state could not be written."""
READ_AT_MOST = 1_000
"""Reports handed over at a time, so that a controller that was long away is not buried."""

_WRITE_FAILED = "filesystem.write_failed"
"""Envoy's counter of log writes that failed."""
_T = TypeVar("_T")


class SteadyTime:
    """Epoch seconds that never go back: a clock that is set back must neither reopen intervals nor stop reports."""

    def __init__(self, not_before: float = 0.0) -> None:
        self._last = max(time.time(), not_before)
        self._monotonic = time.monotonic()

    def __call__(self) -> float:
        monotonic = time.monotonic()
        self._last = max(time.time(), self._last + monotonic - self._monotonic)
        self._monotonic = monotonic
        return self._last


class LogFollower:
    """Follows the log of one Envoy on from `checkpoint`. `begin` once Envoy runs, then `run`.

    problem: why reports are late, None if they are not
    """

    def __init__(
        self,
        config: GatewayConfig,
        *,
        state: AgentState,
        checkpoint: Checkpoint | None,
        timeline: Timeline,
        supervisor: Supervisor,
        shadow: ShadowDesk,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._shadow = shadow
        self._state = state
        self._checkpoint = checkpoint
        self._timeline = timeline
        self._supervisor = supervisor
        self._now = now
        self._flush_s = config.flush_ms / 1000
        self._write_failed = 0
        self._seen_s = now()
        self.problem: str | None = None
        self._recent = RecentRequests()
        self._scores: list[ScoreRecord] = []
        length_s, grace_s = config.interval_s, GRACE_S + self._flush_s
        if checkpoint is None:
            # The time in ms is above every number that an agent whose state was lost may have handed out.
            self._sequence = int(self._seen_s * 1000)
            self._reader = LogReader(config.access_log, None)
            self._intervals = Intervals(length_s, number_at(self._seen_s, length_s), grace_s)
        else:
            self._sequence = checkpoint.sequence
            self._reader = LogReader(config.access_log, checkpoint.position)
            first, kept = recut(checkpoint.open, checkpoint.first, checkpoint.length_s, length_s)
            self._intervals = Intervals(length_s, first, grace_s, kept)
        self._newest_s = self._intervals.first * length_s

    async def begin(self) -> None:
        """Find out what was missed since the checkpoint, now that Envoy runs, and make a new one."""
        self._write_failed = await self._supervisor.admin.counter(_WRITE_FAILED)
        now, kept = self._now(), self._checkpoint
        if kept is not None and kept.envoy != self._supervisor.identity:
            self._timeline.gap(kept.seen_s - self._flush_s, now, "Envoy ended while its agent was away")
        elif kept is not None and self._write_failed > kept.write_failed:
            self._timeline.gap(kept.seen_s - self._flush_s, now, _unwritten(self._write_failed - kept.write_failed))
        # From here on every line counts, even if this agent ends before its first interval does.
        self._seen_s = now
        await self._keep(())

    async def run(self) -> None:
        """Follow the log until cancelled."""
        while True:
            started = self._now()
            at_end = await _in_thread(self._count_more)
            self._count_scores()
            # While there is more to read, time is where the log is.
            await self._close_intervals(started if at_end else min(started, self._newest_s))
            await self._tend()
            if at_end:
                await asyncio.sleep(POLL_S)

    def envoy_ended(self) -> None:
        """Envoy is gone, with the lines it had not written yet."""
        self._timeline.gap_begins(self._now() - self._flush_s - POLL_S, "Envoy ended by itself")

    def envoy_is_back(self) -> None:
        self._timeline.gap_ends(self._now())
        self._write_failed = 0

    async def read(self, after: int | None) -> Sequence[IntervalReport]:
        return await asyncio.to_thread(self._state.reports, after, READ_AT_MOST)

    def score(self, given: Sequence[Score], known: Mapping[str, Collection[str]]) -> Sequence[Scored]:
        """See `ports.Scores`. What is counted is in the interval it came in."""
        now = self._now()
        fates: list[Scored] = []
        for one in given:
            fate, record = self._recent.score(one, known, now)
            fates.append(fate)
            if record is not None:
                self._scores.append(record)
        return fates

    def close(self) -> None:
        self._reader.close()

    def _count_scores(self) -> None:
        """Those that came while a thread was at the sums."""
        for record in self._scores:
            self._intervals.add(record)
        self._scores.clear()

    def _count_more(self) -> bool:
        """Read and count a chunk of the log. Was it the last one?"""
        read = self._reader.read()
        if read.lost is not None:
            self._timeline.gap(self._seen_s - self._flush_s, self._now(), read.lost)
        unreadable = read.broken
        for line in read.lines:
            try:
                record = parse(line)
                if isinstance(record, BrokenShadow):
                    self._shadow.broken(record)
                elif record is not None:
                    self._intervals.add(record)
                    if isinstance(record, RequestRecord):
                        self._recent.remember(record)
                    self._newest_s = max(self._newest_s, record.ended_s)
            except ValueError:
                unreadable += 1
        self._intervals.add_unreadable(unreadable)
        for evidence in self._shadow.evidence():
            self._intervals.add_shadow(evidence)
        return read.at_end

    async def _close_intervals(self, now: float) -> None:
        first = self._intervals.first
        if not self._intervals.is_due(now):
            return
        await self._check_writes()
        closed = self._intervals.close(now)
        made = reports(
            gateway=self._config.name,
            sequence=self._sequence,
            numbers=range(first, self._intervals.first),
            intervals=closed,
            length_s=self._config.interval_s,
            in_force=self._timeline.in_force,
            gaps=self._timeline.gaps,
        )
        self._sequence += len(made)
        self._timeline.forget(self._intervals.first * self._config.interval_s)
        await self._keep(made)
        self._reader.forget()

    async def _check_writes(self) -> None:
        """Before an interval is closed: did Envoy write all of its lines?"""
        now = self._now()
        try:
            write_failed = await self._supervisor.admin.counter(_WRITE_FAILED)
        except GatewayError:
            return  # Envoy is away: `envoy_ended` says so
        if write_failed > self._write_failed:
            since = self._seen_s - self._flush_s
            self._timeline.gap(since, now, _unwritten(write_failed - self._write_failed))
        self._write_failed = write_failed
        self._seen_s = now

    async def _keep(self, made: Sequence[IntervalReport]) -> None:
        """Keep the reports and the place in the log. While that fails nothing more is read: the log itself waits."""
        checkpoint = Checkpoint(
            position=self._reader.position,
            length_s=self._config.interval_s,
            first=self._intervals.first,
            open=self._intervals.open_intervals(),
            sequence=self._sequence,
            seen_s=self._seen_s,
            envoy=self._supervisor.identity,
            write_failed=self._write_failed,
            in_force=self._timeline.in_force,
            gaps=self._timeline.gaps,
        )
        while True:
            try:
                await asyncio.to_thread(self._state.advance, checkpoint, made)
            except GatewayError as exc:
                self.problem = str(exc)
                await asyncio.sleep(RETRY_S)
            else:
                self.problem = None
                return

    async def _tend(self) -> None:
        """Keep the logs in bounds."""
        self._reader.rotate(self._config.max_log_bytes)
        if self._reader.is_missing:
            try:
                await self._supervisor.admin.post("/reopen_logs")
            except GatewayError:
                return  # Envoy is away, and opens a new log when it starts
        self._supervisor.bound_log()


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Do the work in a thread; when cancelled, wait for its end all the same, since it holds the log and the sums."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _unwritten(times: int) -> str:
    return f"Envoy could not write its access log ({times} times): is the disk full?"
