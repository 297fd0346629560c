"""The queue and its contexts, under any order of arrivals, departures and failures."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.engine import Interface, TensorSpec
from graylift.errors import EngineError, NotServed
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


steps = st.lists(st.tuples(st.sampled_from(["come", "poison", "run", "leave"]), st.integers(0, 9)), max_size=60)


@given(contexts=st.integers(1, 3), max_waiting=st.integers(0, 5), max_rows=st.integers(1, 4), steps=steps)
def test_everybody_gets_one_answer_their_own_or_left(
    contexts: int, max_waiting: int, max_rows: int, steps: list[tuple[str, int]]
) -> None:
    async def walk() -> None:
        pool = ByHand()
        batcher = Batcher(pool, contexts, max_waiting, Metrics("tiny", "v2"))
        batcher.policy = BatchPolicy(max_rows)
        jobs: list[tuple[Job, float]] = []
        gone: list[Job] = []
        for number, (step, which) in enumerate(steps):
            if step in ("come", "poison"):
                value = POISON if step == "poison" else float(number)
                try:
                    jobs.append((batcher.join(double, request(value)), value))
                except NotServed:
                    assert batcher.waiting == max_waiting
            elif step == "run" and pool.waiting:
                await pool.run(which)
            elif step == "leave" and (still := [job for job, _ in jobs if not job.answer.done()]):
                gone.append(still[which % len(still)])
                batcher.give_up(gone[-1])
            assert batcher.running == len(pool.waiting) <= contexts
            assert batcher.waiting <= max(max_waiting, 0)
            assert batcher.waiting == 0 or batcher.running == contexts
        while pool.waiting:
            await pool.run(0)
        assert (batcher.running, batcher.waiting) == (0, 0)
        assert all(size <= max_rows for size in pool.sizes)
        for job, value in jobs:
            if job in gone:
                assert job.answer.cancelled()
            elif value == POISON:
                with pytest.raises(EngineError, match="poisoned"):
                    job.answer.result()
            else:
                assert job.answer.result()["y"].tolist() == [2 * value]

    asyncio.run(walk())


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
