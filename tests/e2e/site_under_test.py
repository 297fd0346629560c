"""One installation under test as a user has it: `graylift` as child processes, the real Envoy, real model servers.

Everything lies in one folder; `close` ends whatever is left, by `graylift down`, and checks that nothing stays.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from graylift.adapters.sql_store import SqlStore
from graylift.bench.load import LoadPlan, PreparedRequest, load
from graylift.bench.report import LoadReport
from graylift.domain.release import Phase, Release

GRAYLIFT = (sys.executable, "-m", "graylift")

STAGES = """
    - {weight: 20, observe: 2s, minRequests: 20, promoteIfWithin: {errors: 20pp, latency p50: 20x}}
    - {weight: 50, observe: 2s, promoteIfWithin: {errors: 10pp, latency p50: 20x}}
    - {weight: 100, watch: 2s}
"""
JUDGE = """
    metrics:
      - {name: errors, rollbackIfWorse: 2pp, promoteIfWithin: 5pp}
      # Tiny models on busy cores: latency says nothing here unless it is off by an order of magnitude.
      - {name: latency, quantile: 0.5, rollbackIfWorse: 10x, promoteIfWithin: 15x}
"""


def release_text(stable: str, candidate: str, *, service: str = "tiny", stages: str = STAGES, extra: str = "") -> str:
    """A release file; `stable` and `candidate` are YAML maps without their braces."""
    return f"""
apiVersion: graylift.dev/v1
kind: Release
metadata: {{name: {service}}}
spec:
  protocol: open-inference
  stable: {{{stable}}}
  candidate: {{{candidate}}}
  checks:
    coldStart: {{skip: the checks that run servers have tests of their own}}
    performance: {{skip: the same}}
    capacity: {{skip: the same}}
    boundary: {{skip: the same}}
  stages:{stages}
  judge:{JUDGE}{extra}
"""


def json_request(
    service: str, name: str, datatype: str, shape: Sequence[int], data: Sequence[float]
) -> PreparedRequest:
    body = {"inputs": [{"name": name, "datatype": datatype, "shape": list(shape), "data": list(data)}]}
    headers = {"content-type": "application/json"}
    return PreparedRequest(f"/v2/models/{service}/infer", headers, json.dumps(body).encode())


def affine_requests(service: str = "tiny") -> Iterator[PreparedRequest]:
    return itertools.repeat(json_request(service, "x", "FP32", [1, 4], [1, 2, 3, 4]))


def lookup_requests(ids: Sequence[int], service: str = "tiny") -> Iterator[PreparedRequest]:
    return itertools.cycle([json_request(service, "id", "INT64", [1], [number]) for number in ids])


@dataclass(slots=True)
class Child:
    """A `graylift` command that runs; what it prints goes to `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, seconds: float = 90) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.output()}") from None

    async def end(self, seconds: float = 90) -> int:
        """As `wait`, while traffic goes on."""
        return await asyncio.to_thread(self.wait, seconds)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return self.wait()

    def output(self) -> str:
        return self.log.read_text()


@dataclass(slots=True)
class Site:
    """A folder, a port and whatever a test starts there."""

    folder: Path
    port: int
    children: list[Child] = field(default_factory=list[Child])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def write(self, text: str, name: str = "release.yaml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, *arguments: str) -> Child:
        """A command in the background."""
        log = self.folder / f"child-{len(self.children)}.log"
        options = [] if arguments[0] == "validate" else [f"--state={self.state}"]
        if arguments[0] in ("run", "up"):
            options.append(f"--listen=127.0.0.1:{self.port}")
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*GRAYLIFT, *arguments, *options],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "COLUMNS": "200"},
            )
        child = Child(process, log)
        self.children.append(child)
        return child

    def call(self, *arguments: str) -> tuple[int, str]:
        """A command to its end: exit code and output."""
        child = self.start(*arguments)
        return child.wait(), child.output()

    async def tell(self, *arguments: str) -> tuple[int, str]:
        """As `call`, while traffic goes on."""
        return await asyncio.to_thread(self.call, *arguments)

    def release(self, service: str = "tiny") -> Release | None:
        """The newest release as stored; None while there is none."""
        if not (self.state / "graylift.db").exists():
            return None
        store = SqlStore(f"sqlite:///{self.state / 'graylift.db'}")
        try:
            for tracked in store.snapshot().services:
                if tracked.service.name == service:
                    return tracked.release
            return None
        finally:
            store.close()

    async def until(self, what: Callable[[Release], bool], *, service: str = "tiny", within_s: float = 60) -> Release:
        """The release, once `what` holds of it."""
        deadline = time.monotonic() + within_s
        while True:
            release = await asyncio.to_thread(self.release, service)
            if release is not None and what(release):
                return release
            if time.monotonic() > deadline:
                logs = "\n".join(child.output()[-3000:] for child in self.children)
                raise AssertionError(
                    f"not so after {within_s} s; it is {release and (release.phase, release.reason)}\n{logs}"
                )
            await asyncio.sleep(0.05)

    async def until_phase(self, *phases: Phase, stage: int | None = None, within_s: float = 60) -> Release:
        return await self.until(
            lambda release: release.phase in phases and stage in (None, release.stage), within_s=within_s
        )

    async def until_answering(self, service: str = "tiny", within_s: float = 60) -> None:
        """Until the gateway answers for the service."""
        deadline = time.monotonic() + within_s
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{self.url}/v2/models/{service}/ready") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                assert time.monotonic() < deadline, self.children[-1].output()
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def traffic(
        self,
        requests: Iterator[PreparedRequest] | None = None,
        *,
        rate: float = 60,
        seconds: float = 120,
        service: str = "tiny",
    ) -> AsyncGenerator[list[LoadReport]]:
        """Load while the block is open, from the moment the gateway answers; the one report is there afterwards."""
        await self.until_answering(service)
        reports: list[LoadReport] = []
        stop = asyncio.Event()
        plan = LoadPlan(url=self.url, rate_per_s=rate, duration_s=seconds)
        task = asyncio.create_task(load(plan, requests or affine_requests(), stop))
        try:
            yield reports
            # What is under way may end: a request that we cut off ourselves would tell nothing.
            await asyncio.sleep(0.5)
        finally:
            stop.set()
            reports.append(await task)

    def pids(self, name: str) -> list[int]:
        """Processes of this site whose command line contains `name`."""
        found: list[int] = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    line = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                except OSError:
                    continue
                if name in line and str(self.state) in line:
                    found.append(int(folder.name))
        return found

    @asynccontextmanager
    async def locked_store(self) -> AsyncGenerator[None]:
        """Nobody else can write to the store while the block is open."""
        connection = sqlite3.connect(self.state / "graylift.db", isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            connection.close()

    def close(self) -> None:
        for child in self.children:
            if child.process.poll() is None:
                child.kill(signal.SIGTERM)
        if (self.state / "graylift.db").exists():
            code, output = self.call("down")
            assert code == 0, output
        left = [*self.pids("envoy"), *self.pids("graylift")]
        assert not left, f"processes stayed: {left}"


def failures(report: LoadReport) -> int:
    """Requests that the client saw fail in any way."""
    return (
        sum(revision.failed for revision in report.revisions) + sum(count for _, count in report.errors) + report.shed
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
