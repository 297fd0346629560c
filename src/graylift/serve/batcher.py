"""The queue in front of the execution contexts: bounded, batched by `policy`, run in the threads of a pool.

Every job gets exactly one answer, its own, or is given up and gets none. It must not know HTTP. One event loop uses
it; nothing here is safe between threads.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from graylift.protocols.datatypes import Tensor
from graylift.serve.metrics import Metrics
from graylift.serve.policy import BatchPolicy, Run, Wait, Waiting, next_batch
from graylift.serve.stacking import Answer, Infer, Inputs, answers, kind_of, rows_of


@dataclass(eq=False, slots=True)
class Job:
    """One request on its way. `answer` raises EngineError if the model failed on it."""

    infer: Infer
    inputs: Inputs
    place: Waiting
    answer: asyncio.Future[dict[str, Tensor]]
    runs: bool = False


class Batcher:
    """`contexts` runs at once, and up to `max_waiting` requests wait. The next one is refused: behind so many it would
    be answered after its client gave up, and everybody behind it as well."""

    def __init__(self, pool: Executor, contexts: int, max_waiting: int, metrics: Metrics) -> None:
        self.policy = BatchPolicy()
        self._pool = pool
        self._contexts = contexts
        self._free = contexts
        self._max_waiting = max_waiting
        self._metrics = metrics
        self._queue: deque[Job] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """Contexts at work."""
        return self._contexts - self._free

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def join(self, infer: Infer, inputs: Inputs) -> Job | None:
        """A job, running already if a context is free and it need not wait for company; None if the queue is full."""
        if len(self._queue) >= self._max_waiting and (self._free == 0 or self._queue):
            return None
        loop = asyncio.get_running_loop()
        rows = rows_of(inputs) if self.policy.max_rows > 1 else None
        # Who cannot share a run is of a kind of its own.
        kind = object() if rows is None else kind_of(inputs)
        job = Job(infer, inputs, Waiting(rows or self.policy.max_rows, kind, loop.time()), loop.create_future())
        self._queue.append(job)
        self._dispatch()
        return job

    def give_up(self, job: Job) -> None:
        """Nobody wants this answer any more. What does not run yet never will; what runs is finished in silence."""
        job.answer.cancel()
        if not job.runs:
            self._queue.remove(job)

    def _dispatch(self) -> None:
        """Put the free contexts to work."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        loop = asyncio.get_running_loop()
        while self._free > 0:
            match next_batch(self.policy, self._places(), loop.time()):
                case Run(members):
                    self._start([self._queue[index] for index in members])
                case Wait(until_s):
                    self._alarm = loop.call_at(until_s, self._dispatch)
                    return
                case None:
                    return

    def _places(self) -> Iterator[Waiting]:
        return (job.place for job in self._queue)

    def _start(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.runs = True
            self._queue.remove(job)
        self._free -= 1
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        run = loop.run_in_executor(self._pool, _timed_answers, jobs[0].infer, [job.inputs for job in jobs])
        run.add_done_callback(lambda done: self._finish(jobs, began_s, done))

    def _finish(self, jobs: list[Job], began_s: float, run: asyncio.Future[tuple[list[Answer], float]]) -> None:
        self._free += 1
        if run.cancelled():
            results: Sequence[Answer | BaseException | None] = [None] * len(jobs)
        elif failure := run.exception():  # a defect, not the model's failure: everybody in this run is told
            results = [failure] * len(jobs)
        else:
            results, computed_s = run.result()
            rows = sum(rows_of(job.inputs) or 1 for job in jobs)
            self._metrics.ran(rows, [began_s - job.place.since_s for job in jobs], computed_s)
        for job, result in zip(jobs, results, strict=True):
            if job.answer.done():  # given up
                continue
            if result is None:
                job.answer.cancel()
            elif isinstance(result, BaseException):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)
        self._dispatch()


def _timed_answers(infer: Infer, requests: Sequence[Inputs]) -> tuple[list[Answer], float]:
    """In a context's thread."""
    began = time.perf_counter()
    results = answers(infer, requests)
    return results, time.perf_counter() - began
