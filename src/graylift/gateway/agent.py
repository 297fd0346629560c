"""The gateway agent: one Envoy of this machine as Router and EvidenceSource.

It wires the parts of this package and owns their tasks. `cli/wiring.py` makes one and hands it to the controller,
which knows it only by its ports.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from types import TracebackType

from graylift.domain.evidence import IntervalReport
from graylift.domain.routing import GatewayState, RoutingTable
from graylift.domain.scores import Score, Scored, ScoreFate
from graylift.envoy import readback
from graylift.envoy.bootstrap import bootstrap
from graylift.errors import GatewayBusy, GatewayError, TableRefused
from graylift.gateway.budgets import MemoryBudgets
from graylift.gateway.config import GatewayConfig
from graylift.gateway.evidence import POLL_S, LogFollower, SteadyTime
from graylift.gateway.grpc_server import LONGEST_SOCKET_PATH, GrpcServer
from graylift.gateway.limiter import Budgets, Limiter
from graylift.gateway.shadow import ShadowDesk
from graylift.gateway.state import AgentState
from graylift.gateway.supervisor import Supervisor
from graylift.gateway.tables import TableKeeper
from graylift.gateway.tail import end_line
from graylift.gateway.timeline import Timeline
from graylift.gateway.valkey_budgets import ValkeyBudgets

_LOG_IS_BEHIND_S = 1.0
"""How long an answer may be with its client before the agent has read of it; more than Envoy's flush interval."""


class GatewayAgent:
    """`async with GatewayAgent(config) as agent:` starts or adopts Envoy; at the end Envoy serves on, unless
    `shutdown` was called. Every method raises GatewayError if a part of the agent has failed for good."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = replace(config, state_dir=config.state_dir.resolve())
        self._supervisor = Supervisor(self._config, _bootstrap(self._config), self._prepare)
        self._server = GrpcServer(self._config.socket, lambda: [Limiter(_budgets(self._config))])
        self._tasks: list[asyncio.Task[None]] = []
        self._held = AsyncExitStack()

    async def start(self) -> None:
        """Returns when Envoy serves with the last good table. GatewayError if it cannot, with the cure."""
        self._make_folders()
        async with AsyncExitStack() as held:
            held.callback(os.close, _locked(self._config))
            state = AgentState(self._config.state, self._config.max_reports)
            held.callback(state.close)
            checkpoint = state.checkpoint()
            self._now = SteadyTime(0.0 if checkpoint is None else checkpoint.seen_s)
            self._timeline = Timeline() if checkpoint is None else Timeline(checkpoint.in_force, checkpoint.gaps)
            self._keeper = TableKeeper(self._config, state, self._timeline, self._now)
            self._shadow = ShadowDesk(self._config.shadow_socket, self._now)
            held.push_async_callback(self._shadow.close)
            self._follower = LogFollower(
                self._config,
                state=state,
                checkpoint=checkpoint,
                timeline=self._timeline,
                supervisor=self._supervisor,
                shadow=self._shadow,
                now=self._now,
            )
            held.callback(self._follower.close)
            held.push_async_callback(self._server.close)
            await self._answer_for(*state.tables().known)
            held.push_async_callback(self._supervisor.close)
            await self._supervisor.start()
            await self._follower.begin()
            await self._keeper.resume(self._supervisor)
            await self._note_table()
            self._held = held.pop_all()
        self._tasks = [
            asyncio.create_task(self._supervisor.keep(self._follower.envoy_ended, self._envoy_is_back)),
            asyncio.create_task(self._follower.run()),
        ]

    async def apply(self, table: RoutingTable) -> None:
        """See `ports.Router`. Returns when Envoy routes by the table, or when Envoy is away; then as soon as it is
        back it is applied."""
        self._check()
        try:
            await self._answer_for(table)
        except GatewayError as exc:
            raise TableRefused(f"routing table {table.version} asks more of the agent than it can do: {exc}") from exc
        await self._keeper.apply(table, self._supervisor)

    async def observe(self) -> Sequence[GatewayState]:
        """See `ports.Router`."""
        self._check()
        name, refused = self._config.name, self._keeper.refused
        try:
            admin = self._supervisor.admin
            dump = await admin.get("/config_dump")
            clusters = await admin.get("/clusters?format=json")
        except GatewayError as exc:
            return (GatewayState(name, None, refused, (), (), str(exc)),)
        return (
            GatewayState(
                gateway=name,
                applied_version=self._keeper.known(readback.applied_version(dump)),
                refused=refused,
                healthy=readback.healthy(clusters),
                open_requests=readback.open_requests(clusters),
                problem=self._follower.problem,
            ),
        )

    async def read(self, after: Sequence[tuple[str, int]]) -> Sequence[IntervalReport]:
        """See `ports.EvidenceSource`. At most a thousand at a time; ask again for the rest."""
        self._check()
        return await self._follower.read(dict(after).get(self._config.name))

    async def score(self, given: Sequence[Score], known: Mapping[str, Collection[str]]) -> Sequence[Scored]:
        """See `ports.Scores`. Whoever scores an answer at once may be faster than its line in the log, so what is
        unknown is asked again for a moment."""
        self._check()
        fates = list(self._follower.score(given, known))
        patience = asyncio.timeout(_LOG_IS_BEHIND_S)
        with suppress(TimeoutError):
            async with patience:
                while late := [number for number, one in enumerate(fates) if one.fate is ScoreFate.UNKNOWN]:
                    await asyncio.sleep(POLL_S)
                    again = self._follower.score([given[number] for number in late], known)
                    for number, fate in zip(late, again, strict=True):
                        fates[number] = fate
        return fates

    async def close(self) -> None:
        """Stop watching. Envoy serves on and is adopted by the next agent of this folder."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._held.aclose()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def shutdown(self) -> None:
        """End Envoy: it takes no new connections, finishes what runs, and ends. Works without `start` too."""
        for task in self._tasks[:1]:  # whoever restarts an Envoy that ended must know that this end is wanted
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._supervisor.shutdown()

    async def __aenter__(self) -> GatewayAgent:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _prepare(self) -> None:
        end_line(self._config.access_log)
        self._keeper.write_last_good()

    async def _envoy_is_back(self) -> None:
        self._follower.envoy_is_back()
        await self._keeper.resume(self._supervisor)

    async def _answer_for(self, *tables: RoutingTable) -> None:
        """Be there for the questions that Envoy has by these tables, before it has them."""
        if any(service.limits is not None for table in tables for service in table.services):
            await self._server.start()
        if any(service.shadow is not None for table in tables for service in table.services):
            await self._shadow.start()

    async def _note_table(self) -> None:
        """Say which table is in force, if that is not the one that was when the last agent ended."""
        dump = await self._supervisor.admin.get("/config_dump")
        version = self._keeper.known(readback.applied_version(dump))
        if version is not None and version != self._timeline.version:
            self._timeline.table_holds(version, self._now())

    def _check(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    def _make_folders(self) -> None:
        try:
            self._config.xds_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise GatewayError(f"the gateway's folder {self._config.xds_dir} cannot be made: {exc.strerror}") from exc
        socket = max(self._config.socket, self._config.shadow_socket, key=lambda path: len(os.fsencode(path)))
        too_long = len(os.fsencode(socket)) - LONGEST_SOCKET_PATH
        if too_long > 0:
            raise GatewayError(
                f"{socket} is {too_long} bytes longer than a socket's path may be "
                f"({LONGEST_SOCKET_PATH}); choose a shorter state directory"
            )


def _bootstrap(config: GatewayConfig) -> str:
    return bootstrap(
        node=config.name,
        listen_host=config.listen_host,
        listen_port=config.listen_port,
        xds_dir=str(config.xds_dir),
        access_log=str(config.access_log),
        shadow_socket=str(config.shadow_socket),
        agent_socket=str(config.socket),
    )


def _budgets(config: GatewayConfig) -> Budgets:
    return MemoryBudgets() if config.limits_store is None else ValkeyBudgets(config.limits_store)


def _locked(config: GatewayConfig) -> int:
    """The lock that keeps a second agent from this folder. GatewayBusy if another one has it."""
    lock = os.open(config.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        holder = os.pread(lock, 32, 0).decode() or "unknown"
        os.close(lock)
        raise GatewayBusy(
            f"another agent (process {holder}) works in {config.state_dir}. "
            "End it, or give this gateway a folder of its own"
        ) from exc
    os.truncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock
