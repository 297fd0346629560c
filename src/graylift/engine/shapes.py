"""Profiles against the graph they are for, and requests against profiles. Neutral: any runtime that builds for a range
of shapes calls it. Imports nothing of a vendor, and `onnx` for its types alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graylift.domain.engine import Profile, ProfileShape
from graylift.engine.profiles import is_inside
from graylift.errors import EngineError, InputError

if TYPE_CHECKING:
    import onnx

_NAMELESS = ("", "?")
"""Names of dynamic dimensions that say nothing: two of one name need not be equal."""


@dataclass(frozen=True, slots=True)
class GraphInput:
    """An input as the ONNX graph declares it. dims: a fixed size, or the name of a dynamic dimension ("" if none)."""

    name: str
    dims: tuple[int | str, ...]

    @property
    def is_dynamic(self) -> bool:
        return any(isinstance(dim, str) for dim in self.dims)

    def __str__(self) -> str:
        return f"{self.name}[{','.join(str(dim) or '?' for dim in self.dims)}]"


def graph_inputs(model: onnx.ModelProto, source: str) -> tuple[GraphInput, ...]:
    """What a caller must give, in the order of the graph. EngineError for an input without a rank."""
    constants = {constant.name for constant in model.graph.initializer}
    inputs: list[GraphInput] = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        if not value.type.tensor_type.HasField("shape"):
            raise EngineError(
                f"{source}: input {value.name!r} declares no shape, not even its number of dimensions; "
                "export the model with the shape of its inputs (dimensions may be dynamic)"
            )
        dims = value.type.tensor_type.shape.dim
        inputs.append(
            GraphInput(value.name, tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in dims))
        )
    return tuple(inputs)


def check_profiles(source: str, inputs: Sequence[GraphInput], profiles: Sequence[Profile]) -> None:
    """EngineError, naming every dimension, unless each profile fits the graph and gives each dynamic input a range."""
    dynamic = [given for given in inputs if given.is_dynamic]
    if dynamic and not profiles:
        raise EngineError(
            f"{source}: {_listed(dynamic)} {'has' if len(dynamic) == 1 else 'have'} dynamic dimensions, and the "
            f"runtime builds for a range of each; {_proposal(dynamic)}"
        )
    problems = [
        f"profile {number}: {problem}"
        for number, profile in enumerate(profiles, start=1)
        for problem in _problems(inputs, profile)
    ]
    if problems:
        raise EngineError(f"{source}: {'; '.join(problems)}")


def profile_for(profiles: Sequence[Profile], inputs: Mapping[str, tuple[int, ...]]) -> int:
    """Number of the first profile that holds these shapes by input. InputError, with the ranges, if none does.

    The shapes have the numbers of dimensions that the interface says (`runner.check_inputs`).
    """
    for number, profile in enumerate(profiles):
        if is_inside(inputs, profile):
            return number
    given = ", ".join(f"{name}[{_sizes(inputs[name])}]" for name in sorted(_named(profiles)))
    ranges = " or ".join(
        ", ".join(f"{shape.input}[{_sizes(shape.min)}]..[{_sizes(shape.max)}]" for shape in profile.shapes)
        for profile in profiles
    )
    raise InputError(f"the engine is built for {ranges}; this request has {given}")


def _problems(inputs: Sequence[GraphInput], profile: Profile) -> Iterator[str]:
    known = {given.name: given for given in inputs}
    shapes = {shape.input: shape for shape in profile.shapes}
    for name in shapes.keys() - known.keys():
        yield f"the model has no input {name!r}; it takes {_listed(inputs)}"
    sizes: dict[str, tuple[str, tuple[int, int, int]]] = {}
    for given in inputs:
        shape = shapes.get(given.name)
        if shape is None:
            if given.is_dynamic:
                yield f"{given} has dynamic dimensions and no range; {_proposal([given])}"
            continue
        if len(shape.min) != len(given.dims):
            yield f"{given} has {len(given.dims)} dimensions, the profile gives it {len(shape.min)}"
            continue
        for axis, (dim, *range_) in enumerate(zip(given.dims, shape.min, shape.opt, shape.max, strict=True)):
            low, best, high = range_
            if isinstance(dim, int):
                if not low == high == dim:
                    yield f"dimension {axis} of {given} is {dim} in the graph, the profile asks for {low}..{high}"
            elif dim not in _NAMELESS:
                place, others = sizes.setdefault(dim, (given.name, (low, best, high)))
                if others != (low, best, high):
                    yield (
                        f"dimension {dim!r} is one size in the graph, but {others[0]}..{others[2]} (opt {others[1]}) "
                        f"in {place!r} and {low}..{high} (opt {best}) in {given.name!r}"
                    )


def _proposal(inputs: Sequence[GraphInput]) -> str:
    """A profile to copy and correct, as the command and as the release file take it."""
    shapes = [_proposed(given) for given in inputs]
    texts = " ".join(
        f"--profile {s.input}={','.join('x'.join(map(str, sizes)) for sizes in (s.min, s.opt, s.max))}" for s in shapes
    )
    entries = ", ".join(f"{s.input}: {{min: {list(s.min)}, opt: {list(s.opt)}, max: {list(s.max)}}}" for s in shapes)
    return f"give the sizes you serve, as in {texts} (in the release file: profiles: [{{{entries}}}])"


def _proposed(given: GraphInput) -> ProfileShape:
    """The first dimension is a batch in nearly every model; of the others only the person knows the sizes."""

    def sizes(batch: int, other: int) -> tuple[int, ...]:
        return tuple(
            dim if isinstance(dim, int) else batch if axis == 0 else other for axis, dim in enumerate(given.dims)
        )

    return ProfileShape(given.name, sizes(1, 1), sizes(8, 128), sizes(32, 512))


def _named(profiles: Iterable[Profile]) -> set[str]:
    return {shape.input for profile in profiles for shape in profile.shapes}


def _sizes(sizes: Sequence[int]) -> str:
    return ",".join(map(str, sizes))


def _listed(inputs: Iterable[GraphInput]) -> str:
    return ", ".join(map(str, inputs))
