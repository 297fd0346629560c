"""The life of the server's process: listen, be live, load, warm up, be ready; on SIGTERM drain and end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from graylift.errors import EngineError
from graylift.serve.connection import Connection
from graylift.serve.front import Front
from graylift.serve.inference import Stage
from graylift.serve.options import Options
from graylift.serve.tensors import TensorFront
from graylift.serve.writing import LanguageFront

if TYPE_CHECKING:
    from graylift.serve.grpc_front import GrpcFront

log = logging.getLogger(__name__)

EXIT_ENDED = 0
EXIT_NOT_LOADED = 3
EXIT_NO_PORT = 4

_GRACE_S = 0.5
"""How long after SIGTERM open connections are still answered, each with `connection: close`. A connection that is
closed under a request on its way is an error that its client must not repeat by itself."""
_KEEP_ALIVE_S = 2 * 3600
"""Clients close idle connections (a gateway after an hour), never we: see above."""


def run(options: Options) -> int:
    """Serve until a signal ends it; the exit status. To be called once, in the main thread, with logging set up."""
    try:
        listener = _listener(options.host, options.port)
    except OSError as exc:
        log.critical("cannot listen on %s:%d: %s", options.host, options.port, exc.strerror or exc)
        return EXIT_NO_PORT
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Process(options).live(listener))


class _Process:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._front = _front_of(options)
        self._server = _Server(
            uvicorn.Config(
                self._front,
                http=Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
            )
        )
        self._grpc: GrpcFront | None = None
        self._grpc_ends: asyncio.Task[None] | None = None
        self._status = EXIT_ENDED

    async def live(self, listener: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._drain, number.name)
        if self._options.end_with_stdin:
            os.set_blocking(0, False)
            loop.add_reader(0, self._read_stdin)
        host, port = listener.getsockname()[:2]
        log.info("start: %s on %s:%d, process %d", self._options.revision_id, host, port, os.getpid())
        if self._options.grpc_port is not None and not await self._listen_for_grpc(self._options.grpc_port):
            listener.close()
            return EXIT_NO_PORT
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(self._start())
            await self._server.serve(sockets=[listener])
            starting.cancel()
            if self._grpc_ends is not None:
                await self._grpc_ends
        if self._status == EXIT_ENDED:
            log.info("exit")
        return self._status

    async def _listen_for_grpc(self, port: int) -> bool:
        from graylift.serve.grpc_front import GrpcFront

        assert isinstance(self._front, TensorFront), "the command line refuses gRPC for language models"
        self._grpc = GrpcFront(self._front.inference, max_body_bytes=self._options.max_body_bytes)
        try:
            bound = await self._grpc.start(self._options.host, port)
        except OSError as exc:
            log.critical("cannot listen for gRPC on %s:%d: %s", self._options.host, port, exc)
            return False
        log.info("gRPC: on %s:%d", self._options.host, bound)
        return True

    async def _start(self) -> None:
        began = time.monotonic()
        try:
            await self._front.start()
        except EngineError as exc:
            log.critical("cannot serve %s: %s", self._options.revision_id, exc)
            self._status = EXIT_NOT_LOADED
            self._server.should_exit = True
            return
        _rest_garbage()
        if self._front.stage is Stage.STARTING:
            self._front.stage = Stage.READY
            log.info("ready: %.2f s after the start", time.monotonic() - began)

    def _read_stdin(self) -> None:
        """Nothing is expected but its end."""
        with contextlib.suppress(BlockingIOError):
            if not os.read(0, 4096):
                asyncio.get_running_loop().remove_reader(0)
                self._drain("stdin closed")

    def _drain(self, why: str) -> None:
        if self._front.stage is Stage.DRAINING:
            return
        self._front.stage = Stage.DRAINING
        log.info("drain: %s, %d running, %d waiting", why, self._front.running, self._front.waiting)
        loop = asyncio.get_running_loop()
        loop.call_later(self._options.drain_timeout_s, self._cut)
        if self._grpc is not None:
            self._grpc_ends = loop.create_task(self._grpc.stop(self._options.drain_timeout_s))
        if self._server.started:
            for listening in self._server.servers:
                listening.close()
        loop.call_later(_GRACE_S if self._server.server_state.connections else 0, self._finish)

    def _finish(self) -> None:
        self._server.should_exit = True

    def _cut(self) -> None:
        log.warning(
            "exit: %d requests were still open after %g s and are cut off",
            len(self._server.server_state.tasks),
            self._options.drain_timeout_s,
        )
        # Native code in a thread cannot be interrupted, and everything gentler waits for it.
        os._exit(EXIT_ENDED)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are ours: uvicorn would close idle connections at once, and die of the signal in the end."""
        yield


def _front_of(options: Options) -> Front:
    return TensorFront(options) if options.language is None else LanguageFront(options, options.language)


def _rest_garbage() -> None:
    """What is here now stays, and requests leave no cycles: looking for them at Python's default rate, through all of
    it, would take a twentieth of the time of small requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    # A port whose last owner just ended may be taken at once; one that is listened on may not.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener
