"""`graylift demo`: whole releases of a real model, under real load, on this machine, in an installation of its own.

Everything lies in one folder that a person can read afterwards: release files, models, state, reports. At the end
everything that was started is ended.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from rich.console import Console

from graylift.adapters.sql_store import SqlStore
from graylift.cli.desk import command_of, newest_release, open_store
from graylift.cli.installation import Installation, installation_from
from graylift.cli.interrupts import INTERRUPTED, Interrupted, until_stopped
from graylift.cli.live import screen_for
from graylift.cli.reporting import ReportFormat, report_text
from graylift.cli.run import controlled, show
from graylift.cli.wiring import end_everything
from graylift.demo.catalogue import Variant
from graylift.demo.models import default_cache
from graylift.demo.scenario import SCENARIOS, Prepared, Scenario
from graylift.domain.release import CommandKind, Phase, Release
from graylift.errors import CommandRefused, GrayliftError
from graylift.spec import load

TRAFFIC_AT_MOST_S = 600.0
"""The load ends by itself after this, whatever happens to us."""


EXPECTED = {
    Variant.GOOD: Phase.PROMOTED,
    Variant.BAD: Phase.ROLLED_BACK,
    Variant.SLOW: Phase.REJECTED,
    Variant.SAME: Phase.PROMOTED,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One release of the demo, over, and the page about it."""

    variant: Variant
    release: Release
    report: Path


async def run_demo(scenario: str, folder: Path, only: Variant | None, console: Console, *, plain: bool) -> int:
    """Exit code: 0 if every release ended as it should, 1 if not, 130 if interrupted."""
    chosen = next((s for s in SCENARIOS if s.name == scenario), None)
    if chosen is None:
        raise CommandRefused(f"there is no scenario {scenario!r}; there are: {', '.join(s.name for s in SCENARIOS)}")
    console.print(f"[bold]{chosen.entry.title}[/bold]: {chosen.entry.what}\n", soft_wrap=True)
    prepared = await asyncio.to_thread(
        chosen.prepare,
        default_cache(),
        folder,
        lambda line: console.print(f"  {line}", style="dim", markup=False, soft_wrap=True),
    )
    variants = (Variant.GOOD, Variant.BAD) if only is None else (only,)
    installation = await _fresh_installation(folder)
    try:
        with open_store(installation, make=True) as store:
            outcomes, traffic = await _releases(chosen, prepared, variants, installation, store, console, plain=plain)
    except Interrupted:
        console.print("\ninterrupted; everything the demo started is ended")
        return INTERRUPTED
    finally:
        await end_everything(installation)
    _summary(outcomes, traffic, folder, console)
    return 0 if all(o.release.phase is EXPECTED[o.variant] for o in outcomes) else 1


async def _fresh_installation(folder: Path) -> Installation:
    """State of its own, new each time, on a port that is free now. Whatever a killed demo left running is ended."""
    state = folder / "state"
    if state.exists():
        await end_everything(installation_from(state))
        shutil.rmtree(state)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return Installation(state, "127.0.0.1", port, None)


async def _releases(
    scenario: Scenario,
    prepared: Prepared,
    variants: Sequence[Variant],
    installation: Installation,
    store: SqlStore,
    console: Console,
    *,
    plain: bool,
) -> tuple[list[Outcome], dict[str, Any]]:
    outcomes: list[Outcome] = []
    async with controlled(installation, store) as controller, _traffic(scenario, installation) as traffic:
        for variant in variants:
            console.print(f"\n$ graylift run {_short(prepared.file(variant))}", style="bold")
            command = command_of(scenario.service, CommandKind.START, spec=load(prepared.file(variant)))
            store.append(command)
            screen = screen_for(console, plain=plain)
            try:
                async with asyncio.timeout(TRAFFIC_AT_MOST_S):
                    release = await until_stopped(show(installation, store, command, screen), controller)
            except TimeoutError:
                stuck = newest_release(store, scenario.service)
                raise GrayliftError(
                    f"{stuck.id} has not ended within {TRAFFIC_AT_MOST_S:.0f} s: {stuck.phase.value}, {stuck.reason}"
                ) from None
            finally:
                screen.close()
            outcomes.append(Outcome(variant, release, _write_report(store, release, installation.state.parent)))
    return outcomes, traffic.report


@dataclass(slots=True)
class _Traffic:
    """The load beside the releases. report: what its clients saw, once it has ended."""

    report: dict[str, Any] = field(default_factory=dict[str, Any])


@asynccontextmanager
async def _traffic(scenario: Scenario, installation: Installation) -> AsyncGenerator[_Traffic]:
    """Load from the moment the gateway answers for the service, in a process of its own, until the block is left."""
    traffic = _Traffic()
    task = asyncio.create_task(_send(scenario, installation, traffic), name="traffic")
    try:
        yield traffic
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _send(scenario: Scenario, installation: Installation, traffic: _Traffic) -> None:
    await _answering(f"{installation.url}/v2/models/{scenario.service}/ready")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # a file of the user's called numpy.py is none of ours
        "-m",
        "graylift.demo.traffic",
        f"--scenario={scenario.name}",
        f"--folder={installation.state.parent}",
        f"--url={installation.url}",
        f"--seconds={TRAFFIC_AT_MOST_S}",
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us; we end it
    )
    reading = asyncio.create_task(process.communicate())
    try:
        await asyncio.shield(reading)
    finally:
        if process.returncode is None:
            process.terminate()
        output, _ = await reading
        traffic.report = orjson.loads(output) if output else {}


async def _answering(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


def _write_report(store: SqlStore, release: Release, folder: Path) -> Path:
    page = folder / "reports" / f"{release.id}.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text(report_text(store, release.id, ReportFormat.HTML), encoding="utf-8")
    return page


def _summary(outcomes: Sequence[Outcome], traffic: dict[str, Any], folder: Path, console: Console) -> None:
    """The last lines: what came of each release, what the users noticed, and what to do next."""
    clients = traffic.get("sent", 0), traffic.get("failed", 0)
    console.print(f"\nThe users sent {clients[0]:,} requests meanwhile; {clients[1]:,} of them failed.")
    for outcome in outcomes:
        name = "good" if EXPECTED[outcome.variant] is Phase.PROMOTED else "bad"
        console.print(f"  {outcome.variant.value:5} candidate {outcome.release.spec.candidate.name}: ", end="")
        console.print(outcome.release.phase.value, style="bold green" if name == "good" else "bold red", end="")
        console.print(f"  {outcome.release.reason}", markup=False, soft_wrap=True)
        console.print(f"        report: {_short(outcome.report)}", markup=False, soft_wrap=True)
    console.print(
        f"\nNext: read {_short(folder / 'good.yaml')}, then release your own model:\n"
        "  graylift validate release.yaml && graylift run release.yaml     (docs/tutorial.md)",
        markup=False,
        soft_wrap=True,
    )


def _short(path: Path) -> str:
    """The path as one would type it here."""
    return os.path.relpath(path)
