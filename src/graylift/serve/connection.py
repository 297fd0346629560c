"""One HTTP connection: uvicorn's, which also tells at once when its client has left.

ASGI tells it to whoever awaits the next message. A task for each waiting request, only to await that, would cost the
server a third of its throughput. Given to uvicorn by `server`; `app` says what shall happen.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ON_LEFT = "graylift.on_left"
"""In the scope of a request: what to call when its client leaves before its answer is complete."""


class Connection(HttpToolsProtocol):
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # None before the first request. Of several in a row (pipelining) the last one is told.
        if self.cycle is not None and self.cycle.disconnected:  # pyright: ignore[reportUnnecessaryComparison]
            on_left = self.cycle.scope.get(ON_LEFT)
            if on_left is not None:
                on_left()  # type: ignore[operator]
