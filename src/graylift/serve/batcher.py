"""The queue in front of the execution contexts: bounded, batched by `policy`, run in the threads of a pool.

Every job gets exactly one answer, its own, or is given up and gets none. It must not know HTTP. One event loop uses
it; nothing here is safe between threads.
"""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from graylift.errors import NotServed, Refusal
from graylift.protocols.datatypes import Tensor
from graylift.serve.metrics import Metrics
from graylift.serve.policy import NORMAL, BatchPolicy, Run, Wait, Waiting, gives_way, next_batch
from graylift.serve.stacking import Answer, Infer, Inputs, Split, answers, elements_of, kind_of, rows_of

# The loop's own clock stands still while it works, and may count whole milliseconds.
_now = time.monotonic


@dataclass(eq=False, slots=True)
class Job:
    """One request on its way. `answer` raises EngineError if the model failed on it, NotServed if its turn does not
    come. `ends` calls when its time is up."""

    infer: Infer
    inputs: Inputs
    place: Waiting
    answer: asyncio.Future[dict[str, Tensor]]
    runs: bool = False
    ends: asyncio.TimerHandle | None = None


class Batcher:
    """`contexts` runs at once, and up to `max_waiting` requests wait. With a full queue the next one is refused (behind
    so many it would be answered after its client gave up, and everybody behind it as well), or the last one of less
    urgent ones in its stead.

    quick_elements: runs with no more elements than this are done at once, in the loop: to give them to a thread would
    take longer than they do. They start when the loop has read what it has to read, so that who comes together runs
    together.
    """

    def __init__(self, pool: Executor, contexts: int, max_waiting: int, metrics: Metrics) -> None:
        self.policy = BatchPolicy()
        self.quick_elements = 0
        self._pool = pool
        self._contexts = contexts
        self._free = contexts
        self._max_waiting = max_waiting
        self._metrics = metrics
        self._queue: list[Job] = []
        self._alarm: asyncio.Handle | None = None
        self._soon: asyncio.Handle | None = None

    @property
    def running(self) -> int:
        """Contexts at work."""
        return self._contexts - self._free

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def widen(self, contexts: int) -> None:
        """So many contexts from now on; to be called while nothing runs."""
        self._contexts = self._free = contexts

    def join(self, infer: Infer, inputs: Inputs, priority: int = NORMAL, timeout_s: float | None = None) -> Job:
        """A job, running already if a context is free and it need not wait for company.

        timeout_s: how long it may wait for its turn. Raises NotServed if the queue is full.
        """
        now = _now()
        rows = rows_of(inputs) if self.policy.max_rows > 1 else None
        # Who cannot share a run is of a kind of its own.
        kind = object() if rows is None else kind_of(inputs)
        place = Waiting(rows or self.policy.max_rows, kind, now, priority)
        loop = asyncio.get_running_loop()
        job = Job(infer, inputs, place, loop.create_future())
        if timeout_s is not None:
            job.place = Waiting(place.rows, kind, now, priority, now + timeout_s)
            job.ends = loop.call_later(timeout_s, self._expire, job)
        try:
            self._make_room(job.place)
        except NotServed:
            _forget(job)
            raise
        insort(self._queue, job, key=_urgency)
        if self.quick_elements == 0:
            self._dispatch()
        elif self._soon is None:
            self._soon = loop.call_soon(self._dispatch)
        return job

    def give_up(self, job: Job) -> None:
        """Nobody wants this answer any more. What does not run yet never will; what runs is finished in silence."""
        job.answer.cancel()
        if not job.runs:
            self._queue.remove(job)
            _forget(job)

    def _make_room(self, newcomer: Waiting) -> None:
        """NotServed if there is none for it."""
        if self._soon is not None and len(self._queue) >= self._max_waiting:
            self._dispatch()
        if len(self._queue) < self._max_waiting or (self._free > 0 and not self._queue):
            return
        many = f"{len(self._queue)} requests wait already, as many as may (--max-queue)"
        if not self._queue or not gives_way(self._queue[-1].place, newcomer):
            raise NotServed(f"the model is busy and {many}; try again later", Refusal.BUSY)
        last = self._queue.pop()
        _forget(last)
        _refuse(last, f"the model is busy, {many}, and a more urgent one came; try again later", Refusal.BUSY)

    def _expire(self, job: Job) -> None:
        """Its time is up before its turn came."""
        self._queue.remove(job)
        waited_s = job.place.until_s - job.place.since_s
        _refuse(job, f"its turn did not come within the {waited_s * 1e3:.6g} ms that it gave", Refusal.TOO_LATE)

    def _dispatch(self, not_before_s: float = 0.0) -> None:
        """Put the free contexts to work. not_before_s: timers may ring a little early; then it is this late."""
        for handle in (self._alarm, self._soon):
            if handle is not None:
                handle.cancel()
        self._alarm = self._soon = None
        while self._free > 0:
            now = max(_now(), not_before_s)
            match next_batch(self.policy, self._places(), now):
                case Run(members):
                    self._start(self._taken(members))
                case Wait(until_s):
                    self._alarm = asyncio.get_running_loop().call_later(until_s - now, self._dispatch, until_s)
                    return
                case None:
                    return

    def _places(self) -> Iterator[Waiting]:
        return (job.place for job in self._queue)

    def _taken(self, members: Sequence[int]) -> list[Job]:
        """Out of the queue, for good."""
        jobs = [self._queue[index] for index in members]
        if len(jobs) == len(self._queue):
            self._queue.clear()
        else:
            for index in reversed(members):
                del self._queue[index]
        for job in jobs:
            job.runs = True
            _forget(job)
        return jobs

    def _start(self, jobs: list[Job]) -> None:
        infer, requests = jobs[0].infer, [job.inputs for job in jobs]
        began_s = _now()
        if self.quick_elements and sum(map(elements_of, requests)) <= self.quick_elements:
            try:
                self._settle(jobs, began_s, answers(infer, requests))
            except Exception as exc:  # noqa: BLE001  # a defect, as below
                self._settle(jobs, began_s, exc)
            return
        self._free -= 1
        loop = asyncio.get_running_loop()
        run = loop.run_in_executor(self._pool, answers, infer, requests)
        run.add_done_callback(lambda done: self._finish(jobs, began_s, done))

    def _finish(self, jobs: list[Job], began_s: float, run: asyncio.Future[tuple[list[Answer], Split]]) -> None:
        self._free += 1
        self._settle(jobs, began_s, None if run.cancelled() else run.exception() or run.result())
        self._dispatch()

    def _settle(
        self, jobs: list[Job], began_s: float, outcome: tuple[list[Answer], Split] | BaseException | None
    ) -> None:
        """Tell everybody in this run: their own answer, the defect (no failure of the model) that ended it, or, if it
        was cancelled, nothing."""
        if isinstance(outcome, tuple):
            results, split = outcome
            rows = sum(rows_of(job.inputs) or 1 for job in jobs)
            waited_s = [began_s - job.place.since_s for job in jobs]
            self._metrics.ran(rows, waited_s, split, away_s=_now() - began_s)
        else:
            results = [outcome] * len(jobs)
        for job, result in zip(jobs, results, strict=True):
            if job.answer.done():  # given up
                continue
            if result is None:
                job.answer.cancel()
            elif isinstance(result, BaseException):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)


def _urgency(job: Job) -> int:
    return job.place.priority


def _refuse(job: Job, message: str, why: Refusal) -> None:
    if not job.answer.done():
        job.answer.set_exception(NotServed(message, why))


def _forget(job: Job) -> None:
    """Its time no longer runs out."""
    if job.ends is not None:
        job.ends.cancel()
        job.ends = None
