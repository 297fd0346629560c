"""A routing table brought into Envoy, step by step, so that no request finds a route without its cluster.

1. `cds.json` with the clusters of the old and the new table, until Envoy has them and none is warming any more
2. `rds.json` of the new table, until Envoy's workers route by it
3. `cds.json` of the new table alone

What is wanted is stored before the first step. If Envoy or the agent dies in between, Envoy starts with the last good
files, and the steps are taken again. If Envoy refuses a file, the last good ones are put back. Only `agent.py` uses
this.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from graylift.domain.routing import RoutingTable
from graylift.envoy import readback
from graylift.envoy.files import EnvoyFiles, across, render
from graylift.errors import GatewayError, TableRefused
from graylift.gateway.admin import Admin
from graylift.gateway.config import GatewayConfig
from graylift.gateway.state import AgentState, Tables
from graylift.gateway.supervisor import Supervisor
from graylift.gateway.timeline import Timeline

TAKEN_WITHIN_S = 15.0
"""Envoy takes a file within milliseconds, but a new cluster warms up to its first health check or DNS answer."""
ENVOY_BACK_WITHIN_S = 10.0

Dump = Mapping[str, Any]


class TableKeeper:
    """The tables of one gateway. `timeline` learns when which one was in force."""

    def __init__(self, config: GatewayConfig, state: AgentState, timeline: Timeline, now: Callable[[], float]) -> None:
        self._xds_dir = config.xds_dir
        self._envoy_log = config.envoy_log
        self._state = state
        self._timeline = timeline
        self._now = now
        self._tables = state.tables()
        self._turn = asyncio.Lock()

    @property
    def refused(self) -> str | None:
        """Why the last table was refused, None if it was not."""
        return self._tables.refused

    @staticmethod
    def known(version: int | None) -> int | None:
        """The version that Envoy runs, None if it runs the files that stand for no table."""
        return None if version == _NO_TABLE.version else version

    def write_last_good(self) -> None:
        """Lay out the files of the last good table, or of none, for an Envoy that is about to start."""
        files = self._good_files()
        self._write("cds.json", files.cds)
        self._write("rds.json", files.rds)

    async def apply(self, table: RoutingTable, supervisor: Supervisor) -> None:
        """Bring the table into Envoy. Returns when Envoy routes by it, or when Envoy is away: then it is applied as
        soon as Envoy is back. TableRefused, with the reason, if that cannot or must not be."""
        async with self._turn:
            self._admit(table)
            try:
                render(table)
            except ValueError as exc:
                await self._keep(replace(self._tables, token=table.token, refused=str(exc)))
                raise TableRefused(str(exc)) from exc
            await self._keep(replace(self._tables, token=table.token, intent=table))
            await self._converge(supervisor)

    async def resume(self, supervisor: Supervisor) -> None:
        """Finish what was begun before a restart of Envoy or of the agent. A refusal is kept for `refused`."""
        async with self._turn:
            try:
                await self._converge(supervisor)
            except TableRefused:
                return

    def _admit(self, table: RoutingTable) -> None:
        newest = self._tables.intent or self._tables.good
        if table.token < self._tables.token:
            raise TableRefused(
                f"routing table {table.version} comes with fencing token {table.token}, but one with token "
                f"{self._tables.token} was seen: its writer has lost the lease and must stop"
            )
        if newest is None or table.token > newest.token:
            return
        if table.version < newest.version:
            raise TableRefused(
                f"routing table {table.version} is older than table {newest.version}, which this gateway has already"
            )
        if table.version == newest.version and table != newest:
            raise TableRefused(
                f"routing table {table.version} differs from the one of the same version that this gateway has already"
            )

    async def _converge(self, supervisor: Supervisor) -> None:
        table = self._tables.intent
        if table is None:
            return
        try:
            admin = await _back(supervisor)
            if table != self._tables.good or table.version != readback.applied_version(await admin.get("/config_dump")):
                await self._bring(admin, self._good_files(), render(table))
        except TableRefused as exc:
            await self._keep(replace(self._tables, intent=None, refused=str(exc)))
            raise
        except GatewayError:
            # Envoy is away. It will come back with the last good files, and `resume` is called then.
            return
        await self._keep(replace(self._tables, good=table, intent=None, refused=None))

    async def _bring(self, admin: Admin, old: EnvoyFiles, new: EnvoyFiles) -> None:
        try:
            both = across(old, new)
            both_version = json.loads(both)["version_info"]
            await self._change(admin, "cds.json", both, lambda dump: readback.clusters_version(dump) == both_version)
            self._timeline.table_changes(self._now())
            await self._change(admin, "rds.json", new.rds, lambda dump: readback.routes_version(dump) == new.version)
            self._timeline.table_holds(new.version, self._now())
            await self._change(admin, "cds.json", new.cds, lambda dump: readback.applied_version(dump) == new.version)
        except TableRefused:
            self._timeline.table_changes(self._now())
            self._write("rds.json", old.rds)
            self._write("cds.json", old.cds)
            await self._until(admin, lambda dump: readback.applied_version(dump) == old.version)
            if self._tables.good is not None:
                self._timeline.table_holds(old.version, self._now())
            raise

    async def _change(self, admin: Admin, name: str, text: str, taken: Callable[[Dump], bool]) -> None:
        """Write a file and wait until Envoy has taken it. TableRefused with the reason if it does not."""
        said_before = self._envoy_log.stat().st_size
        self._write(name, text)
        await self._until(admin, taken, said_before)

    async def _until(self, admin: Admin, taken: Callable[[Dump], bool], said_before: int | None = None) -> None:
        """Wait for Envoy's configuration to be as wanted, or its log, from `said_before` on, to tell why it is not."""
        deadline = time.monotonic() + TAKEN_WITHIN_S
        pause_s = 0.002
        while not taken(dump := await admin.get("/config_dump")):
            refusal = None if said_before is None else readback.refusal(_text(self._envoy_log, said_before))
            if refusal is not None:
                raise TableRefused(f"Envoy refuses it: {refusal}")
            if time.monotonic() > deadline:
                warming = ", ".join(readback.warming(dump)) or "none"
                raise TableRefused(
                    f"Envoy has not taken it within {TAKEN_WITHIN_S:.0f} s; clusters still warming: {warming}"
                )
            await asyncio.sleep(pause_s)
            pause_s = min(0.05, pause_s * 1.5)

    async def _keep(self, tables: Tables) -> None:
        await asyncio.to_thread(self._state.keep_tables, tables)
        self._tables = tables

    def _good_files(self) -> EnvoyFiles:
        return render(self._tables.good or _NO_TABLE)

    def _write(self, name: str, text: str) -> None:
        # Beside and then over it: Envoy watches the folder for renames and never sees a half-written file. Not synced
        # to the disk: after a crash of the machine the files are written anew from the state, before Envoy starts.
        path = self._xds_dir / name
        new = path.with_name(name + ".new")
        try:
            new.write_text(text)
            new.replace(path)
        except OSError as exc:
            raise TableRefused(f"{path} cannot be written: {exc.strerror}; Envoy keeps its last good files") from exc


_NO_TABLE = RoutingTable(version=2**53 - 1, token=0, services=())
"""For Envoy's files before the first table: no service, under a version that no real table has."""


async def _back(supervisor: Supervisor) -> Admin:
    """Envoy's admin port; waits a little for an Envoy that is being restarted. GatewayError if it stays away."""
    deadline = time.monotonic() + ENVOY_BACK_WITHIN_S
    while True:
        try:
            return supervisor.admin
        except GatewayError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.02)


def _text(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")
