"""Profiles against interfaces: whether they fit a model when it is built, and whether a request falls into one.

Knows no runtime. Called by the vendors, and by `runner` for every request of an engine with profiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graylift.domain.engine import Interface, Profile, ProfileShape, TensorSpec
from graylift.errors import EngineError


def check_profiles(source: str, interface: Interface, profiles: Sequence[Profile]) -> None:
    """EngineError unless each profile has shapes that the model allows for each input with a dynamic dimension."""
    specs = {spec.name: spec for spec in interface.inputs}
    dynamic = [name for name, spec in specs.items() if -1 in spec.shape]
    for number, profile in enumerate(profiles, start=1):
        for shape in profile.shapes:
            if shape.input not in specs:
                raise EngineError(
                    f"{source}: profile {number} has shapes for {shape.input!r}, which is no input; "
                    f"the model takes {', '.join(map(str, interface.inputs))}"
                )
            _check_shape(source, number, specs[shape.input], shape)
        if missing := sorted(set(dynamic) - {shape.input for shape in profile.shapes}):
            raise EngineError(
                f"{source}: profile {number} has no shapes for {', '.join(missing)}, which have dynamic dimensions; "
                "give min, opt and max for each of them"
            )


def bounds_of(profiles: Sequence[Profile]) -> dict[str, tuple[tuple[int, int], ...]]:
    """(smallest, largest) of each dimension over all profiles, by input."""
    bounds: dict[str, tuple[tuple[int, int], ...]] = {}
    for shape in (shape for profile in profiles for shape in profile.shapes):
        ranges = tuple(zip(shape.min, shape.max, strict=True))
        known = bounds.get(shape.input, ranges)
        bounds[shape.input] = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(known, ranges, strict=True))
    return bounds


def is_inside(shapes: Mapping[str, tuple[int, ...]], profile: Profile) -> bool:
    """Whether every input that the profile names has a shape within its limits."""
    return all(
        all(low <= given <= high for low, given, high in zip(p.min, shapes[p.input], p.max, strict=True))
        for p in profile.shapes
    )


def limits(profiles: Sequence[Profile]) -> str:
    """What the profiles take, in words: `x [1,4] to [8,4]`, one after the other."""
    return "; or ".join(
        ", ".join(f"{shape.input} {_sizes(shape.min)} to {_sizes(shape.max)}" for shape in profile.shapes)
        for profile in profiles
    )


def _check_shape(source: str, number: int, spec: TensorSpec, shape: ProfileShape) -> None:
    if len(shape.min) != len(spec.shape):
        raise EngineError(
            f"{source}: profile {number} gives {spec.name!r} {len(shape.min)} dimensions; the model takes {spec}"
        )
    for axis, dim in enumerate(spec.shape):
        if dim >= 0 and not shape.min[axis] == shape.max[axis] == dim:
            raise EngineError(
                f"{source}: profile {number} lets dimension {axis} of {spec.name!r} be {shape.min[axis]} to "
                f"{shape.max[axis]}, but the model has it fixed at {dim}; write {dim} for min, opt and max"
            )


def _sizes(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
