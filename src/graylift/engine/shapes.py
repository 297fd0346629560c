"""Profiles against the graph that they are for. Called by every vendor before it builds; `profiles` holds requests
against them afterwards. Imports nothing of a vendor, and `onnx` for its types alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graylift.domain.engine import Profile, ProfileShape
from graylift.errors import EngineError

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
            # Some exporters write -1 for a size that is not known.
            GraphInput(value.name, tuple(d.dim_value if _is_fixed(d) else d.dim_param for d in dims))
        )
    return tuple(inputs)


def check_profiles(source: str, inputs: Sequence[GraphInput], profiles: Sequence[Profile]) -> None:
    """EngineError, naming every dimension, unless each profile fits the graph and gives each dynamic input a range."""
    problems = [
        f"profile {number}: {problem}"
        for number, profile in enumerate(profiles, start=1)
        for problem in _problems(inputs, profile)
    ]
    if problems:
        raise EngineError(f"{source}: {'; '.join(problems)}")


def demand_profiles(source: str, inputs: Sequence[GraphInput], profiles: Sequence[Profile]) -> None:
    """EngineError, with one to copy, if a runtime that builds for ranges of shapes is given none."""
    dynamic = [given for given in inputs if given.is_dynamic]
    if dynamic and not profiles:
        raise EngineError(
            f"{source}: {_listed(dynamic)} {'has' if len(dynamic) == 1 else 'have'} dynamic dimensions, and the "
            f"runtime builds for a range of each; {_proposal(dynamic)}"
        )


def _is_fixed(dim: onnx.TensorShapeProto.Dimension) -> bool:
    return dim.HasField("dim_value") and dim.dim_value >= 0


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


def _listed(inputs: Iterable[GraphInput]) -> str:
    return ", ".join(map(str, inputs))
