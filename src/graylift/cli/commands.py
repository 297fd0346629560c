"""The commands that act: run, up, down, demo, and what a person tells a release. Called by `main.py`, which turns
GrayliftError into a message and an exit code."""

from __future__ import annotations

import asyncio
from pathlib import Path

from graylift.adapters.sql_store import SqlStore
from graylift.cli.desk import command_of, newest_release, open_store, somebody_acts
from graylift.cli.installation import Installation, installation_from
from graylift.cli.interrupts import INTERRUPTED, Interrupted, until_stopped
from graylift.cli.live import console, print_event, screen_for
from graylift.cli.run import controlled, exit_code_of, run_release, tell
from graylift.cli.view import line_from_event, phase_style
from graylift.cli.wiring import end_everything
from graylift.demo.catalogue import Variant
from graylift.domain.release import CommandKind, Release
from graylift.errors import CommandRefused
from graylift.gateway.grpc_server import require_grpc
from graylift.spec import load


def run(
    file: Path,
    state: Path | None,
    listen: str | None,
    envoy: Path | None,
    api: str | None,
    limits_store: str | None,
    *,
    plain: bool,
) -> int:
    spec = load(file)
    if spec.routing.limits is not None:
        require_grpc()
    installation = installation_from(state, listen, envoy, api, limits_store)
    with open_store(installation, make=True) as store:
        screen = screen_for(console, plain=plain)
        try:
            release = asyncio.run(run_release(installation, store, spec, screen))
        except Interrupted:
            screen.close()
            _say_how_to_go_on(store, spec.service, file)
            return INTERRUPTED
        finally:
            screen.close()
    _say_outcome(release, installation)
    return exit_code_of(release.phase)


def up(state: Path | None, listen: str | None, envoy: Path | None, api: str | None, limits_store: str | None) -> None:
    installation = installation_from(state, listen, envoy, api, limits_store)
    with open_store(installation, make=True) as store:
        if somebody_acts(store):
            console.print("another graylift controls this installation; this one takes over when it ends")
        asyncio.run(_serve(installation, store))


def down(state: Path | None) -> None:
    installation = installation_from(state)
    with open_store(installation) as store:
        if somebody_acts(store):
            raise CommandRefused("a controller is running: stop `graylift up` or `graylift run` first (Ctrl-C)")
        console.print("no new request is taken; what runs is finished first, for ten minutes at most")
        asyncio.run(end_everything(installation))
    console.print(f"ended: the gateway on {installation.url} and all model servers")


def demo(scenario: str, folder: Path, only: Variant | None, *, plain: bool) -> int:
    from graylift.cli.demo import run_demo  # numpy, onnx and a load generator, which nothing else here needs

    return asyncio.run(run_demo(scenario, folder.absolute(), only, console, plain=plain))


def steer(kind: CommandKind, name: str, reason: str, state: Path | None) -> None:
    installation = installation_from(state)
    with open_store(installation) as store:
        command = command_of(newest_release(store, name).service, kind, reason)
        alone = not somebody_acts(store)
        console.print(asyncio.run(tell(installation, store, command)), markup=False, soft_wrap=True)
        if alone and not newest_release(store, name).phase.is_final:
            console.print("no controller is running now; `graylift up` goes on with the release")


async def _serve(installation: Installation, store: SqlStore) -> None:
    async with controlled(installation, store) as controller:
        console.print(f"gateway on {installation.url}; state in {installation.state}")
        console.print("the page for people, and the API, are where `graylift status` says")
        console.print("start a release beside this with `graylift run FILE`; Ctrl-C leaves the traffic as it is")
        try:
            await until_stopped(_print_events(store), controller)
        except Interrupted:
            console.print(
                "stopped; gateway and model servers serve on. `graylift up` goes on, `graylift down` ends all"
            )


async def _print_events(store: SqlStore) -> None:
    """Print what happens from now on, for ever."""
    seen = store.last_event()
    while True:
        for told in await asyncio.to_thread(store.events_after, seen):
            seen = told.number
            print_event(f"{line_from_event(told.event)}  ({told.event.service})")
        await asyncio.sleep(0.25)


def _say_outcome(release: Release, installation: Installation) -> None:
    console.print(f"\n{release.phase.value}", style=phase_style(release.phase), end="")
    console.print(f" {release.id}: {release.reason}", markup=False, soft_wrap=True)
    console.print(f"the gateway goes on serving on {installation.url}; `graylift down` ends it")
    console.print(f"the report: graylift report {release.id} --format html --out {release.id}.html")


def _say_how_to_go_on(store: SqlStore, service: str, file: Path) -> None:
    try:
        release = newest_release(store, service)
    except CommandRefused:
        console.print(f"\ninterrupted before the release began; to begin it: graylift run {file}", markup=False)
        return
    console.print(
        f"\ninterrupted: {release.id} is {release.phase.value}; traffic keeps its split, and nobody decides now.\n"
        f"  go on:      graylift run {file}\n"
        f"  take back:  graylift abort {release.service}\n"
        f"  end all:    graylift down",
        markup=False,
    )
