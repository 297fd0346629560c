"""How many access log records a second the agent counts and keeps on one core, and whether its memory stays flat.

Run by hand: `python benchmarks/agent.py [records]`. The log is written before the clock starts, in the format of a
real gateway; reading, parsing, summing and the checkpoints (one a second of log time, with fsync) are timed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import orjson

from graylift.gateway.config import GatewayConfig
from graylift.gateway.evidence import LogFollower, SteadyTime
from graylift.gateway.state import AgentState, Checkpoint
from graylift.gateway.tail import LogPosition
from graylift.gateway.timeline import Timeline

RATE = 10_000
"""Records a second of log time."""
STEP = 100_000


class NoEnvoy:
    """Stands for a supervised Envoy that never failed to write."""

    identity = "none"

    @property
    def admin(self) -> NoEnvoy:
        return self

    def bound_log(self) -> None:
        pass

    async def counter(self, name: str) -> int:
        del name
        return 0


def line(number: int, ended_s: float) -> bytes:
    candidate = number % 20 == 0
    failed = number % 500 == 0
    revision = "a.v2.0123456789ab" if candidate else "a.v1.0123456789ab"
    duration_us = 2_000 + number * 7_919 % 30_000
    return orjson.dumps(
        {
            "attempts": 1,
            "cluster": f"{'candidate' if candidate else 'stable'}/{revision}",
            "details": "via_upstream",
            "duration_us": duration_us,
            "end": f"{ended_s:.6f}",
            "flags": "-",
            "waited_us": 31,
            "route": {"attempt_limit_us": 5e06, "service": "a", "split": "a-1/0"},
            "rx": 1024,
            "server": revision,
            "start": f"{ended_s - duration_us / 1e6:.6f}",
            "status": 500 if failed else 200,
            "ttfb_us": duration_us - 100,
            "tx": 900,
            "request_id": f"0b2c1e9e-8d1f-4f0e-9d3a-{number % 10**12:012}",
            "answered_us": duration_us - 200,
            "llm": None,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(records: int, folder: Path) -> None:
    config = GatewayConfig(name="bench", state_dir=folder, max_log_bytes=2**40)
    first_s = int(time.time()) - records // RATE - 10
    with config.access_log.open("wb") as log:
        for start in range(0, records, STEP):
            log.write(b"".join(line(n, first_s + n / RATE) for n in range(start, min(start + STEP, records))))
    state = AgentState(config.state, config.max_reports)
    begin = Checkpoint(
        position=LogPosition(config.access_log.stat().st_ino, 0),
        length_s=1.0,
        first=first_s,
        open=(),
        sequence=1,
        seen_s=float(first_s),
        envoy=NoEnvoy.identity,
        write_failed=0,
        in_force=(),
        gaps=(),
    )
    follower = LogFollower(
        config,
        state=state,
        checkpoint=begin,
        timeline=Timeline(),
        supervisor=cast("Any", NoEnvoy()),
        now=SteadyTime(),
    )
    await follower.begin()
    memory = [resident_mib()]
    cpu, clock = time.process_time(), time.perf_counter()
    task = asyncio.create_task(follower.run())
    counted, cursor = 0, None
    while counted < records and not task.done():
        await asyncio.sleep(0.02)
        for report in await follower.read(cursor):
            cursor = report.sequence
            if report.unreadable:
                sys.exit("the lines are not in the present format of the access log: bring `line` up to date")
            counted += sum(window.requests for window in report.windows)
            if counted // STEP >= len(memory):
                memory.append(resident_mib())
    took, cpu = time.perf_counter() - clock, time.process_time() - cpu
    if task.done():
        task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    follower.close()
    state.close()
    print(f"{counted:,} of {records:,} records counted in {took:.1f} s: {counted / took:,.0f} records/s (aim > 10,000)")
    print(f"CPU: {cpu / counted * 1e6:.1f} us a record, {cpu / counted * RATE:.0%} of one core at {RATE:,} records/s")
    after = memory[1:] or memory
    print(
        f"memory: {memory[0]:.0f} MiB before, {after[0]:.0f} after the first {STEP:,}, {after[-1]:.0f} at the end "
        f"({after[-1] - after[0]:+.1f}), {max(after):.0f} at most"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, Path(name)))
