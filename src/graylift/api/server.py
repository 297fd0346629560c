"""The app served by uvicorn in a loop that is somebody else's. Called by `cli/wiring.py`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from graylift.errors import CommandRefused

_ENDS_WITHIN_S = 2


class ApiServer:
    """`start` and `close`; `address` is where it listens in between."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        """port: 0 lets the system choose"""
        self._host = host
        self._port = port
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_ENDS_WITHIN_S,
            )
        )
        self._task: asyncio.Task[None] | None = None
        self.address = ""

    async def start(self) -> None:
        """Returns when it listens. CommandRefused if the port is taken."""
        listener = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._host, self._port))
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise CommandRefused(
                f"the API cannot listen on {self._host}:{self._port}: {error.strerror}; name another port with --api"
            ) from error
        host, port = listener.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="api")

    async def close(self) -> None:
        """Finish what runs, for a moment, and end."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task
            self._task = None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals belong to the process that this runs in."""
        yield
