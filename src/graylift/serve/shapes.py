"""Which shapes the answered requests had, and how often: what profiles are suggested from. Kept in memory by `app`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import orjson

from graylift.protocols.datatypes import Tensor

MOST = 1000
"""Shapes that are told apart. Who sends ever new ones must not fill the memory."""


class ShapeCounts:
    """Counts by the shapes of all inputs together."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[tuple[str, tuple[int, ...]], ...]] = Counter()
        self._others = 0

    def add(self, inputs: Mapping[str, Tensor], own_names: Mapping[str, str]) -> None:
        """One request. Profiles are written in the model's own names, so they are counted under those."""
        shapes = tuple(sorted((own_names[name], tensor.shape) for name, tensor in inputs.items()))
        if shapes in self._counts or len(self._counts) < MOST:
            self._counts[shapes] += 1
        else:
            self._others += 1

    def document(self) -> bytes:
        """JSON, the most frequent shapes first. `others`: requests of shapes beyond those that are told apart."""
        shapes = [{"inputs": dict(shapes), "count": count} for shapes, count in self._counts.most_common()]
        return orjson.dumps({"shapes": shapes, "others": self._others})
