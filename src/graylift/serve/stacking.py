"""Several requests as one inference: their tensors along the first dimension, and the answers apart again.

A dynamic first dimension is no promise that rows do not see each other (a sequence model may have time there), so a
model is asked before it is trusted: `objection` runs two made-up requests alone and together. Called by `batcher` and,
at the start, by `server`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graylift.domain.engine import Interface, Profile, TensorSpec
from graylift.engine.runner import Runner
from graylift.errors import EngineError
from graylift.protocols.datatypes import DTYPES, Tensor

Inputs = Mapping[str, Tensor]
Infer = Callable[[Inputs], dict[str, Tensor]]
Answer = dict[str, Tensor] | EngineError

_TOLERANCE = 1e-3
"""Of an output's largest magnitude: kernels for other batch sizes round differently, and reduced precisions more so."""


@dataclass(frozen=True, slots=True)
class Split:
    """Where the time of a run went: copying inputs together, the engine, taking outputs apart."""

    input_s: float
    compute_s: float
    output_s: float


def rows_of(inputs: Inputs) -> int | None:
    """How many rows a request has along the batch dimension; None if its tensors do not agree on one."""
    sizes = {tensor.shape[:1] for tensor in inputs.values()}
    return next(iter(sizes))[0] if len(sizes) == 1 and () not in sizes else None


def elements_of(inputs: Inputs) -> int:
    return sum(tensor.size for tensor in inputs.values())


def kind_of(inputs: Inputs) -> Hashable:
    """Requests of equal kind differ in their first dimension alone."""
    return tuple((name, inputs[name].dtype.str, inputs[name].shape[1:]) for name in sorted(inputs))


def answers(infer: Infer, requests: Sequence[Inputs]) -> tuple[list[Answer], Split]:
    """One answer for each request, its own, and where the time went. If the run of all fails, each runs alone: one that
    is poisonous fails alone, and what it does to the others is to make them wait."""
    began = time.perf_counter()
    if len(requests) == 1:
        answer = _alone(infer, requests[0])
        return [answer], Split(0.0, time.perf_counter() - began, 0.0)
    try:
        together = _together(requests)
        stacked = time.perf_counter()
        outputs = infer(together)
        computed = time.perf_counter()
        apart = _apart(outputs, [_rows(request) for request in requests])
    except EngineError:
        pass
    else:
        if apart is not None:
            return list(apart), Split(stacked - began, computed - stacked, time.perf_counter() - computed)
    results = [_alone(infer, request) for request in requests]
    return results, Split(0.0, time.perf_counter() - began, 0.0)


def objection(runner: Runner, size: int, profiles: Sequence[Profile] = ()) -> str | None:
    """Why requests to this model must not be run together, None if they may. Runs it three times.

    size: what dynamic dimensions beside the first are tried with; where there are profiles, the first one's best
    """
    interface = runner.interface
    for kind, specs in (("input", interface.inputs), ("output", interface.outputs)):
        for spec in specs:
            if spec.shape[:1] != (-1,):
                return f"{kind} {spec} has no dynamic first dimension"
    best = {shape.input: shape.opt for profile in profiles[:1] for shape in profile.shapes}
    one, other = (_made_up(interface, size, best, seed) for seed in (1, 2))
    try:
        alone = [runner.infer(one), runner.infer(other)]
        apart = _apart(runner.infer(_together([one, other])), [1, 1])
    except EngineError as exc:
        return f"it could not be tried with made-up inputs: {exc}"
    if apart is None:
        return "its outputs do not have one row for each row of its inputs"
    for single, shared in zip(alone, apart, strict=True):
        for name, tensor in single.items():
            if not _agree(tensor, shared[name]):
                return f"output {name!r} differs when a request shares its run with another one"
    return None


def _together(requests: Sequence[Inputs]) -> dict[str, Tensor]:
    return {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}


def _rows(request: Inputs) -> int:
    return next(iter(request.values())).shape[0]


def _apart(outputs: Mapping[str, Tensor], rows: Sequence[int]) -> list[dict[str, Tensor]] | None:
    """None if an output has not one row for each row that went in."""
    if any(tensor.shape[:1] != (sum(rows),) for tensor in outputs.values()):
        return None
    ends = np.cumsum(rows).tolist()
    return [
        {name: tensor[end - count : end] for name, tensor in outputs.items()}
        for count, end in zip(rows, ends, strict=True)
    ]


def _alone(infer: Infer, request: Inputs) -> Answer:
    try:
        return infer(request)
    except EngineError as exc:
        return exc


def _made_up(interface: Interface, size: int, best: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    chance = np.random.default_rng(seed)
    sizes = {
        spec.name: best.get(spec.name, tuple(size if dim < 0 else dim for dim in spec.shape))
        for spec in interface.inputs
    }
    return {spec.name: _tensor(spec, (1, *sizes[spec.name][1:]), chance) for spec in interface.inputs}


def _tensor(spec: TensorSpec, shape: tuple[int, ...], chance: np.random.Generator) -> Tensor:
    """Small whole numbers for integers, so that they are in range for most vocabularies."""
    dtype = DTYPES[spec.datatype]
    if spec.datatype == "BYTES":
        return np.full(shape, f"text {chance.integers(10)}".encode(), dtype)
    if dtype.kind == "f":
        return chance.standard_normal(shape).astype(dtype)
    return chance.integers(0, 2, shape).astype(dtype)


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    scale = float(np.max(np.abs(one), initial=0.0))
    return bool(np.allclose(one, other, rtol=0.0, atol=_TOLERANCE * max(scale, 1e-6), equal_nan=True))
