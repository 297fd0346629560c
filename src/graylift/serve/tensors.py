"""The front of an engine of tensors: Open Inference Protocol v2, batched, over execution contexts."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load
from graylift.serve.app import App, Stage
from graylift.serve.batcher import Batcher
from graylift.serve.http import Receive, Scope, Send
from graylift.serve.metrics import Metrics
from graylift.serve.model import ServedModel, served_model
from graylift.serve.options import Options
from graylift.serve.policy import BatchPolicy
from graylift.serve.stacking import objection
from graylift.serve.warmup import warm

log = logging.getLogger(__name__)


class TensorFront:
    """A `Front`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._pool = ThreadPoolExecutor(options.contexts, thread_name_prefix="context")
        metrics = Metrics(options.service, options.version)
        self._batcher = Batcher(self._pool, options.contexts, options.max_queue, metrics)
        self._app = App(options.service, options.version, self._batcher, metrics, max_body_bytes=options.max_body_bytes)

    @property
    def stage(self) -> Stage:
        return self._app.stage

    @stage.setter
    def stage(self, stage: Stage) -> None:
        self._app.stage = stage

    @property
    def running(self) -> int:
        return self._batcher.running

    @property
    def waiting(self) -> int:
        return self._batcher.waiting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def start(self) -> None:
        """Both in a context's thread: the loop answers health checks meanwhile."""
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        model = await loop.run_in_executor(self._pool, _loaded, self._options)
        self._app.model = model
        log.info(
            "loaded: %s, %s -> %s, in %.2f s",
            self._options.artefact,
            ", ".join(map(str, model.interface.inputs)),
            ", ".join(map(str, model.interface.outputs)),
            time.monotonic() - began,
        )
        warmed = await loop.run_in_executor(self._pool, partial(warm, model, profiles=model.profiles))
        if warmed.problem is None:
            log.info(
                "warmed: %d runs, first %.1f ms, last %.1f ms", warmed.runs, warmed.first_s * 1e3, warmed.last_s * 1e3
            )
        else:
            log.warning("warmed: not fully (%d runs), it fails on zeros: %s", warmed.runs, warmed.problem)
        if self._options.max_batch > 1:
            why_not = await loop.run_in_executor(self._pool, objection, model, warmed.size, model.profiles)
            if why_not is None:
                self._batcher.policy = BatchPolicy(self._options.max_batch, self._options.max_queue_delay_s)
                log.info(
                    "batching: up to %d rows a run, %g ms for company",
                    self._options.max_batch,
                    self._options.max_queue_delay_s * 1e3,
                )
            else:
                log.warning("batching: off, each request runs alone: %s", why_not)


def _loaded(options: Options) -> ServedModel:
    """Runs in a context's thread: the runtime is imported here, and a large engine takes a while."""
    store = ArtefactStore(options.artefacts)
    runner = load(store, options.artefact, options.contexts)
    manifest = store.manifest(options.artefact)
    return served_model(runner, manifest.runtime.value, options.inputs, options.outputs, manifest.profiles)
