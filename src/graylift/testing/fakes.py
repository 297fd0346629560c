"""In-memory gateways, servers, evidence, checks and time, that a test can make sick. See `memory_store` for the store.

They keep the promises of their ports, so that what works on them works on the real ones; all time is virtual.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.release import CheckReport, CheckResult
from graylift.domain.revision import Instance, InstanceState, Revision
from graylift.domain.routing import GatewayState, RoutingTable
from graylift.domain.sources import WantedMetric
from graylift.domain.spec import ReleaseSpec
from graylift.domain.tally import Tally
from graylift.errors import DeployError, GatewayError, GrayliftError, TableRefused
from graylift.testing.samples import check_report


class FakeClock:
    """ports.Clock: to sleep is to move the time on."""

    def __init__(self, start_s: float = 1_000_000.0) -> None:
        self._start_s = start_s
        self._elapsed_s = 0.0

    def now(self) -> float:
        return self._start_s + self._elapsed_s

    def monotonic(self) -> float:
        return self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        self._elapsed_s += seconds
        await asyncio.sleep(0)

    def pass_time(self, seconds: float) -> None:
        self._elapsed_s += seconds


@dataclass(slots=True)
class _Ordered:
    revision: Revision
    since_s: float
    died: str | None = None


class FakeDeployer:
    """ports.Deployer: servers that get ready `ready_after_s` after they were ordered.

    refuses: by revision name, why its server cannot be started
    stuck:   names of revisions whose server never gets ready
    started, stopped: revision ids, in order
    """

    def __init__(self, clock: FakeClock, ready_after_s: float = 0.0) -> None:
        self._clock = clock
        self._ready_after_s = ready_after_s
        self._servers: dict[str, _Ordered] = {}
        self.refuses: dict[str, str] = {}
        self.stuck: set[str] = set()
        self.away: str | None = None
        self.started: list[str] = []
        self.stopped: list[str] = []

    async def ensure(self, revision: Revision) -> None:
        if revision.name in self.refuses:
            raise DeployError(self.refuses[revision.name])
        server = self._servers.get(revision.id)
        if server is None or server.died is not None:
            self._servers[revision.id] = _Ordered(revision, self._clock.now())
            self.started.append(revision.id)

    async def observe(self, revisions: Sequence[Revision]) -> Sequence[Instance]:
        if self.away is not None:
            raise DeployError(self.away)
        return [self.instance(revision.id) for revision in revisions]

    async def running(self) -> Sequence[str]:
        return list(self._servers)

    async def stop(self, revision_id: str) -> None:
        if self._servers.pop(revision_id, None) is not None:
            self.stopped.append(revision_id)

    def ordered(self) -> tuple[Revision, ...]:
        """Whose servers were started and not stopped, dead ones among them."""
        return tuple(server.revision for server in self._servers.values())

    def kill(self, name: str, detail: str = "signal 9; last log line: serving") -> None:
        """The server of the revision of that name ends by itself."""
        for server in self._servers.values():
            if server.revision.name == name:
                server.died = detail

    def instance(self, revision_id: str) -> Instance:
        server = self._servers.get(revision_id)
        if server is None:
            return Instance(revision_id, InstanceState.ABSENT)
        if server.died is not None:
            return Instance(revision_id, InstanceState.DEAD, None, server.died)
        address = f"{server.revision.name}.test:80"
        young = self._clock.now() - server.since_s < self._ready_after_s
        if young or server.revision.name in self.stuck:
            return Instance(revision_id, InstanceState.STARTING, address, "loading the model")
        return Instance(revision_id, InstanceState.READY, address)


@dataclass(slots=True)
class FakeGateway:
    """One gateway. While `away` or `frozen` it keeps what it runs; away, it does not even answer."""

    name: str
    table: RoutingTable | None = None
    away: bool = False
    frozen: bool = False
    refuses: str | None = None
    refused: str | None = None
    newest_token: int = 0
    open_requests: dict[str, int] = field(default_factory=dict[str, int])


class FakeRouter:
    """ports.Router: gateways that take a table at once, unless they were told otherwise.

    A server is healthy at a gateway that has it in its table, if `deployer` says it is ready.
    applied: every table that was handed out, in order
    """

    def __init__(self, deployer: FakeDeployer, gateways: Sequence[str] = ("g1",)) -> None:
        self._deployer = deployer
        self.gateways = {name: FakeGateway(name) for name in gateways}
        self.applied: list[RoutingTable] = []
        self.broken: str | None = None

    async def apply(self, table: RoutingTable) -> None:
        if self.broken is not None:
            raise GatewayError(self.broken)
        self.applied.append(table)
        present = [gateway for gateway in self.gateways.values() if not gateway.away]
        for gateway in present:
            gateway.refused = gateway.refuses
            if table.token < gateway.newest_token:
                gateway.refused = f"token {table.token} is older than {gateway.newest_token}"
            if gateway.refused is None:
                gateway.newest_token = table.token
                if not gateway.frozen:
                    gateway.table = table
        if present and all(gateway.refused is not None for gateway in present):
            raise TableRefused("; ".join(f"{gateway.name}: {gateway.refused}" for gateway in present))

    async def observe(self) -> Sequence[GatewayState]:
        if self.broken is not None:
            raise GatewayError(self.broken)
        return [self._state(gateway) for gateway in self.gateways.values()]

    def _state(self, gateway: FakeGateway) -> GatewayState:
        if gateway.away:
            return GatewayState(gateway.name, None, None, (), (), "it does not answer")
        backends = [b for s in (gateway.table.services if gateway.table else ()) for b in (s.stable, s.candidate) if b]
        ready = [b.revision_id for b in backends if self._deployer.instance(b.revision_id).state is InstanceState.READY]
        return GatewayState(
            gateway=gateway.name,
            applied_version=None if gateway.table is None else gateway.table.version,
            refused=gateway.refused,
            healthy=tuple(ready),
            open_requests=tuple(gateway.open_requests.items()),
        )


class FakeEvidence:
    """ports.EvidenceSource: what a test says that gateways saw. Reports stay until they are read past."""

    def __init__(self) -> None:
        self._reports: dict[str, list[IntervalReport]] = {}
        self._sequences: dict[str, int] = {}
        self.broken: str | None = None

    def add(
        self,
        gateway: str,
        start_s: float,
        windows: Sequence[Window] = (),
        *,
        table_version: int | None,
        length_s: float = 1.0,
        gap: str | None = None,
    ) -> IntervalReport:
        """The next report of a gateway."""
        sequence = self._sequences.get(gateway, 0) + 1
        self._sequences[gateway] = sequence
        report = IntervalReport(gateway, sequence, start_s, length_s, table_version, tuple(windows), gap)
        self._reports.setdefault(gateway, []).append(report)
        return report

    async def read(self, after: Sequence[tuple[str, int]]) -> Sequence[IntervalReport]:
        if self.broken is not None:
            raise GatewayError(self.broken)
        for gateway, sequence in after:
            kept = self._reports.get(gateway, [])
            self._reports[gateway] = [report for report in kept if report.sequence > sequence]
        return [report for _, reports in sorted(self._reports.items()) for report in reports]


class FakeMetrics:
    """ports.MetricSource: what a test says that was counted elsewhere; kept until it is read past.

    wanted: what the controller asked for last
    broken: by source of a metric, why nothing is known of it
    """

    def __init__(self) -> None:
        self._reports: dict[str, list[IntervalReport]] = {}
        self._sequences: dict[str, int] = {}
        self.wanted: tuple[WantedMetric, ...] = ()
        self.broken: dict[str, str] = {}

    def count(self, wanted: WantedMetric, start_s: float, gap: str | None = None, **events: Tally) -> None:
        """An interval of a metric: the events of `candidate` and of `stable`."""
        sequence = self._sequences[wanted.source] = self._sequences.get(wanted.source, 0) + 1
        windows = tuple(
            Window(
                *(wanted.service, wanted.split, arm.role, arm.revision_id, None),
                external=((wanted.metric, events[arm.role.value]),),
            )
            for arm in wanted.arms
            if arm.role.value in events
        )
        report = IntervalReport(wanted.source, sequence, start_s, 1.0, None, windows, gap)
        self._reports.setdefault(wanted.source, []).append(report)

    async def read(self, wanted: Sequence[WantedMetric], after: Sequence[tuple[str, int]]) -> Sequence[IntervalReport]:
        self.wanted = tuple(wanted)
        cursors = dict(after)
        return [
            report
            for one in wanted
            if one.source not in self.broken
            for report in self._reports.get(one.source, [])
            if report.sequence > cursors.get(one.source, 0)
        ]

    def troubles(self) -> Sequence[tuple[str, str]]:
        return list(self.broken.items())


class FakeChecklist:
    """ports.Checklist: what a test says that checks find; both revisions and a PASS if it says nothing.

    errors: raised one after the other, before any report is given
    early:  told at the beginning, while the others still run
    """

    def __init__(self, found: Callable[[ReleaseSpec], CheckReport] = check_report) -> None:
        self.found = found
        self.errors: list[GrayliftError] = []
        self.early: tuple[CheckResult, ...] = ()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.begun = 0
        self.cancelled = 0

    async def run(self, spec: ReleaseSpec, tell: Callable[[CheckResult], None]) -> CheckReport:
        self.begun += 1
        for result in self.early:
            tell(result)
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.errors:
            raise self.errors.pop(0)
        return self.found(spec)
