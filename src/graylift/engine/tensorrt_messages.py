"""What TensorRT says while it works, as values: its errors, the layers of the engine it made, how far it is.

All three come through objects that TensorRT calls; they derive from classes of the vendor's module, which is given.
Called by `tensorrt_build` and `tensorrt_run`.
"""

# The vendor's classes are unknown to the type checker; each value is given a type as it arrives.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUntypedBaseClass=false, reportUnknownParameterType=false

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from graylift.domain.engine import Layer
from graylift.engine.progress import Progress

_DATATYPES = {
    "Float": "FP32",
    "Half": "FP16",
    "BFloat16": "BF16",
    "Int64": "INT64",
    "Int32": "INT32",
    "Int8": "INT8",
    "UInt8": "UINT8",
    "Bool": "BOOL",
    "FP8": "FP8",
    "Int4": "INT4",
    "FP4E2M1": "FP4",
}

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), .*?Outputs: \[(?:.*?Datatype: (?P<datatype>\w+))?", re.MULTILINE
)


@dataclass(slots=True)
class Heard:
    """Of one build or load: what was said at level ERROR or worse, and the engine's layers where they were told."""

    errors: list[str] = field(default_factory=list[str])
    layers: list[Layer] = field(default_factory=list[Layer])

    def why(self, otherwise: str) -> str:
        """The last errors on one line, without the places in TensorRT's own source."""
        texts = list(dict.fromkeys(filter(None, map(_plain, self.errors))))
        return "; ".join(texts[-3:]) or otherwise


def listener(trt: Any) -> tuple[Any, Heard]:
    """An ILogger that writes into the Heard beside it, and nowhere else: what it says may be long, or of inputs."""
    heard = Heard()
    severe = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

    class Listener(trt.ILogger):
        def log(self, severity: Any, message: str) -> None:
            if severity in severe:
                heard.errors.append(message)
            elif "LayerType: " in message:
                heard.layers.extend(layers_from_text(message))

    return Listener(), heard


def layers_from_text(text: str) -> tuple[Layer, ...]:
    """The layers of the engine as a build with detailed verbosity tells them, in order of execution."""
    return tuple(
        Layer(found["name"], found["kind"], _DATATYPES.get(found["datatype"] or "", found["datatype"]))
        for found in _LAYER.finditer(text)
    )


def layers_from_inspector(document: Any) -> tuple[Layer, ...]:
    """The same, from the JSON of the engine inspector: what it is on any GPU that can load the engine."""
    layers: list[Layer] = []
    for entry in document["Layers"]:
        outputs: Sequence[Any] = entry.get("Outputs") or ()
        datatype = str(outputs[0].get("Datatype", "")) if outputs else ""
        layers.append(Layer(entry["Name"], entry["LayerType"], _DATATYPES.get(datatype, datatype or None)))
    return tuple(layers)


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """TensorRT's phases, nested, as one share of the whole: each takes the step of its parent that is under way."""

    def __init__(self) -> None:
        self._running: dict[str, _Phase] = {}

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._running[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, number: int) -> None:
        """number: from 0, of the step that is complete."""
        if name in self._running:
            self._running[name].done = number + 1

    def finish(self, name: str) -> None:
        self._running.pop(name, None)

    def share(self) -> float:
        """From 0 to 1, along the phases that began last."""
        share, size, parent = 0.0, 1.0, None
        while True:
            name, phase = next(((n, p) for n, p in reversed(self._running.items()) if p.parent == parent), ("", None))
            if phase is None:
                return min(share, 1.0)
            share += size * min(phase.done / phase.steps, 1.0)
            size /= phase.steps
            parent = name


def progress_monitor(trt: Any, progress: Progress, stopped: Callable[[], bool]) -> tuple[Any, list[Exception]]:
    """An IProgressMonitor, and what went wrong in it: an exception must not cross TensorRT, so the build is told to
    stop (as it is when `stopped` says so) and the exception is kept for whoever started it."""
    phases = Phases()
    failures: list[Exception] = []

    class Monitor(trt.IProgressMonitor):
        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            phases.start(name, parent, steps)

        def step_complete(self, name: str, number: int) -> bool:
            phases.step(name, number)
            try:
                progress(name, phases.share())
            except Exception as exc:  # noqa: BLE001  (kept, and raised once TensorRT has returned)
                failures.append(exc)
            return not failures and not stopped()

        def phase_finish(self, name: str) -> None:
            phases.finish(name)

    return Monitor(), failures


@contextmanager
def interrupts_held() -> Generator[Callable[[], bool]]:
    """SIGINT is noted instead of raised: Python would raise it in a call from TensorRT, which ends the process.

    Gives the question whether it came; on leaving, KeyboardInterrupt if it did. Only the main thread has signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            raise KeyboardInterrupt


def _plain(text: str) -> str:
    text = " ".join(text.split())
    text = re.sub(r"^(I\w+::\w+: )?Error Code \d+: ", "", text)
    text = re.sub(r"^\[?\w+\.cpp::\w+::\d+\]? (Error Code \d+: )?", "", text)
    return re.sub(r"\.? ?\(?In [\w:~]+(\(\))? at \S+?:\d+\)?", "", text).strip()
