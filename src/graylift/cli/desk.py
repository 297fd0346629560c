"""What the commands share: reading the store of an installation, and putting a command before the controller.

A command is appended to the store and never carried out here: whoever holds the lease does that, in this process or
in another.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager

from graylift.adapters.sql_store import SqlStore
from graylift.cli.installation import Installation
from graylift.cli.view import View, view_from
from graylift.domain.release import Command, CommandKind, Release
from graylift.domain.spec import ReleaseSpec
from graylift.errors import CommandRefused
from graylift.report.moment import RECENT_S
from graylift.rollout import weights_of

EVENTS_AT_ONCE = 1000


@contextmanager
def open_store(installation: Installation, *, make: bool = False) -> Generator[SqlStore]:
    """The store of an installation; `make` it if there is none. CommandRefused if there is none otherwise."""
    if make:
        installation.state.mkdir(parents=True, exist_ok=True)
    elif not installation.store_file.exists():
        raise CommandRefused(
            f"nothing was released in {installation.state} yet: begin with `graylift run FILE` or `graylift up`, "
            "or name another directory with --state"
        )
    store = SqlStore(f"sqlite:///{installation.store_file}")
    try:
        yield store
    finally:
        store.close()


def holder() -> str:
    """Who this process is, as the lease names it."""
    return f"process {os.getpid()}"


def somebody_acts(store: SqlStore) -> bool:
    """Does a controller hold the lease, in a process that lives?

    A lease outlasts a killed controller by some seconds; the process behind it does not."""
    lease = store.lease()
    if lease is None or lease.until_s <= time.time():
        return False
    pid = lease.holder.rpartition(" ")[2]
    return pid != str(os.getpid()) and os.path.exists(f"/proc/{pid}")


def command_of(service: str, kind: CommandKind, reason: str = "", spec: ReleaseSpec | None = None) -> Command:
    return Command(uuid.uuid4().hex, service, kind, getpass.getuser(), reason, time.time(), spec)


async def outcome_of(store: SqlStore, command: Command) -> str:
    """Wait until the controller has handled the command. CommandRefused if it refused it."""
    while True:
        outcome = await asyncio.to_thread(store.outcome, command.id)
        if outcome is not None:
            if outcome.refused:
                raise CommandRefused(outcome.text)
            return outcome.text
        await asyncio.sleep(0.05)


def newest_release(store: SqlStore, name: str) -> Release:
    """The release that `name` means: a release id, or a service and so its newest release. CommandRefused if none."""
    snapshot = store.snapshot()
    for tracked in snapshot.services:
        if tracked.service.name == name and tracked.release is not None:
            return tracked.release
    try:
        return store.history(name).release
    except KeyError:
        known = ", ".join(tracked.service.name for tracked in snapshot.services) or "none yet"
        raise CommandRefused(f"there is no service or release called {name!r}; services here: {known}") from None


def is_over(store: SqlStore, release: Release) -> bool:
    """Is it final, and has what it leaves behind finished its last requests?"""
    if not release.phase.is_final:
        return False
    return not any(
        tracked.service.retiring for tracked in store.snapshot().services if tracked.service.name == release.service
    )


def view_of(store: SqlStore, release: Release) -> View:
    """Where a release stands, from what is stored."""
    reports = store.recent_reports(release.service, time.time() - 4 * RECENT_S)
    events = [told.event for told in store.events_after(release_id=release.id, limit=EVENTS_AT_ONCE)]
    return view_from(release, weights_of(release), reports, events)
