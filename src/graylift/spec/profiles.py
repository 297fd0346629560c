"""Profiles as people type them: `input_ids=1x8,8x128,32x512` is min, opt and max of one input.

Several inputs are several texts; an input that is named again begins the next profile. Called by the commands and by
the build process; the release file has a form of its own (`release`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from graylift.domain.engine import Profile, ProfileShape

_SHAPE = re.compile(r"\d{1,9}(?:x\d{1,9}){0,7}", re.ASCII)


def profiles_from_texts(texts: Sequence[str]) -> tuple[Profile, ...]:
    """ValueError with the cure for a text that is none, or an input without a place in the profile it falls into."""
    profiles: list[dict[str, ProfileShape]] = []
    for shape in map(shape_from_text, texts):
        place = next((profile for profile in profiles if shape.input not in profile), None)
        if place is None:
            profiles.append(place := {})
        place[shape.input] = shape
    for number, profile in enumerate(profiles[1:], start=2):
        if missing := sorted(profiles[0].keys() - profile.keys()):
            raise ValueError(f"profile {number} has no shapes for {', '.join(missing)}, which profile 1 has; add them")
    return tuple(Profile(tuple(profile[name] for name in sorted(profile))) for profile in profiles)


def shape_from_text(text: str) -> ProfileShape:
    """`input=MIN,OPT,MAX`. ValueError if it is not."""
    name, equals, ranges = text.rpartition("=")
    parts = ranges.split(",")
    if not (name and equals and len(parts) == 3 and all(_SHAPE.fullmatch(part) for part in parts)):
        raise ValueError(f"{text!r} is no profile: write NAME=MIN,OPT,MAX, as in input_ids=1x8,8x128,32x512")
    low, best, high = (tuple(int(size) for size in part.split("x")) for part in parts)
    return checked(ProfileShape(name, low, best, high))


def checked(shape: ProfileShape) -> ProfileShape:
    """The shape. ValueError unless its min, opt and max are of one length and ascend in each dimension."""
    if not len(shape.min) == len(shape.opt) == len(shape.max):
        raise ValueError(f"the shapes of {shape.input!r} have different numbers of dimensions; give each as many")
    for axis, (low, best, high) in enumerate(zip(shape.min, shape.opt, shape.max, strict=True)):
        if not 1 <= low <= best <= high:
            raise ValueError(
                f"dimension {axis} of {shape.input!r} must ascend from at least 1: min {low}, opt {best}, max {high}"
            )
    return shape


def texts_from_profiles(profiles: Sequence[Profile]) -> tuple[str, ...]:
    """What `profiles_from_texts` reads back."""
    return tuple(
        f"{shape.input}={','.join('x'.join(map(str, sizes)) for sizes in (shape.min, shape.opt, shape.max))}"
        for profile in profiles
        for shape in profile.shapes
    )
