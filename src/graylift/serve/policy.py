"""Which waiting requests run next, together: dynamic batching as pure functions of the queue and the time.

The queue is in order of urgency, and within one urgency the oldest is first. Its first request always leads; those of
its kind that fit join it in their order. With no delay (the default) a free context runs at once what waits: batches
form exactly while all contexts are busy, and an idle server adds nothing to anybody's latency. A delay buys larger
batches with the leader's time.

Requests of different shapes never share a run: padding one to the other's length is right only if the model masks what
was added, and no trial on made-up inputs can show that for real ones.

It must not know tensors, threads or clocks. Called by `batcher`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

FIRST, NORMAL, LAST = 1, 2, 3
"""Priorities, as Triton counts them. Strict: who is less urgent waits until nobody more urgent does."""


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """max_rows: of one run; 1 runs each request alone. A request with more rows than that runs alone, too.
    max_delay_s: how long a request may wait for company while a context is free"""

    max_rows: int = 1
    max_delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """rows: along the batch dimension, at least 0; kind: equal ones can share a run; since_s: when it came;
    until_s: when nobody wants its answer any more"""

    rows: int
    kind: Hashable
    since_s: float
    priority: int = NORMAL
    until_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Run:
    """members: indices into the queue, ascending; the first is 0"""

    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to run before `until_s`, unless somebody comes."""

    until_s: float


def next_batch(policy: BatchPolicy, queue: Iterable[Waiting], now: float) -> Run | Wait | None:
    """What a free context does. `queue`: in order. None if nobody waits. O(length of the queue) at most."""
    waiting = iter(queue)
    leader = next(waiting, None)
    if leader is None:
        return None
    members, rows = [0], leader.rows
    if rows < policy.max_rows:
        for index, other in enumerate(waiting, start=1):
            if other.kind == leader.kind and rows + other.rows <= policy.max_rows:
                members.append(index)
                rows += other.rows
                if rows == policy.max_rows:
                    break
    # Company may cost the leader half of the time it has: the other half is for the run.
    due_s = leader.since_s + min(policy.max_delay_s, (leader.until_s - leader.since_s) / 2)
    if rows >= policy.max_rows or now >= due_s:
        return Run(tuple(members))
    return Wait(due_s)


def gives_way(last: Waiting, newcomer: Waiting) -> bool:
    """With a full queue: whether its last request is refused for the newcomer's sake, and not the newcomer."""
    return newcomer.priority < last.priority
