"""What a shadow costs the users of stable: their median latency with every request shadowed, against without.

Run by hand: `python benchmarks/shadow.py`. Slices alternate, with and without, and the ratio is of their medians. The
two model servers, the agent and the load are processes of their own; a model here takes its time without taking a
processor, so that there is spare capacity, which is what the claim is about. On a full machine a shadow is shed.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

import aiohttp
from aiohttp import web

from gateway import free_port, table
from graylift.domain.evidence import IntervalReport
from graylift.domain.routing import ShadowRoutes
from graylift.domain.shadow import summed
from graylift.domain.spec import KeepExamples, ServingProtocol, ShadowSpec, Tolerance
from graylift.domain.weights import ALL, NONE
from graylift.gateway.agent import GatewayAgent
from graylift.gateway.config import GatewayConfig

ROUNDS, SLICE_S, RATE_PER_S = 8, 3.0, 25.0
MODEL_S, PIECES, PACE_S = 0.010, 30, 0.005
PATHS = {ServingProtocol.OPEN_INFERENCE: "/v2/models/a/infer", ServingProtocol.OPENAI: "/a/v1/chat/completions"}
PIECE = b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
OUTPUT = {"name": "scores", "datatype": "FP32", "shape": [1, 200], "data": [0.005 * n for n in range(200)]}


async def model(port: int) -> None:
    """A model server of either protocol."""

    async def infer(request: web.Request) -> web.StreamResponse:
        await request.read()
        await asyncio.sleep(MODEL_S)
        if not request.path.endswith("completions"):
            return web.json_response({"model_name": "a", "outputs": [OUTPUT]})
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        for _ in range(PIECES):
            await answer.write(PIECE)
            await asyncio.sleep(PACE_S)
        await answer.write(LAST)
        return answer

    async def ready(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/{path:.*}", infer), web.get("/{path:.*}", ready)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def gateway(folder: Path, port: int, stable: str, candidate: str, protocol: str) -> None:
    """An agent that shadows or does not, as each line of its input says; in the end it tells what came of the pairs."""
    config = GatewayConfig(name="bench", state_dir=folder, listen_port=port, workers=1)
    reports: list[IntervalReport] = []
    async with GatewayAgent(config) as agent:
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        version = 0
        while line := (await lines.readline()).strip():
            version += 1
            one = table(version, stable, NONE)
            shadow = ShadowRoutes(ShadowSpec(ALL), Tolerance(), KeepExamples.NONE) if line == b"on" else None
            service = replace(one.services[0], protocol=ServingProtocol(protocol), shadow=shadow)
            assert service.candidate is not None
            service = replace(service, candidate=replace(service.candidate, address=candidate))
            await agent.apply(replace(one, services=(service,)))
            print("applied", flush=True)
        cursor: list[tuple[str, int]] = []
        while new := await agent.read(cursor):
            reports += new
            cursor = [(new[-1].gateway, new[-1].sequence)]
        await agent.shutdown()
    seen = summed(window for report in reports for window in report.shadows)
    assert seen is not None
    ratio = seen.latency_ratio.quantile(0.5) or 0.0
    print(
        f"{seen.pairs:,} pairs, {seen.agreement or 0:.1%} agree, the candidate (the same server) took {ratio:.2f}x "
        f"stable's time in the median; no pairs: {dict(seen.lost) or 'none'}"
    )


async def latencies(port: int, path: str) -> list[float]:
    """Of one slice, at a fixed rate."""
    took: list[float] = []
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def ask() -> None:
            began = time.perf_counter()
            async with session.post(path, data=b"x" * 500) as answer:
                await answer.read()
                if answer.status != 200:
                    sys.exit(f"HTTP {answer.status}: the figures mean nothing")
            took.append(time.perf_counter() - began)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(round(SLICE_S * RATE_PER_S)):
                tasks.create_task(ask())
                await asyncio.sleep(1 / RATE_PER_S)
    return took


async def compare(protocol: ServingProtocol, folder: Path) -> None:
    ports = [free_port() for _ in range(3)]
    addresses = [f"127.0.0.1:{port}" for port in ports[:2]]
    async with AsyncExitStack() as ends:

        async def child(*arguments: str) -> asyncio.subprocess.Process:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                sys.executable, __file__, *arguments, stdin=pipe, stdout=pipe
            )
            ends.push_async_callback(process.wait)
            ends.callback(lambda: process.returncode is None and process.terminate())
            return process

        for port in ports[:2]:
            await child("model", str(port))
        await asyncio.sleep(2)
        agent = await child("gateway", str(folder), str(ports[2]), *addresses, protocol.value)
        assert agent.stdin is not None
        assert agent.stdout is not None
        medians: defaultdict[str, list[float]] = defaultdict(list)
        for number in range(2 * ROUNDS):
            how = ("off", "on")[number % 2]
            agent.stdin.write(f"{how}\n".encode())
            await agent.stdout.readline()
            await asyncio.sleep(0.5)
            medians[how].append(median(await latencies(ports[2], PATHS[protocol])))
        agent.stdin.write_eof()
        told = (await agent.stdout.read()).decode().strip()
    without, with_shadow = median(medians["off"]), median(medians["on"])
    print(
        f"{protocol.value}: p50 {with_shadow * 1e3:.2f} ms with all requests shadowed, {without * 1e3:.2f} ms without, "
        f"{with_shadow / without:.3f}x (aim < 1.05x); {told}"
    )


async def main() -> None:
    for protocol in ServingProtocol:
        with tempfile.TemporaryDirectory() as folder:
            await compare(protocol, Path(folder) / "gw")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["model", port]:
            asyncio.run(model(int(port)))
        case ["gateway", folder, port, stable, candidate, protocol]:
            asyncio.run(gateway(Path(folder), int(port), stable, candidate, protocol))
        case _:
            asyncio.run(main())
