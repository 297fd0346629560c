"""Profiles out of the shapes that requests really had. Pure: counts in, proposals out. Called by the commands.

An engine is fastest at a profile's `opt` and slower the further away a request is, in either direction; each profile
costs memory and time to build. So as few as will do are proposed, each around the request in its middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import orjson

from graylift.domain.engine import Profile, ProfileShape

Shapes = Mapping[str, tuple[int, ...]]
"""Of one request: a shape for each input, under the model's own names."""

_WORTH_IT = 0.5
"""One more profile is proposed if it brings requests nearer to their opt by so many doublings of the size, in the
mean."""
_MOST_GROUPS = 200
"""Sizes that are told apart; more are merged with their neighbours. Splitting takes time in the square of them."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A profile, and how many of the recorded requests it is for.

    distance: mean over those of |log2(elements of the request / elements at opt)|; 1 is twice or half the size
    """

    profile: Profile
    requests: int
    distance: float


def suggest_profiles(counts: Sequence[tuple[Shapes, int]], most: int = 3) -> tuple[Suggestion, ...]:
    """At most `most` profiles that together take every recorded request, the smallest first. opt is a shape that was
    asked for: the median request by size.

    counts: (shapes, how many requests had them)
    ValueError with the cure if there is nothing to go by, or the requests are not of one model.
    """
    kept = [(shapes, count) for shapes, count in counts if count > 0]
    if not kept:
        raise ValueError("no request was recorded: let the model serve some traffic first, then ask again")
    first = {name: len(shape) for name, shape in kept[0][0].items()}
    for shapes, _ in kept:
        if {name: len(shape) for name, shape in shapes.items()} != first:
            raise ValueError(f"the requests are not of one model: {_told(kept[0][0])} and {_told(shapes)}")
        if any(size < 1 for shape in shapes.values() for size in shape):
            raise ValueError(f"a request without elements, {_told(shapes)}, can have no profile; leave it out")
    groups = _grouped(sorted(kept, key=lambda entry: _size(entry[0])))
    best = _split(groups, 1)
    for number in range(2, min(most, len(groups)) + 1):
        finer = _split(groups, number)
        if _mean_distance(best) - _mean_distance(finer) < _WORTH_IT:
            break
        best = finer
    return tuple(_suggestion([entry for group in part for entry in group]) for part in best)


def counts_from_json(text: bytes) -> list[tuple[Shapes, int]]:
    """What a model server answers at /shapes. ValueError if it is something else."""
    try:
        entries: list[dict[str, Any]] = orjson.loads(text)["shapes"]
        return [
            ({str(name): tuple(int(size) for size in shape) for name, shape in e["inputs"].items()}, int(e["count"]))
            for e in entries
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ValueError(
            'this is no record of shapes; expected {"shapes": [{"inputs": {"x": [8, 128]}, "count": 40}]}, '
            "as a model server answers at /v2/models/SERVICE/shapes"
        ) from exc


_Entry = tuple[Shapes, int]
_Group = list[_Entry]


def _size(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _grouped(entries: Sequence[_Entry]) -> list[_Group]:
    """Entries of one size together; if there are too many sizes, neighbours together."""
    groups: list[_Group] = []
    for entry in entries:
        if groups and _size(groups[-1][0][0]) == _size(entry[0]):
            groups[-1].append(entry)
        else:
            groups.append([entry])
    step = math.ceil(len(groups) / _MOST_GROUPS)
    return [[entry for group in groups[at : at + step] for entry in group] for at in range(0, len(groups), step)]


def _split(groups: Sequence[_Group], parts: int) -> list[Sequence[_Group]]:
    """The cut into so many neighbouring parts with the least total distance to each part's median."""
    weights = [sum(count for _, count in group) for group in groups]
    places = [math.log2(_size(group[0][0])) for group in groups]
    heap = [0, *accumulate(weights)]
    moment = [0.0, *accumulate(w * p for w, p in zip(weights, places, strict=True))]

    def cost(start: int, end: int) -> float:
        middle = _median(heap, start, end)
        left = places[middle] * (heap[middle] - heap[start]) - (moment[middle] - moment[start])
        right = (moment[end] - moment[middle]) - places[middle] * (heap[end] - heap[middle])
        return left + right

    # ends[part][end]: (least cost of the groups before `end` in part + 1 parts, where the last of them begins)
    ends = [[(0.0, 0)] + [(cost(0, end), 0) for end in range(1, len(groups) + 1)]]
    for _ in range(1, parts):
        before = ends[-1]
        ends.append(
            [
                min(((before[cut][0] + cost(cut, end), cut) for cut in range(1, end)), default=(math.inf, 0))
                for end in range(len(groups) + 1)
            ]
        )
    cuts = [len(groups)]
    for part in reversed(ends):
        cuts.append(part[cuts[-1]][1])
    return [groups[start:end] for end, start in pairwise(cuts)][::-1]


def _median(heap: Sequence[int], start: int, end: int) -> int:
    """The group from `start` to before `end` that holds the request in the middle."""
    half = (heap[start] + heap[end]) / 2
    low, high = start, end - 1
    while low < high:
        middle = (low + high) // 2
        if heap[middle + 1] < half:
            low = middle + 1
        else:
            high = middle
    return low


def _mean_distance(parts: Sequence[Sequence[_Group]]) -> float:
    suggestions = [_suggestion([entry for group in part for entry in group]) for part in parts]
    requests = sum(suggestion.requests for suggestion in suggestions)
    return sum(suggestion.distance * suggestion.requests for suggestion in suggestions) / requests


def _suggestion(entries: Sequence[_Entry]) -> Suggestion:
    """min and max of each dimension, and as opt the shape of the request in the middle; of several of that size the
    one asked for most."""
    requests = sum(count for _, count in entries)
    ordered = sorted(entries, key=lambda entry: _size(entry[0]))
    reached = list(accumulate(count for _, count in ordered))
    middle = _size(ordered[next(i for i, total in enumerate(reached) if total >= requests / 2)][0])
    best, _ = max((entry for entry in ordered if _size(entry[0]) == middle), key=lambda entry: entry[1])
    shapes: list[ProfileShape] = []
    for name in sorted(best):
        dims = list(zip(*(seen[name] for seen, _ in entries), strict=True))
        shapes.append(ProfileShape(name, tuple(map(min, dims)), tuple(best[name]), tuple(map(max, dims))))
    away = sum(count * abs(math.log2(_size(seen) / middle)) for seen, count in entries)
    return Suggestion(Profile(tuple(shapes)), requests, away / requests)


def _told(shapes: Shapes) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
