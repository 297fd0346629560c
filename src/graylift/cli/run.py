"""Runs one release to its end, or watches the one that somebody else runs, and says how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from graylift.adapters.sql_store import SqlStore
from graylift.cli.desk import command_of, is_over, newest_release, outcome_of, somebody_acts, view_of
from graylift.cli.installation import Installation
from graylift.cli.interrupts import until_stopped
from graylift.cli.live import Screen, console
from graylift.cli.wiring import control
from graylift.domain.release import Command, CommandKind, Phase, Release
from graylift.domain.spec import ReleaseSpec
from graylift.errors import GatewayBusy

LOOK_S = 0.25
"""How often the screen is drawn anew."""


@asynccontextmanager
async def controlled(installation: Installation, store: SqlStore) -> AsyncGenerator[asyncio.Task[None]]:
    """Inside the block somebody controls the installation: another process while there is one, else this one.

    Yields the task that sees to it; it ends only by failing, as when the gateway's port is taken.
    """
    task = asyncio.create_task(_control_when_nobody_does(installation, store), name="control")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _control_when_nobody_does(installation: Installation, store: SqlStore) -> None:
    while True:
        if not await asyncio.to_thread(somebody_acts, store):
            # Busy: another one is just starting, and has the gateway but not the lease yet; or is just ending.
            with suppress(GatewayBusy):
                async with control(installation, store) as controller:
                    await asyncio.wait({controller})
        await asyncio.sleep(LOOK_S)


async def run_release(installation: Installation, store: SqlStore, spec: ReleaseSpec, screen: Screen) -> Release:
    """Start the release (or go on with it) and show it until it is final.

    CommandRefused if the service has another one, Interrupted when told to stop; whatever stops this process leaves
    the release where it is.
    """
    command = command_of(spec.service, CommandKind.START, spec=spec)
    store.append(command)
    async with controlled(installation, store) as controller:
        return await until_stopped(show(installation, store, command, screen), controller)


async def tell(installation: Installation, store: SqlStore, command: Command) -> str:
    """Put a command before the controller and wait for its outcome; where none acts, one does for as long as the
    command takes, and after an abort until the rollback is verified. CommandRefused if it is refused."""
    store.append(command)
    async with controlled(installation, store) as controller:
        outcome = await until_stopped(outcome_of(store, command), controller)
        if command.kind is CommandKind.ABORT:
            release = await until_stopped(_over(store, command.service), controller)
            outcome = f"{release.id} is {release.phase.value}: {release.reason}"
        return outcome


async def show(installation: Installation, store: SqlStore, command: Command, screen: Screen) -> Release:
    """`follow`, after saying where a browser shows the same."""
    await outcome_of(store, command)
    console.print(f"live in a browser: {installation.api_url}/releases/{newest_release(store, command.service).id}")
    return await follow(store, command, screen)


async def follow(store: SqlStore, command: Command, screen: Screen) -> Release:
    """Show the release that `command` starts until it is over. CommandRefused if it is refused."""
    await outcome_of(store, command)
    while True:
        view = await asyncio.to_thread(lambda: view_of(store, newest_release(store, command.service)))
        screen.show(view)
        if await asyncio.to_thread(is_over, store, view.release):
            return view.release
        await asyncio.sleep(LOOK_S)


async def _over(store: SqlStore, service: str) -> Release:
    while True:
        release = await asyncio.to_thread(newest_release, store, service)
        if await asyncio.to_thread(is_over, store, release):
            return release
        await asyncio.sleep(LOOK_S)


def exit_code_of(phase: Phase) -> int:
    """0 promoted, 3 rolled back, 4 rejected before traffic."""
    return {Phase.PROMOTED: 0, Phase.ROLLED_BACK: 3, Phase.REJECTED: 4}[phase]
