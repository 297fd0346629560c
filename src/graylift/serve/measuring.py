"""What runs of a loaded engine cost on this machine, by rows and by contexts. Bounded in time: a start waits for it.

Inputs are made up (zeros, of the sizes of the first profile or of a fixed length), so this is the speed of the shapes,
not of the values. Called by `starting`; `sizing` decides.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from graylift.domain.engine import Interface, Profile
from graylift.engine.runner import Runner
from graylift.errors import EngineError
from graylift.protocols.datatypes import Tensor
from graylift.serve.sizing import Cost, Throughput
from graylift.serve.warmup import best_inputs, made_up_inputs

MOST_ROWS = 64
"""Rows that a choice by measurement may reach: beyond, memory grows and latency with it, and hardly ever the speed."""
_LENGTHS = (64, 1)
"""What dynamic dimensions beside the first are measured with, where there are no profiles: the first that works."""
_MOST_ELEMENTS = 2**22
"""Of one row: several dynamic dimensions multiply."""
_COST_S = 0.15
_COSTS_S = 5.0
_FEWEST_RUNS, _MOST_RUNS = 3, 50
_THROUGHPUT_S = 0.6


def costs(runner: Runner, profiles: Sequence[Profile] = (), most_rows: int = MOST_ROWS) -> list[Cost]:
    """Costs of 1, 2, 4... rows, as far as the engine and the time go; empty if it fails on made-up inputs."""
    ends = time.perf_counter() + _COSTS_S
    found: list[Cost] = []
    row = a_row(runner, profiles)
    if row is None:
        return found
    for rows in _doubled(most_rows):
        try:
            found.append(Cost(rows, _median_s(runner, batch_of(row, rows))))
        except EngineError:  # outside its profiles, or more than its memory
            break
        if time.perf_counter() > ends or found[-1].rows_per_s < max(cost.rows_per_s for cost in found) / 2:
            break
    return found


def throughput(runner: Runner, row: Mapping[str, Tensor], rows: int, contexts: int) -> Throughput:
    """Rows a second of `contexts` threads that run without a pause. EngineError if the engine fails."""
    inputs = batch_of(row, rows)
    begin = threading.Barrier(contexts)

    def rows_per_s() -> float:
        try:
            runner.infer(inputs)  # the first run of a context allocates; it does not count
        except EngineError:
            begin.abort()
            raise
        with contextlib.suppress(threading.BrokenBarrierError):
            begin.wait()
        began, runs = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < _THROUGHPUT_S:
            runner.infer(inputs)
            runs += 1
        return runs * rows / took

    with ThreadPoolExecutor(contexts) as threads:
        workers = [threads.submit(rows_per_s) for _ in range(contexts)]
        return Throughput(contexts, sum(worker.result() for worker in workers))


def a_row(runner: Runner, profiles: Sequence[Profile] = ()) -> dict[str, Tensor] | None:
    """Inputs of one row that the engine takes, as large as those that are served; None if it takes none."""
    for row in _candidates(runner.interface, profiles):
        try:
            runner.infer(row)
        except EngineError:
            continue
        return row
    return None


def batch_of(row: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    return {name: tensor.repeat(rows, axis=0) for name, tensor in row.items()}


def _candidates(interface: Interface, profiles: Sequence[Profile]) -> Iterator[dict[str, Tensor]]:
    for inputs in best_inputs(interface, profiles[:1]):
        yield {name: tensor[:1] for name, tensor in inputs.items()}
    if profiles:
        return
    for length in _LENGTHS:
        shapes = [[length if dim < 0 else dim for dim in spec.shape[1:]] for spec in interface.inputs]
        if all(math.prod(shape) <= _MOST_ELEMENTS for shape in shapes):
            yield made_up_inputs(interface, 1, length)


def _doubled(most: int) -> Iterator[int]:
    rows = 1
    while rows < most:
        yield rows
        rows *= 2
    yield most


def _median_s(runner: Runner, inputs: Mapping[str, Tensor]) -> float:
    runner.infer(inputs)
    took: list[float] = []
    while len(took) < _FEWEST_RUNS or (sum(took) < _COST_S and len(took) < _MOST_RUNS):
        began = time.perf_counter()
        runner.infer(inputs)
        took.append(time.perf_counter() - began)
    return statistics.median(took)
