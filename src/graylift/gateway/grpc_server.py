"""The agent's gRPC server: where Envoy asks it, on a socket in its folder. One server for all services.

It knows no service; `agent.py` brings them. gRPC is an extra (`graylift[grpc]`), imported when the server starts, and
that only for a routing table that needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from graylift.errors import GatewayError

Handler: TypeAlias = Any
"""What `grpc.method_handlers_generic_handler` makes: one service under the path by which Envoy calls it."""

LONGEST_SOCKET_PATH = 107
"""Bytes; Linux allows no socket a longer one."""
ENDS_WITHIN_S = 1.0


class Service(Protocol):
    """What the server answers with."""

    def handler(self) -> Handler: ...

    async def close(self) -> None:
        """Called when no question comes any more."""
        ...


class GrpcServer:
    """One server at `socket`; `open_services` is called when it starts, since they may need extras, too."""

    def __init__(self, socket: Path, open_services: Callable[[], Sequence[Service]]) -> None:
        self._socket = socket
        self._open_services = open_services
        self._services: Sequence[Service] = ()
        self._server: Any = None

    async def start(self) -> None:
        """Idempotent. GatewayError, with the cure, if it cannot be."""
        if self._server is not None:
            return
        require_grpc()
        import grpc.aio

        services = self._open_services()
        server = grpc.aio.server(handlers=[service.handler() for service in services])
        try:
            # One that was killed left its socket behind; the agent's lock says that nobody listens on it.
            self._socket.unlink(missing_ok=True)
            server.add_insecure_port(f"unix:{self._socket}")
        except (OSError, RuntimeError) as exc:
            raise GatewayError(f"the agent cannot listen on {self._socket}: {exc}") from exc
        await server.start()
        self._server, self._services = server, services

    async def close(self) -> None:
        """Idempotent; what is being answered is finished first."""
        if self._server is not None:
            await self._server.stop(ENDS_WITHIN_S)
            self._server = None
            for service in self._services:
                await service.close()


def require_grpc() -> None:
    """GatewayError, with the command that mends it, where gRPC is not installed."""
    if find_spec("grpc") is None:
        raise GatewayError("Envoy asks the agent over gRPC, and gRPC is not installed: pip install 'graylift[grpc]'")
