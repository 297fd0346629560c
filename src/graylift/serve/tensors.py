"""The front of an engine of tensors: Open Inference Protocol v2, batched, over execution contexts."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from graylift.domain.spec import AUTO
from graylift.serve.app import App
from graylift.serve.batcher import Batcher
from graylift.serve.http import Receive, Scope, Send
from graylift.serve.inference import Inference, Stage
from graylift.serve.metrics import Metrics
from graylift.serve.model import ServedModel
from graylift.serve.options import MOST_CONTEXTS, Options
from graylift.serve.starting import start


class TensorFront:
    """An ASGI application that is started once and told by its stage to drain. inference: what gRPC asks, too"""

    def __init__(self, options: Options) -> None:
        self._options = options
        contexts = MOST_CONTEXTS if options.contexts == AUTO else options.contexts
        self._pool = ThreadPoolExecutor(contexts, thread_name_prefix="context")
        metrics = Metrics(options.service, options.version)
        self._batcher = Batcher(self._pool, contexts, options.max_queue, metrics)
        self.inference = Inference(options.service, options.version, self._batcher, metrics)
        self._app = App(self.inference, max_body_bytes=options.max_body_bytes)

    @property
    def stage(self) -> Stage:
        return self.inference.stage

    @stage.setter
    def stage(self, stage: Stage) -> None:
        self.inference.stage = stage

    @property
    def running(self) -> int:
        return self._batcher.running

    @property
    def waiting(self) -> int:
        return self._batcher.waiting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def start(self) -> None:
        """In a context's thread: the loop answers health checks meanwhile."""
        loop = asyncio.get_running_loop()

        def loaded(model: ServedModel) -> None:
            loop.call_soon_threadsafe(setattr, self.inference, "model", model)

        started = await loop.run_in_executor(self._pool, start, self._options, loaded)
        self.inference.model = started.model
        self._batcher.policy = started.policy
        self._batcher.quick_elements = started.quick_elements
        self._batcher.widen(started.contexts)
        self.inference.metrics.serves(
            started.manifest.digest,
            started.manifest.runtime.value,
            self._options.revision_id,
            contexts=started.contexts,
            max_rows=started.policy.max_rows,
        )
