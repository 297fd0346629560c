"""One request from tensors to tensors, whichever front it came through: is it right, its turn, its answer.

Knows nothing of HTTP or gRPC: a front reads bytes into a request, asks here, and writes the outputs or the error in
its own words. `server` sets `stage` and `model`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from enum import Enum

from graylift.engine.runner import check_inputs
from graylift.errors import EngineError, InputError, NotServed, ProtocolError, Refusal
from graylift.protocols.datatypes import Tensor
from graylift.protocols.open_inference import InferenceRequest, unknown_output
from graylift.serve.batcher import Batcher
from graylift.serve.metrics import Metrics
from graylift.serve.model import ServedModel
from graylift.serve.shapes import ShapeCounts

log = logging.getLogger(__name__)

Leave = Callable[[], None]
"""To be called when the client has left."""


class Stage(Enum):
    """STARTING: loads or warms up. READY. DRAINING: told to end; answers what still comes, and asks for no more."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Inference:
    """What the fronts share. `model` is None until it is loaded."""

    def __init__(self, service: str, version: str, batcher: Batcher, metrics: Metrics) -> None:
        self.stage = Stage.STARTING
        self.model: ServedModel | None = None
        self.service = service
        self.version = version
        self.batcher = batcher
        self.metrics = metrics
        self.shapes = ShapeCounts()
        self._failures: Counter[str] = Counter()

    def serves(self, name: str, version: str) -> bool:
        """Whether clients who say so mean this model. version: "" is any"""
        return name == self.service and version in ("", self.version)

    def served(self) -> ServedModel:
        """The model, once requests may come. NotServed before."""
        if self.model is None or self.stage is Stage.STARTING:
            raise NotServed("the model is not ready yet", Refusal.NOT_READY)
        return self.model

    async def outputs(self, request: InferenceRequest, until: Callable[[Leave], None]) -> dict[str, Tensor] | None:
        """All outputs; None if the client left before they were there: what had not begun then costs nobody anything.

        until: is given what to call when the client leaves
        Raises NotServed; ProtocolError for an output that is not there and InputError for inputs that do not fit,
        before anything is computed; NotComputable and EngineError.
        """
        model = self.served()
        try:
            _check_outputs(request, model)
            # Before it waits, and before it spoils a run that others share.
            check_inputs(model.interface, request.inputs, model.profiles)
            job = self.batcher.join(model.infer, request.inputs, request.turn.priority, request.turn.timeout_s)
            until(lambda: self.batcher.give_up(job))
            try:
                outputs = await job.answer
            except asyncio.CancelledError:
                self.metrics.failed("CANCELED")
                if _is_cancelled():
                    self.batcher.give_up(job)
                    raise
                return None
        except NotServed:
            self.metrics.failed("REJECTED")
            raise
        except (ProtocolError, InputError):
            self.metrics.failed("OTHER")
            raise
        except EngineError as exc:
            self.metrics.failed("BACKEND")
            self._count_failure(str(exc))
            raise
        self.shapes.add(request.inputs, model.own_inputs)
        return outputs

    def _count_failure(self, message: str) -> None:
        """Log the first of a kind, the tenth, the hundredth...: a model that fails always must not fill the disk."""
        self._failures[message] += 1
        count = self._failures[message]
        if count == 10 ** (len(str(count)) - 1):
            log.warning("%s (%d so far)", message, count)


def _is_cancelled() -> bool:
    """The request's own task, not what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _check_outputs(request: InferenceRequest, model: ServedModel) -> None:
    """Before inference, so that a mistake costs nothing."""
    if request.outputs is None:
        return
    known = tuple(spec.name for spec in model.interface.outputs)
    for asked in request.outputs:
        if asked.name not in known:
            raise ProtocolError(unknown_output(asked.name, known))
