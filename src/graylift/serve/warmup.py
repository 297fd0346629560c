"""Running an engine a few times before anybody waits for it: first runs allocate, page in and choose kernels."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from graylift.domain.engine import Interface, Profile, TensorSpec
from graylift.engine.runner import Runner
from graylift.errors import EngineError
from graylift.protocols.datatypes import DTYPES, Tensor

_AGREE = 1.2
"""Two runs in a row agree if neither took more than this many times the other."""
_MAX_RUNS = 10
_MAX_S = 10.0
_BATCH = 8
_SIZES = (1, 64)
"""What dynamic dimensions are tried with: 1, and where that is too small for the model's kernels, 64."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """runs: that succeeded. problem: why the last one did not, None if all did.
    size: what dynamic dimensions beside the first were tried with, where there are no profiles"""

    runs: int
    first_s: float
    last_s: float
    problem: str | None
    size: int


def warm(runner: Runner, clock: Callable[[], float] = time.perf_counter, profiles: Sequence[Profile] = ()) -> WarmUp:
    """Run on made-up inputs (zeros and empty strings) until the times settle: with a larger batch and then with one
    row, where the first dimensions are dynamic, or with each shape of the engine's profiles if it has any, the largest
    first: what does not fit in memory is to fail here. Bounded in runs and time.
    A failure is reported, not raised: zeros may be no input for this model, and real ones fine.
    """
    began = clock()
    durations: list[float] = []
    size = _SIZES[0]
    if profiles:
        series = profile_inputs(runner.interface, profiles)
    else:
        size, durations, problem = _first_run(runner, clock)
        if problem is not None:
            return _warmed([], problem, size)
        batches = (_BATCH, 1) if any(spec.shape[:1] == (-1,) for spec in runner.interface.inputs) else (1,)
        series = [made_up_inputs(runner.interface, batch, size) for batch in batches]
    for inputs in series:
        previous = None
        for _ in range(_MAX_RUNS):
            try:
                durations.append(_timed(runner, inputs, clock))
            except EngineError as exc:
                return _warmed(durations, str(exc), size)
            if (previous is not None and _agree(previous, durations[-1])) or clock() - began > _MAX_S:
                break
            previous = durations[-1]
    return _warmed(durations, None, size)


def profile_inputs(interface: Interface, profiles: Sequence[Profile]) -> list[dict[str, Tensor]]:
    """Inputs for the largest, the favourite and the smallest shapes of each profile: what needs most memory first."""
    return [
        _of_shapes(interface, {shape.input: sizes_of(shape) for shape in profile.shapes})
        for profile in profiles
        for sizes_of in (attrgetter("max"), attrgetter("opt"), attrgetter("min"))
    ]


def best_inputs(interface: Interface, profiles: Sequence[Profile]) -> list[dict[str, Tensor]]:
    """Inputs for the favourite shapes of each profile."""
    return [_of_shapes(interface, {shape.input: shape.opt for shape in profile.shapes}) for profile in profiles]


def made_up_inputs(interface: Interface, batch: int, size: int) -> dict[str, Tensor]:
    """Inputs of the right shape: a dynamic first dimension becomes `batch`, any other dynamic one `size`."""
    return {spec.name: _made_up(spec, batch, size) for spec in interface.inputs}


def _of_shapes(interface: Interface, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    specs = (replace(spec, shape=shapes.get(spec.name, spec.shape)) for spec in interface.inputs)
    return {spec.name: _made_up(spec, 1, 1) for spec in specs}


def _made_up(spec: TensorSpec, batch: int, size: int) -> Tensor:
    shape = tuple((batch if axis == 0 else size) if dim < 0 else dim for axis, dim in enumerate(spec.shape))
    return np.full(shape, b"", DTYPES["BYTES"]) if spec.datatype == "BYTES" else np.zeros(shape, DTYPES[spec.datatype])


def _first_run(runner: Runner, clock: Callable[[], float]) -> tuple[int, list[float], str | None]:
    """The smallest size that the model takes, with the duration of that run; or why it takes none."""
    problem = None
    for size in _SIZES:
        try:
            return size, [_timed(runner, made_up_inputs(runner.interface, 1, size), clock)], None
        except EngineError as exc:
            problem = problem or str(exc)
    return _SIZES[0], [], problem


def _warmed(durations: Sequence[float], problem: str | None, size: int) -> WarmUp:
    return WarmUp(len(durations), *((durations[0], durations[-1]) if durations else (0.0, 0.0)), problem, size)


def _timed(runner: Runner, inputs: dict[str, Tensor], clock: Callable[[], float]) -> float:
    began = clock()
    runner.infer(inputs)
    return clock() - began


def _agree(one: float, other: float) -> bool:
    return max(one, other) <= _AGREE * min(one, other)
