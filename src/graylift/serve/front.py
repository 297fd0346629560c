"""What the server's process needs of whatever answers its requests. Implemented by `tensors` and `writing`."""

from __future__ import annotations

from typing import Protocol

from graylift.serve.http import Receive, Scope, Send
from graylift.serve.inference import Stage


class Front(Protocol):
    """An ASGI application with a life: it is started once, and told by its stage to drain."""

    @property
    def stage(self) -> Stage: ...

    @stage.setter
    def stage(self, stage: Stage) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def start(self) -> None:
        """Load and warm up, while requests are refused. EngineError if the engine cannot be served."""
        ...

    @property
    def running(self) -> int:
        """Requests at work."""
        ...

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        ...
