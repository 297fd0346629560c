"""A real Envoy under an agent, with tiny upstreams and clients: what the tests of the gateway share."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from graylift.domain.evidence import IntervalReport
from graylift.domain.routing import Backend, RoutingTable, ServiceRoutes
from graylift.domain.spec import ServingProtocol
from graylift.domain.weights import NONE, Weights
from graylift.gateway.agent import GatewayAgent
from graylift.gateway.config import GatewayConfig
from graylift.gateway.processes import find


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def config_in(folder: Path, **changes: object) -> GatewayConfig:
    values: dict[str, object] = {"name": "g1", "state_dir": folder / "gw", "listen_port": free_port(), "workers": 1}
    return GatewayConfig(**(values | changes))  # type: ignore[arg-type]


@asynccontextmanager
async def running(config: GatewayConfig) -> AsyncIterator[GatewayAgent]:
    """An agent whose Envoy ends with it, whatever happens."""
    try:
        async with GatewayAgent(config) as agent:
            yield agent
            await agent.shutdown()
    finally:
        end_envoy(config)


def end_envoy(config: GatewayConfig) -> None:
    pid = envoy_pid(config)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def envoy_pid(config: GatewayConfig) -> int | None:
    return find("-c", str(config.bootstrap.resolve()))


@dataclass
class Upstream:
    """An HTTP server that answers every request with `status`, after `delay_s`."""

    status: int = 200
    delay_s: float = 0.0
    port: int = 0
    answered: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
                is_health_check = b"/v2/health/ready" in head
                if not is_health_check:
                    await asyncio.sleep(self.delay_s)
                    self.answered += 1
                status = 200 if is_health_check else self.status
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok" % status)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def upstream(**settings: float) -> AsyncIterator[Upstream]:
    one = Upstream(**settings)  # type: ignore[arg-type]
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        await one.end()
        await server.wait_closed()


def table(
    version: int, stable: str, candidate: str | None = None, weight: int = 0, *, token: int = 1, names: str = "12"
) -> RoutingTable:
    """A table of service `a` with stable `a.v1.0` at one address and, if given, candidate `a.v2.0` at another."""
    return RoutingTable(
        version=version,
        token=token,
        services=(
            ServiceRoutes(
                service="a",
                protocol=ServingProtocol.OPEN_INFERENCE,
                stable=Backend(f"a.v{names[0]}.0", stable),
                candidate=None if candidate is None else Backend(f"a.v{names[1]}.0", candidate),
                weights=Weights(weight) if weight else NONE,
                match=(),
                sticky=None,
                salt="s",
                split=f"a-1/{version}",
                timeout_s=10.0,
            ),
        ),
    )


@dataclass
class Client:
    """A keep-alive client of the gateway. Counts what it got; a broken connection is `broken`, and is made anew."""

    port: int
    statuses: list[int] = field(default_factory=list)
    revisions: list[str] = field(default_factory=list)
    broken: int = 0
    connections: int = 0
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> int:
        """One request; 0 if the connection broke."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port)
                self.connections += 1
            reader, writer = self._streams
            writer.write(b"POST /v2/models/a/infer HTTP/1.1\r\nhost: g\r\ncontent-length: 2\r\n\r\nhi")
            head = await reader.readuntil(b"\r\n\r\n")
            headers = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:] if line)
            if b"content-length" in headers:
                await reader.readexactly(int(headers[b"content-length"]))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.broken += 1
            await self.close()
            return 0
        self.statuses.append(int(head.split()[1]))
        self.revisions.append(headers.get(b"x-graylift-revision", b"").decode())
        if headers.get(b"connection") == b"close":
            await self.close()
        return self.statuses[-1]

    async def ask_until(self, stop: asyncio.Event, pause_s: float = 0.0) -> None:
        while not stop.is_set():
            await self.ask()
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            with suppress(ConnectionError):
                await self._streams[1].wait_closed()
            self._streams = None


@asynccontextmanager
async def load(port: int, clients: int = 4, pause_s: float = 0.0) -> AsyncIterator[list[Client]]:
    """Clients that ask all the time while the block runs; complete when it has ended."""
    stop = asyncio.Event()
    all_clients = [Client(port) for _ in range(clients)]
    tasks = [asyncio.create_task(client.ask_until(stop, pause_s)) for client in all_clients]
    try:
        yield all_clients
    finally:
        stop.set()
        await asyncio.gather(*tasks)
        for client in all_clients:
            await client.close()


def counted(reports: Iterable[IntervalReport]) -> int:
    return sum(window.requests for report in reports for window in report.windows)


async def reports_until(
    agent: GatewayAgent, requests: int = 0, holds: Callable[[IntervalReport], bool] = lambda _: True
) -> list[IntervalReport]:
    """All reports, fetched bit by bit, once they count so many requests and one `holds`; or those of ten seconds."""
    cursor: list[tuple[str, int]] = []
    reports: list[IntervalReport] = []
    for _ in range(200):
        new = await agent.read(cursor)
        reports += new
        if new:
            cursor = [(new[-1].gateway, new[-1].sequence)]
        if counted(reports) >= requests and any(map(holds, reports)):
            break
        await asyncio.sleep(0.05)
    # One interval more: what was counted twice would come now.
    await asyncio.sleep(0.6)
    return [*reports, *await agent.read(cursor)]
