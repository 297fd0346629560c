"""A real model server as a child process, and a client for it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))  # tiny_models lies beside the tests of engines

from graylift.domain.engine import EngineSpec, Runtime
from graylift.engine.artefacts import ArtefactStore


class Server:
    """A started server. `log` is what it wrote to stderr so far."""

    def __init__(self, command: list[str], log_file: Path) -> None:
        self._log_file = log_file
        with log_file.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log)

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    async def url(self) -> str:
        """http://host:port, once it listens."""
        while (said := re.search(r"start: \S+ on (\S+:\d+)", self.log)) is None:
            assert self.process.poll() is None, self.log
            await asyncio.sleep(0.01)
        return f"http://{said[1]}"

    async def until_logged(self, text: str) -> None:
        while text not in self.log:
            assert self.process.poll() is None, self.log
            await asyncio.sleep(0.01)

    async def ended(self) -> int:
        """The exit status, once it has ended."""
        return await asyncio.to_thread(self.process.wait, 60)

    async def stopped(self) -> int:
        """The exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()


@pytest.fixture
def artefacts(tmp_path: Path) -> Path:
    return tmp_path / "artefacts"


StartServer = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path, artefacts: Path) -> Iterator[StartServer]:
    """start(model file, *options) starts a server of service `tiny`, revision `tiny.v2.<digest>`."""
    servers: list[Server] = []

    def start_server(model: Path, *options: str) -> Server:
        digest = ArtefactStore(artefacts).build(EngineSpec(str(model), Runtime.ONNXRUNTIME)).digest
        command = [sys.executable, "-m", "graylift.serve", "--artefacts", str(artefacts), "--artefact", digest,
                   "--service", "tiny", "--revision", f"tiny.v2.{digest[:12]}", "--port", "0", *options]  # fmt: skip
        server = Server(command, tmp_path / f"server-{len(servers)}.log")
        servers.append(server)
        return server

    yield start_server
    for server in servers:
        server.process.kill()
        server.process.wait()


class Client:
    """Speaks to one server."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def get(self, path: str) -> tuple[int, object]:
        async with self.session.get(self.url + path) as answer:
            return answer.status, await answer.json()

    async def infer(self, name: str, datatype: str, data: list[object]) -> tuple[int, dict[str, object]]:
        """One input of rank 1, or of rank 2 if `data` is nested."""
        nested = data and isinstance(data[0], list)
        shape = [len(data), len(data[0])] if nested else [len(data)]
        document = {"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]}
        async with self.session.post(f"{self.url}/v2/models/tiny/infer", json=document) as answer:
            return answer.status, await answer.json()

    async def until_ready(self) -> None:
        while (await self.get("/v2/health/ready"))[0] != 200:
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[Client]:
    """A client of a server that is ready."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        client = Client(session, await server.url())
        await client.until_ready()
        yield client


@pytest.fixture
def connect() -> Callable[[Server], contextlib.AbstractAsyncContextManager[Client]]:
    return client_of
