"""How fast a candidate that fails every request is taken back, and how long a look of the controller takes.

    python benchmarks/rollback.py [--runs 5]

Real Envoy, model servers, store and controller on this machine; 300 requests a second, the candidate at 5 %. From
Envoy's own log: the time from the candidate's tenth answer to the last request that was still assigned to it (aim:
under 2 s).
A look is timed around `Controller.look`, store and gateway included (aim: under 50 ms).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from graylift.adapters.sql_store import SqlStore
from graylift.bench.load import LoadPlan, PreparedRequest, load
from graylift.cli.desk import command_of, is_over, newest_release
from graylift.cli.installation import Installation
from graylift.cli.wiring import controller_of, deployer_of, end_everything, gateway_of
from graylift.domain.evidence import RequestRecord
from graylift.domain.release import CommandKind, Phase
from graylift.domain.weights import Role
from graylift.envoy.access_log import parse
from graylift.spec import load as load_spec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "engine"))
import tiny_models

RATE = 300.0
RELEASE = """
apiVersion: graylift.dev/v1
kind: Release
metadata: {name: tiny}
spec:
  protocol: open-inference
  stable: {revision: v1, model: {onnx: v1.onnx}}
  candidate: {revision: v2, model: {onnx: v2.onnx}}
  stages:
    - {weight: 5, observe: 10m}
    - {weight: 100, watch: 10m}
"""


def timed(look: Callable[[], Awaitable[object]], looks_ms: list[float]) -> Callable[[], Awaitable[object]]:
    """`look`, noting how long each one takes."""

    async def measured() -> object:
        before = time.perf_counter()
        try:
            return await look()
        finally:
            looks_ms.append((time.perf_counter() - before) * 1000)

    return measured


async def rolled_back_after(folder: Path, looks_ms: list[float]) -> tuple[float, int]:
    """Seconds from the candidate's tenth answer to the last request assigned to it (0 if it never got eleven), and how
    many it got."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        installation = Installation(folder / "state", "127.0.0.1", probe.getsockname()[1], None)
    installation.state.mkdir()
    tiny_models.lookup(folder / "v1.onnx", rows=10)
    tiny_models.lookup(folder / "v2.onnx", rows=1)  # every id of the requests is beyond its table
    (folder / "release.yaml").write_text(RELEASE)
    store = SqlStore(f"sqlite:///{installation.store_file}")
    store.append(command_of("tiny", CommandKind.START, spec=load_spec(folder / "release.yaml")))
    deployer, stop = deployer_of(installation), asyncio.Event()
    try:
        async with gateway_of(installation) as agent:
            controller = controller_of(installation, store, agent, deployer)
            controller.look = timed(controller.look, looks_ms)
            running = asyncio.create_task(controller.run(stop))
            await until(lambda: has_started(store))
            body = {"inputs": [{"name": "id", "datatype": "INT64", "shape": [1], "data": [5]}]}
            request = PreparedRequest("/v2/models/tiny/infer", {}, json.dumps(body).encode())
            plan = LoadPlan(url=installation.url, rate_per_s=RATE, duration_s=60)
            traffic = asyncio.create_task(load(plan, itertools.repeat(request), stop))
            await until(lambda: is_over(store, newest_release(store, "tiny")))
            stop.set()
            await asyncio.gather(running, traffic)
            await asyncio.sleep(0.5)  # Envoy writes its log every 100 ms
    finally:
        await deployer.close()
        await end_everything(installation)
    release = newest_release(store, "tiny")
    store.close()
    assert release.phase is Phase.ROLLED_BACK, release.reason
    records = [parse(line) for line in (installation.gateway / "access.log").read_bytes().splitlines()]
    ends = sorted(
        record.ended_s for record in records if isinstance(record, RequestRecord) and record.arm is Role.CANDIDATE
    )
    return max(0.0, ends[-1] - ends[9]) if len(ends) > 10 else 0.0, len(ends)


def has_started(store: SqlStore) -> bool:
    return any(t.release is not None and t.release.phase is Phase.PROGRESSING for t in store.snapshot().services)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not await asyncio.to_thread(what):  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs, looks_ms, seconds = parser.parse_args().runs, list[float](), list[float]()
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            took, answers = asyncio.run(rolled_back_after(Path(folder), looks_ms))
        seconds.append(took)
        print(f"weight 0 {took:.2f} s after the tenth answer; {answers} answers in all")
    looks_ms.sort()
    print(f"median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s (aim: under 2 s)")
    p99 = looks_ms[int(len(looks_ms) * 0.99)]
    print(f"{len(looks_ms)} looks: median {statistics.median(looks_ms):.1f} ms, p99 {p99:.1f} ms (aim: under 50 ms)")


if __name__ == "__main__":
    main()
