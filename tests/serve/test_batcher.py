"""The queue and its contexts, under any order of arrivals, departures and failures."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.engine import Interface, TensorSpec
from graylift.errors import EngineError, NotServed, Refusal
from graylift.protocols.datatypes import Tensor
from graylift.serve.batcher import Batcher, Job
from graylift.serve.metrics import Metrics
from graylift.serve.policy import BatchPolicy
from graylift.serve.stacking import answers, objection

POISON = -1.0


def double(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if (inputs["x"] == POISON).any():
        raise EngineError("poisoned")
    return {"y": inputs["x"] * 2}


def request(*values: float) -> dict[str, Tensor]:
    return {"x": np.array(values, np.float32)}


class ByHand(Executor):
    """Runs what was submitted when the test says so, in the order the test says."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Any, tuple[Any, ...]]] = []
        self.sizes: list[int] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, fn, args))
        self.sizes.append(len(args[1]))
        return future

    async def run(self, which: int) -> None:
        future, fn, args = self.waiting.pop(which % len(self.waiting))
        future.set_result(fn(*args))
        for _ in range(3):  # the result crosses from the pool's future to the loop's
            await asyncio.sleep(0)


steps = st.lists(
    st.tuples(st.sampled_from(["come", "poison", "brief", "run", "leave", "late"]), st.integers(0, 9)), max_size=60
)


@given(
    contexts=st.integers(1, 3),
    max_waiting=st.integers(0, 5),
    max_rows=st.integers(1, 4),
    quick_elements=st.sampled_from([0, 0, 2]),
    steps=steps,
)
def test_everybody_gets_one_answer_their_own_or_left_or_was_refused(
    contexts: int, max_waiting: int, max_rows: int, quick_elements: int, steps: list[tuple[str, int]]
) -> None:
    async def walk() -> None:
        pool = ByHand()
        batcher = Batcher(pool, contexts, max_waiting, Metrics("tiny", "v2"))
        batcher.policy = BatchPolicy(max_rows)
        batcher.quick_elements = quick_elements
        jobs: list[tuple[Job, float]] = []
        gone: list[Job] = []
        for number, (step, which) in enumerate(steps):
            if step in ("come", "poison", "brief"):
                value = POISON if step == "poison" else float(number)
                timeout_s = 0.0 if step == "brief" else None
                # Of three rows: too large to be quick.
                values = (value,) * 3 if which == 0 else (value,)
                try:
                    job = batcher.join(double, request(*values), priority=1 + which % 3, timeout_s=timeout_s)
                except NotServed:
                    assert batcher.waiting == max_waiting
                else:
                    jobs.append((job, value))
            elif step == "run" and pool.waiting:
                await pool.run(which)
            elif step == "late":
                await turns()  # whose time is up hears it
            elif step == "leave" and (still := [job for job, _ in jobs if not job.answer.done()]):
                gone.append(still[which % len(still)])
                batcher.give_up(gone[-1])
            assert batcher.running == len(pool.waiting) <= contexts
            assert batcher.waiting <= max(max_waiting, 1 if quick_elements else 0)
            assert batcher.waiting == 0 or batcher.running == contexts or quick_elements
        await turns()
        while pool.waiting:
            await pool.run(0)
        assert (batcher.running, batcher.waiting) == (0, 0)
        assert all(size <= max_rows for size in pool.sizes)
        for job, value in jobs:
            assert job.answer.done()
            if job in gone:
                assert job.answer.cancelled()
            elif isinstance(failure := job.answer.exception(), NotServed):
                assert failure.why is Refusal.BUSY or (failure.why is Refusal.TOO_LATE and job.place.until_s < math.inf)
            elif value == POISON:
                assert isinstance(failure, EngineError)
            else:
                assert set(job.answer.result()["y"].tolist()) == {2 * value}

    asyncio.run(walk())


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_who_is_more_urgent_runs_first_and_within_one_rank_who_came_first() -> None:
    pool = ByHand()
    batcher = Batcher(pool, 1, 9, Metrics("tiny", "v2"))
    order: list[int] = []
    jobs = [batcher.join(double, request(n), priority) for n, priority in enumerate((2, 3, 2, 1, 3, 1))]
    for number, job in enumerate(jobs):
        job.answer.add_done_callback(lambda _, number=number: order.append(number))
    while pool.waiting:
        await pool.run(0)
    assert order == [0, 3, 5, 2, 1, 4]


async def test_a_full_queue_refuses_the_last_of_the_less_urgent_for_a_more_urgent_one() -> None:
    pool = ByHand()
    batcher = Batcher(pool, 1, 2, Metrics("tiny", "v2"))
    running, first, second = (batcher.join(double, request(n), 3) for n in range(3))
    urgent = batcher.join(double, request(9), 1)
    with pytest.raises(NotServed, match="a more urgent one came"):
        second.answer.result()
    with pytest.raises(NotServed, match="2 requests wait already"):
        batcher.join(double, request(4), 3)
    while pool.waiting:
        await pool.run(0)
    assert [job.answer.result()["y"].tolist() for job in (running, urgent, first)] == [[0], [18], [2]]


async def test_quick_runs_need_no_thread_and_who_comes_together_runs_together() -> None:
    pool = ByHand()
    batcher = Batcher(pool, 1, 9, Metrics("tiny", "v2"))
    batcher.policy = BatchPolicy(8)
    batcher.quick_elements = 4
    jobs = [batcher.join(double, request(n)) for n in range(4)]
    assert batcher.waiting == 4
    assert [(await job.answer)["y"].tolist() for job in jobs] == [[0], [2], [4], [6]]
    assert pool.sizes == []
    large = batcher.join(double, request(1, 2, 3, 4, 5))
    await turns()
    assert pool.sizes == [1]
    await pool.run(0)
    assert (await large.answer)["y"].tolist() == [2, 4, 6, 8, 10]


async def test_a_defect_in_a_quick_run_is_told_to_everybody_in_it() -> None:
    def broken(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise ZeroDivisionError

    batcher = Batcher(ByHand(), 1, 9, Metrics("tiny", "v2"))
    batcher.quick_elements = 4
    jobs = [batcher.join(broken, request(n)) for n in range(2)]
    for job in jobs:
        with pytest.raises(ZeroDivisionError):
            await job.answer
    assert (batcher.running, batcher.waiting) == (0, 0)


async def test_with_a_delay_the_first_waits_for_company_until_its_time_is_up() -> None:
    pool = ByHand()
    batcher = Batcher(pool, 1, 9, Metrics("tiny", "v2"))
    batcher.policy = BatchPolicy(8, max_delay_s=0.02)
    jobs = [batcher.join(double, request(n)) for n in range(3)]
    assert (batcher.running, batcher.waiting) == (0, 3)
    while not pool.waiting:
        await asyncio.sleep(0.001)
    assert pool.sizes == [3]
    await pool.run(0)
    assert [job.answer.result()["y"].tolist() for job in jobs] == [[0], [2], [4]]


def test_requests_of_several_rows_get_their_own_rows_back() -> None:
    got, _ = answers(double, [request(1, 2), request(3), request(4, 5, 6)])
    assert [answer["y"].tolist() for answer in got if isinstance(answer, dict)] == [[2, 4], [6], [8, 10, 12]]


def test_one_poisonous_request_fails_alone() -> None:
    (good, bad, other), _ = answers(double, [request(1), request(POISON), request(3)])
    assert isinstance(bad, EngineError)
    assert isinstance(good, dict)
    assert isinstance(other, dict)
    assert (good["y"].tolist(), other["y"].tolist()) == ([2], [6])


class Fake:
    """A runner of one input x [?,2] and one output, computed by `function`."""

    interface = Interface((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))

    def __init__(self, function: Any) -> None:
        self._function = function

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"y": self._function(inputs["x"])}

    def close(self) -> None:
        pass


def fail(x: Tensor) -> Tensor:
    raise EngineError("not on made-up numbers")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x * 2, None),
        (lambda x: x + np.float32(1e-7) * len(x), None),
        (lambda x: np.cumsum(x, axis=0), "output 'y' differs when a request shares its run"),
        (lambda x: x[:1], "do not have one row for each row"),
        (fail, "could not be tried with made-up inputs: not on made-up numbers"),
    ],
)
def test_a_model_is_asked_before_its_requests_share_a_run(function: Any, said: str | None) -> None:
    found = objection(Fake(function), size=1)
    assert found is None if said is None else (found is not None and said in found)


def test_a_fixed_first_dimension_is_no_batch() -> None:
    runner = Fake(lambda x: x)
    runner.interface = Interface((TensorSpec("state", "FP32", (2, -1)),), runner.interface.outputs)
    assert objection(runner, size=1) == "input state: FP32[2,?] has no dynamic first dimension"
