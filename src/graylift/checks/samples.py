"""Inputs for checks: made up from an interface and its profiles, or cut out of what somebody gave. Pure, seeded.

Made-up inputs show whether two engines compute the same, at every shape that is promised. They show nothing of how
well a model does: they lie where no real input lies. Called by the checks that run engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graylift.domain.engine import Interface, Profile, TensorSpec
from graylift.domain.spec import TensorName
from graylift.protocols.datatypes import DTYPES, Tensor, datatype_of

VOCABULARIES = (1000, 100, 10, 2, 1)
"""Upper ends of the ranges that integers are drawn from, for the source to take or refuse: whether an integer is a
token, a class or a switch, an interface does not say."""
MOST_GIVEN = 256
"""Samples that are compared at most, picked evenly: enough to tell 99 % from 95 %."""
_BATCH = 8
_SIZES = ((1, 32), (2, 64), (8, 128))
"""(batch, size of any other dynamic dimension) where no profile says better. Multiples of 32: convolutional models
halve their input five times."""
_SEED = 20_240_613


@dataclass(frozen=True, slots=True)
class Point:
    """Shapes to try: one for each input. `promised`: a profile says that they are served."""

    label: str
    shapes: Mapping[str, tuple[int, ...]]
    promised: bool


def points_of(interface: Interface, profiles: Sequence[Profile]) -> tuple[Point, ...]:
    """Min, opt and max of every profile; without one, a few shapes that most models take. The smallest first."""
    points: list[Point] = []
    for number, profile in enumerate(profiles, start=1):
        for corner in ("min", "opt", "max"):
            shapes: dict[str, tuple[int, ...]] = {s.input: getattr(s, corner) for s in profile.shapes}
            filled = {spec.name: shapes.get(spec.name, _filled(spec, 1, 1)) for spec in interface.inputs}
            points.append(Point(f"profile {number} {corner}", filled, promised=True))
    for batch, size in () if profiles else _SIZES:
        filled = {spec.name: _filled(spec, batch, size) for spec in interface.inputs}
        points.append(Point(", ".join(f"{name} {list(shape)}" for name, shape in filled.items()), filled, False))
    different = {tuple(sorted(point.shapes.items())): point for point in reversed(points)}
    return tuple(sorted(different.values(), key=_elements))


def made_up(interface: Interface, point: Point, vocabulary: int, draw: int = 0) -> dict[str, Tensor]:
    """One input of each name. Floats are normal, integers from 0 to below `vocabulary`, masks all ones, positions
    count from 0. The same arguments give the same tensors, another `draw` gives others."""
    return {
        spec.name: _drawn(spec, point.shapes[spec.name], vocabulary, np.random.default_rng([_SEED, draw, number]))
        for number, spec in enumerate(interface.inputs)
    }


def largest(interface: Interface, point: Point, vocabulary: int) -> dict[str, Tensor]:
    """The same with every integer at the upper end of its range: if a model takes that, it takes what is drawn."""
    case = made_up(interface, point, vocabulary)
    for spec in interface.inputs:
        if _is_drawn_integer(spec):
            case[spec.name].fill(_end(DTYPES[spec.datatype], vocabulary) - 1)
    return case


def draws_integers(interface: Interface) -> bool:
    """Do the made-up inputs depend on the vocabulary?"""
    return any(map(_is_drawn_integer, interface.inputs))


def given(
    arrays: Mapping[str, Tensor],
    interface: Interface,
    renamings: Sequence[TensorName],
    profiles: Sequence[Profile],
    where: str,
) -> list[dict[str, Tensor]]:
    """Batches of what somebody gave, under the model's own names: the first sample alone, then several at once.

    arrays:    under the served names, samples along the first axis
    renamings: of the inputs
    where:     what messages call the arrays

    ValueError with the cure if they do not fit the interface.
    """
    served = {name.own: name.served for name in renamings}
    expected = {served.get(spec.name, spec.name): spec for spec in interface.inputs}
    for name in arrays:
        if name not in expected:
            raise ValueError(f"{where} holds {name!r}, which is no input; the inputs are {', '.join(expected)}")
    if missing := [name for name in expected if name not in arrays]:
        raise ValueError(f"{where} has no array {missing[0]!r}; it needs one for each input: {', '.join(expected)}")
    fitting = {spec.name: _fitting(name, arrays[name], spec, where) for name, spec in expected.items()}
    counts = {served.get(name, name): len(tensor) for name, tensor in fitting.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        told = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise ValueError(f"{where} must hold the same number of samples for each input, at least 1, not {told}")
    low, high = _batches(interface, profiles)
    (count,) = set(counts.values())
    picked = np.unique(np.linspace(0, count - 1, min(count, MOST_GIVEN)).round().astype(np.int64))
    cut = list(_cut(len(picked), low, high))
    if not cut:
        raise ValueError(f"{where} holds {count} samples, and the engine takes at least {low} at once; give it more")
    return [{name: tensor[picked[start:end]] for name, tensor in fitting.items()} for start, end in cut]


def batch_of(case: Mapping[str, Tensor]) -> int:
    """How many samples a case holds: the first size that all its inputs have in common, else 1."""
    sizes = {tensor.shape[0] for tensor in case.values() if tensor.ndim}
    return sizes.pop() if len(sizes) == 1 else 1


def _cut(count: int, low: int, high: int) -> Iterator[tuple[int, int]]:
    """(start, end) of batches of a size from `low` to `high`; what is left over and too few stays out."""
    start, size = 0, low
    while start + low <= count:
        end = min(count, start + size)
        yield start, end
        start, size = end, min(high, max(low, _BATCH))


def _batches(interface: Interface, profiles: Sequence[Profile]) -> tuple[int, int]:
    """(least, most) batch sizes that every input and every profile takes."""
    sizes = [(spec.shape[0], spec.shape[0]) for spec in interface.inputs if spec.shape and spec.shape[0] > 0]
    sizes += [(shape.min[0], shape.max[0]) for profile in profiles for shape in profile.shapes if shape.min]
    low = max((size for size, _ in sizes), default=1)
    return low, max(low, min((size for _, size in sizes), default=_BATCH))


def _fitting(name: str, array: Tensor, spec: TensorSpec, where: str) -> Tensor:
    if spec.datatype == "BYTES" and array.dtype.kind in "SU":
        flat = np.empty(array.size, DTYPES["BYTES"])
        flat[:] = [e.encode() if isinstance(e, str) else bytes(e) for e in array.ravel().tolist()]
        array = flat.reshape(array.shape)
    if array.dtype != DTYPES[spec.datatype]:
        try:
            has = datatype_of(array)
        except KeyError:
            has = str(array.dtype)
        wanted = "texts" if spec.datatype == "BYTES" else f"numpy's {DTYPES[spec.datatype]}"
        raise ValueError(f"{where}: {name!r} is {has}, expected {spec.datatype}; save it as {wanted}")
    rest = spec.shape[1:]
    if array.ndim != len(spec.shape) or any(e not in (-1, g) for e, g in zip(rest, array.shape[1:], strict=True)):
        dimensions = ",".join(["samples", *("?" if size < 0 else str(size) for size in rest)])
        raise ValueError(f"{where}: {name!r} has shape {list(array.shape)}, expected [{dimensions}]")
    return array


def _filled(spec: TensorSpec, batch: int, size: int) -> tuple[int, ...]:
    return tuple((batch if axis == 0 else size) if dim < 0 else dim for axis, dim in enumerate(spec.shape))


def _elements(point: Point) -> int:
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in point.shapes.values())


def _fixed(name: str) -> str | None:
    """What an input is for, as far as its name gives it away: random values there would be no input at all."""
    lower = name.lower()
    return next((kind for kind in ("mask", "position", "token_type", "segment") if kind in lower), None)


def _is_drawn_integer(spec: TensorSpec) -> bool:
    return DTYPES[spec.datatype].kind in "iu" and _fixed(spec.name) is None


def _end(dtype: np.dtype[Any], vocabulary: int) -> int:
    return min(vocabulary, int(np.iinfo(dtype).max) + 1)


def _drawn(spec: TensorSpec, shape: tuple[int, ...], vocabulary: int, chance: np.random.Generator) -> Tensor:
    dtype = DTYPES[spec.datatype]
    match _fixed(spec.name):
        case "mask":
            return np.full(shape, b"1", dtype) if dtype.kind == "O" else np.ones(shape, dtype)
        case "position" if shape and dtype.kind in "iu":
            return np.broadcast_to(np.arange(shape[-1], dtype=dtype), shape).copy()
        case "token_type" | "segment" if dtype.kind in "iu":
            return np.zeros(shape, dtype)
        case _:
            pass
    match dtype.kind:
        case "f":
            return chance.standard_normal(shape).astype(dtype)
        case "b":
            return np.ones(shape, dtype)
        case "O":
            words = np.empty(int(np.prod(shape, dtype=np.int64)), dtype)
            words[:] = [b"sample %d" % number for number in chance.integers(0, 1000, len(words))]
            return words.reshape(shape)
        case _:
            return chance.integers(0, _end(dtype, vocabulary), shape).astype(dtype)
