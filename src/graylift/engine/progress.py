"""How a build tells where it is: in its own process by a call, to another process by a line of JSON.

A step is a few words that a person reads ("reading the model", "Building engine"); the share says how much of the
whole build is done, from 0 to 1, and never falls. Called by the vendors, `artefacts`, `__main__` and `child`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

Progress = Callable[[str, float], None]
"""(step, share done). Called often, from the thread that builds; it must return at once."""


def unheard(step: str, done: float) -> None:
    """Nobody asks how far it is."""
    del step, done


def part_of(progress: Progress, begin: float, end: float) -> Progress:
    """For a piece of the work that takes the whole from `begin` to `end`."""
    return lambda step, done: progress(step, begin + (end - begin) * done)


@dataclass(slots=True)
class Sparing:
    """Passes on a new step, and within a step each further percent: a vendor may report every layer."""

    progress: Progress
    step: str = ""
    done: float = -1.0

    def __call__(self, step: str, done: float) -> None:
        done = min(max(done, self.done, 0.0), 1.0)
        if step != self.step or done - self.done >= 0.01:
            self.step, self.done = step, done
            self.progress(step, done)


def line_from_progress(step: str, done: float) -> bytes:
    """One line of JSON, newline included."""
    return orjson.dumps({"step": step, "done": round(done, 3)}) + b"\n"


def progress_from_line(line: bytes) -> tuple[str, float] | None:
    """What `line_from_progress` wrote; None for any other line."""
    try:
        document: Any = orjson.loads(line)
        step, done = document["step"], document["done"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return (step, float(done)) if isinstance(step, str) and isinstance(done, (int, float)) else None
