"""A stage for whole releases in virtual time: gateways with traffic, servers, people who command, what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from graylift.controller import Controller, Plan
from graylift.controller.controller import LEASE_S
from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.histogram import bin_of, histogram_from_counts
from graylift.domain.release import Command, CommandKind, Event, Phase, Release, Service
from graylift.domain.routing import RoutingTable, ServiceRoutes
from graylift.domain.spec import ReleaseSpec, Stage
from graylift.domain.weights import ALL, TOTAL, Role, Weights
from graylift.errors import StoreError
from graylift.ports import Change, History, Lease, Snapshot
from graylift.testing.fakes import FakeChecklist, FakeClock, FakeDeployer, FakeEvidence, FakeRouter
from graylift.testing.memory_store import MemoryStore

STAGES = (Stage(Weights(2000), 3.0, 50), Stage(Weights(5000), 3.0, 50), Stage(ALL, 3.0))
ON_TRAFFIC = (Phase.PROGRESSING, Phase.PAUSED, Phase.PROMOTING)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a revision answers: the share of requests it fails, and how long an answer takes."""

    failed: float = 0.0
    latency_s: float = 0.010


class WatchedStore:
    """A store that can be locked, and that audits each commit: no evidence may be lost or counted twice."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.locked: str | None = None
        self.commits: list[Change] = []
        self.phases: list[tuple[str, Phase, int]] = []
        self._gateways: set[str] = set()

    def acquire(self, holder: str, now: float, ttl_s: float) -> Lease | None:
        self._may_go_on()
        return self._store.acquire(holder, now, ttl_s)

    def snapshot(self) -> Snapshot:
        self._may_go_on()
        return self._store.snapshot()

    def commit(self, lease: Lease, change: Change) -> None:
        self._may_go_on()
        before = self._store.snapshot()
        self._store.commit(lease, change)
        self.commits.append(change)
        self._audit(before, change)

    def append(self, command: Command) -> None:
        self._may_go_on()
        self._store.append(command)

    def history(self, release_id: str) -> History:
        self._may_go_on()
        return self._store.history(release_id)

    def _may_go_on(self) -> None:
        if self.locked is not None:
            raise StoreError(self.locked)

    def _audit(self, before: Snapshot, change: Change) -> None:
        cursors = dict(before.cursors)
        for report in change.reports:
            assert report.sequence == cursors.get(report.gateway, 0) + 1, "each report once, none left out"
            cursors[report.gateway] = report.sequence
            if report.table_version is not None:  # what is counted elsewhere knows of no table
                self._gateways.add(report.gateway)
        if change.table is not None:
            assert before.table is None or change.table.version > before.table.version
            assert before.table is None or change.table.token >= before.table.token
        old = {tracked.service.name: tracked.release for tracked in before.services}
        for tracked in change.tracked:
            release, was = tracked.release, old.get(tracked.service.name)
            assert release is not None
            place = (release.id, release.phase, release.stage)
            if not self.phases or self.phases[-1] != place:
                self.phases.append(place)
            if was is not None and was.id == release.id:
                _audit_observation(was, release, change.reports, self._gateways)


def _audit_observation(was: Release, release: Release, reports: tuple[IntervalReport, ...], gateways: set[str]) -> None:
    seen = sum(
        report.length_s / len(gateways)
        for report in reports
        if report.gap is None and report.table_version is not None and report.table_version >= was.stage_table
    )
    expected = was.observed_s + (seen if was.phase in ON_TRAFFIC else 0.0)
    if release.stage == was.stage and release.phase in ON_TRAFFIC and was.phase in ON_TRAFFIC:
        assert abs(release.observed_s - expected) < 1e-9
    if len(release.done) > len(was.done):
        assert abs(release.done[-1].observed_s - expected) < 1e-9


class Scene:
    """One service, `file-type`, unless a spec says otherwise. `rate`: requests a second at each gateway."""

    def __init__(self, *, gateways: tuple[str, ...] = ("g1",), rate: int = 400, ready_after_s: float = 0.0) -> None:
        self.clock = FakeClock()
        self.deployer = FakeDeployer(self.clock, ready_after_s)
        self.router = FakeRouter(self.deployer, gateways)
        self.evidence = FakeEvidence()
        self.checklist = FakeChecklist()
        self.memory = MemoryStore()
        self.store = WatchedStore(self.memory)
        self.rate = rate
        self.behaviours: dict[str, Behaviour] = {}
        self.silent: set[str] = set()
        self._carry: Counter[tuple[str, str]] = Counter()
        self._holders = 0
        self._commands = 0
        self.controller = self.new_controller()

    # Given

    def new_controller(self) -> Controller:
        self._holders += 1
        return Controller(
            store=self.store,
            router=self.router,
            evidence=self.evidence,
            deployer=self.deployer,
            checklist=self.checklist,
            clock=self.clock,
            holder=f"controller {self._holders}",
        )

    def behaves(self, name: str, *, failed: float = 0.0, latency_s: float = 0.010) -> None:
        self.behaviours[name] = Behaviour(failed, latency_s)

    # When

    def starts(self, spec: ReleaseSpec) -> str:
        return self.commands(CommandKind.START, spec=spec)

    def commands(self, kind: CommandKind, *, service: str = "file-type", spec: ReleaseSpec | None = None) -> str:
        self._commands += 1
        command = Command(
            f"command {self._commands}",
            service if spec is None else spec.service,
            kind,
            "ann",
            "",
            self.clock.now(),
            spec,
        )
        self.memory.append(command)
        return command.id

    async def looks(self) -> Plan | None:
        """Looks until nothing moves any more."""
        planned = await self.controller.look()
        for _ in range(20):
            if planned is None or not planned.moved:
                return planned
            planned = await self.controller.look()
        raise AssertionError("the controller never comes to rest")

    async def seconds(self, number: float) -> None:
        """Traffic and looks for so many seconds."""
        await self.looks()
        for _ in range(int(number)):
            self.traffic()
            await self.looks()

    async def until(self, *phases: Phase, within_s: int = 120) -> Release:
        await self.looks()
        for _ in range(within_s):
            if (release := self.maybe_release) is not None and release.phase in phases:
                return release
            self.traffic()
            await self.looks()
        raise AssertionError(f"after {within_s} s it is {self.release.phase} ({self.release.reason}), not {phases}")

    async def is_killed(self) -> None:
        """kill -9: whatever the controller knew is gone. Another one looks once its lease has run out."""
        await self.controller._checklists.close()  # its tasks end with it; the lease does not
        self.controller = self.new_controller()
        for _ in range(int(LEASE_S) + 1):
            self.traffic()

    def traffic(self) -> None:
        """One second at every gateway."""
        for name, gateway in self.router.gateways.items():
            if name in self.silent or gateway.table is None:
                continue
            self.evidence.add(name, self.clock.now(), self.windows(name), table_version=gateway.table.version)
        self.clock.pass_time(1.0)

    def windows(self, gateway: str) -> list[Window]:
        """What a gateway sees in one second."""
        table = self.router.gateways[gateway].table
        return [window for routes in table.services for window in self._windows(gateway, routes)] if table else []

    def _windows(self, gateway: str, routes: ServiceRoutes) -> list[Window]:
        to_candidate = self._share(gateway + routes.service, self.rate, routes.weights.candidate / TOTAL)
        arms = [(Role.STABLE, routes.stable, self.rate - to_candidate)]
        if routes.candidate is not None:
            arms.append((Role.CANDIDATE, routes.candidate, to_candidate))
        return [self._window(routes, arm, backend.revision_id, requests) for arm, backend, requests in arms if requests]

    def _window(self, routes: ServiceRoutes, arm: Role, revision_id: str, requests: int) -> Window:
        name = revision_id.split(".")[1]
        behaviour = self.behaviours.get(name, Behaviour())
        alive = self.deployer.instance(revision_id).address is not None
        failed = self._share(name, requests, behaviour.failed) if alive else requests
        slower = Counter(bin_of(behaviour.latency_s * (1 + (n % 10) / 20)) for n in range(requests - failed))
        return Window(
            routes.service,
            routes.split,
            arm,
            revision_id,
            None,
            requests=requests,
            failed=failed,
            latency=histogram_from_counts(slower),
            ttfb=histogram_from_counts(slower),
        )

    def _share(self, of: str, number: int, share: float) -> int:
        """`share` of `number`, exact in the long run."""
        owed = self._carry[of, "units"] + round(number * share * 1_000_000)
        self._carry[of, "units"] = owed % 1_000_000
        return owed // 1_000_000

    # Then

    @property
    def maybe_release(self) -> Release | None:
        services = self.memory.snapshot().services
        return services[0].release if services else None

    @property
    def release(self) -> Release:
        release = self.maybe_release
        assert release is not None
        return release

    @property
    def service(self) -> Service:
        return self.memory.snapshot().services[0].service

    @property
    def table(self) -> RoutingTable:
        table = self.memory.snapshot().table
        assert table is not None
        return table

    def weight_at(self, gateway: str = "g1") -> int:
        table = self.router.gateways[gateway].table
        assert table is not None
        return table.services[0].weights.candidate

    def stages(self) -> list[tuple[Phase, int]]:
        """Where the newest release has been, in order."""
        places = [(phase, stage) for release_id, phase, stage in self.store.phases if release_id == self.release.id]
        return [place for number, place in enumerate(places) if number == 0 or places[number - 1] != place]

    def events(self, kind: str | None = None) -> list[Event]:
        told = [event for change in self.store.commits for event in change.events]
        return [event for event in told if kind is None or event.kind == kind]

    def running(self) -> set[str]:
        return {revision.name for revision in self.deployer.ordered()}

    def outcome(self, command_id: str) -> str:
        handled = {h.command_id: h.text for change in self.store.commits for h in change.handled}
        return handled[command_id]


GOOD_WAY = [
    (Phase.PENDING, 0),
    (Phase.CHECKING, 0),
    (Phase.STARTING, 0),
    (Phase.PROGRESSING, 0),
    (Phase.PROGRESSING, 1),
    (Phase.PROMOTING, 2),
    (Phase.PROMOTED, 2),
]
