"""Requests against profiles: which one holds them, and what is said if none does.

Knows no runtime. Called by `runner` for every request of an engine with profiles, and by the vendors; whether profiles
fit a graph, `shapes` knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graylift.domain.engine import Profile
from graylift.errors import InputError


def profile_for(profiles: Sequence[Profile], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Number of the first profile that holds these shapes by input. InputError, with the limits, if none does.

    The shapes have the numbers of dimensions that the interface says (`runner.check_inputs`).
    """
    for number, profile in enumerate(profiles):
        if _is_inside(shapes, profile):
            return number
    named = {shape.input for profile in profiles for shape in profile.shapes}
    given = ", ".join(f"{name} {_sizes(shape)}" for name, shape in shapes.items() if name in named)
    raise InputError(f"shapes outside what this engine was built for: got {given}; it takes {_limits(profiles)}")


def bounds_of(profiles: Sequence[Profile]) -> dict[str, tuple[tuple[int, int], ...]]:
    """(smallest, largest) of each dimension over all profiles, by input."""
    bounds: dict[str, tuple[tuple[int, int], ...]] = {}
    for shape in (shape for profile in profiles for shape in profile.shapes):
        ranges = tuple(zip(shape.min, shape.max, strict=True))
        known = bounds.get(shape.input, ranges)
        bounds[shape.input] = tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(known, ranges, strict=True))
    return bounds


def _is_inside(shapes: Mapping[str, tuple[int, ...]], profile: Profile) -> bool:
    return all(
        all(low <= given <= high for low, given, high in zip(p.min, shapes[p.input], p.max, strict=True))
        for p in profile.shapes
    )


def _limits(profiles: Sequence[Profile]) -> str:
    """What the profiles take, in words: `x [1,4] to [8,4]`, one after the other."""
    return "; or ".join(
        ", ".join(f"{shape.input} {_sizes(shape.min)} to {_sizes(shape.max)}" for shape in profile.shapes)
        for profile in profiles
    )


def _sizes(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
