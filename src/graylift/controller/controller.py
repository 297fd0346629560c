"""The shell around `plan`: read the world, store the plan in one transaction, then act on what is stored.

Every act is repeated at each look until it is seen to have worked, so there is nothing to undo and nothing to resume:
a controller that was killed is replaced by one that looks. It decides nothing. Called by `cli`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from graylift import rollout
from graylift.controller.checklists import Checklists
from graylift.controller.courier import Courier
from graylift.controller.gatekeeper import Gatekeeper
from graylift.controller.plan import Plan, World, plan
from graylift.controller.troubles import Patience, Troubles
from graylift.domain.evidence import IntervalReport
from graylift.domain.release import CheckReport, Phase
from graylift.domain.revision import Instance, InstanceState, Revision, RunningEndpoint
from graylift.domain.routing import GatewayState, RoutingTable
from graylift.errors import DeployError, GatewayError, GrayliftError, LeaseLost, StoreError
from graylift.ports import (
    Checklist,
    Clock,
    Deployer,
    EvidenceSource,
    Gates,
    Lease,
    MetricSource,
    Notifier,
    Outbox,
    ReleaseStore,
    Router,
    Snapshot,
    Tracked,
)

LOOK_S = 1.0
"""The longest time between two looks."""
POLL_S = 0.05
"""How soon new reports, a nudge or a stop are noticed between two looks."""
COMMANDS_EVERY = 5
"""So many polls between two glances for commands: each costs a read of the store."""
LEASE_S = 5.0
"""How long a controller that says nothing keeps the right to act."""

_log = logging.getLogger(__name__)


class Controller:
    """Drives all releases of one store. Two of them may run: only the one that holds the lease acts.

    holder: names this process in the lease; another process must have another name
    outbox, notifier: both, or nobody is told; gates: without any, stages that name some wait
    """

    def __init__(
        self,
        *,
        store: ReleaseStore,
        router: Router,
        evidence: EvidenceSource,
        deployer: Deployer,
        checklist: Checklist,
        clock: Clock,
        holder: str,
        metrics: Sequence[MetricSource] = (),
        gates: Gates | None = None,
        outbox: Outbox | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._store = store
        self._router = router
        self._evidence = evidence
        self._metrics = tuple(metrics)
        self._deployer = deployer
        self._checklists = Checklists(checklist, when_one_ends=self.nudge)
        self._clock = clock
        self._holder = holder
        self._lease: Lease | None = None
        self._cursors: dict[str, int] = {}
        self._applied: RoutingTable | None = None
        self._refusals: dict[str, str] = {}
        self._troubles = Troubles()
        self._patience = Patience()
        self._gatekeeper = None if gates is None else Gatekeeper(gates, clock, when_one_answers=self.nudge)
        self._courier = (
            None
            if outbox is None or notifier is None
            else Courier(outbox, notifier, clock, self._troubles, when_one_ends=self.nudge)
        )
        self._quiet_looks = 0
        self._reads_on = False
        self._nudged = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Look until `stop` is set. What runs then runs on: servers, gateways, their split."""
        try:
            while not stop.is_set():
                await self.look()
                await self.rest(stop)
        finally:
            await self.close()

    def nudge(self) -> None:
        """Something has changed: do not wait for the next look."""
        self._nudged.set()

    async def close(self) -> None:
        """Cancel the checks that run, tell what can be told soon, and give the lease back: the next controller need not
        wait for its end."""
        await self._checklists.close()
        if self._gatekeeper is not None:
            await self._gatekeeper.close()
        if self._courier is not None:
            await self._courier.close(self._lease)
        if self._lease is None:
            return
        self._lease = None
        try:
            await asyncio.to_thread(self._store.acquire, self._holder, self._clock.now(), 0.0)
        except StoreError as error:
            _log.warning("the lease runs out by itself: %s", error)

    async def look(self) -> Plan | None:
        """One pass over all services; what it came to. None if nothing was done: another controller holds the lease,
        or the store cannot be read or written (nothing is lost then, the next look sees the same)."""
        self._nudged.clear()
        self._quiet_looks += 1
        self._reads_on = False
        now = self._clock.now()
        try:
            lease = await self._hold(now)
            if lease is None:
                return None
            snapshot = await asyncio.to_thread(self._store.snapshot)
            world = await self._see(snapshot, now)
            planned = plan(snapshot, world, lease.token)
            self._note_servers(planned, world)
            await self._commit(lease, planned)
        except LeaseLost as lost:
            _log.warning("%s stops acting: %s", self._holder, lost)
            self._stand_by()
            return None
        except StoreError as error:
            self._troubles.note("store", str(error), now)
            return None
        self._troubles.over("store", now)
        self._cursors = dict(snapshot.cursors) | {r.gateway: r.sequence for r in world.reports}
        self._reads_on = bool(world.gateways)
        self._checklists.keep_only(t.release.id for t in planned.services if t.release and _is_checking(t))
        await self._act(planned, world, lease)
        if self._gatekeeper is not None:
            self._gatekeeper.ask(planned.questions)
        if self._courier is not None:
            await self._courier.look(lease, planned.services, now)
        if planned.moved:
            self._quiet_looks = 0
        return planned

    async def rest(self, stop: asyncio.Event) -> None:
        """Wait for the next look: as long as nothing happens, at most LOOK_S, and shorter just after a change."""
        until = self._clock.monotonic() + min(LOOK_S, POLL_S * 2 ** min(self._quiet_looks, 10))
        polls = 0
        while not stop.is_set() and not self._nudged.is_set():
            left = until - self._clock.monotonic()
            if left <= 0:
                return
            await self._clock.sleep(min(POLL_S, left))
            polls += 1
            # What could not be read or stored at the last look is no news; it waits for the next one.
            if not self._reads_on:
                continue
            if await self._has_reports() or (polls % COMMANDS_EVERY == 0 and await self._has_commands()):
                return

    async def _hold(self, now: float) -> Lease | None:
        """The lease, renewed when half of it is over."""
        if self._lease is not None and now < self._lease.until_s - LEASE_S / 2:
            return self._lease
        lease = await asyncio.to_thread(self._store.acquire, self._holder, now, LEASE_S)
        if lease is None:
            self._stand_by()
        elif self._lease is None or lease.token != self._lease.token:
            _log.info("%s holds the lease (token %d)", self._holder, lease.token)
        self._lease = lease
        return lease

    def _stand_by(self) -> None:
        """Another controller acts: forget what only the acting one may know."""
        self._lease = None
        self._checklists.keep_only(())
        if self._gatekeeper is not None:
            self._gatekeeper.ask(())
        if self._courier is not None:
            self._courier.stand_by()

    # Reading. What cannot be read is missing in the World; the look goes on without it.

    async def _see(self, snapshot: Snapshot, now: float) -> World:
        gateways = await self._see_gateways(snapshot, now)
        return World(
            now=now,
            gateways=tuple(gateways),
            instances=await self._see_servers(snapshot, now),
            # A report counts as one gateway's share of all, so it waits until it is known how many there are.
            reports=(*await self._read(snapshot, now), *await self._read_metrics(snapshot, now)) if gateways else (),
            checks=self._see_checks(snapshot, now),
            ended_checks={
                t.release.id: self._checklists.results(t.release) for t in snapshot.services if t.release is not None
            },
            gates={} if self._gatekeeper is None else self._gatekeeper.answers(),
        )

    async def _see_gateways(self, snapshot: Snapshot, now: float) -> Sequence[GatewayState]:
        try:
            gateways = await self._router.observe()
        except GatewayError as error:
            self._troubles.note("gateways", str(error), now, snapshot.services)
            return ()
        self._troubles.over("gateways", now, snapshot.services)
        for gateway in gateways:
            subject, problem = f"gateway {gateway.gateway}", gateway.problem or gateway.refused
            if problem is None:
                self._troubles.over(subject, now, snapshot.services)
            else:
                self._troubles.note(subject, problem, now, snapshot.services)
        return gateways

    async def _see_servers(self, snapshot: Snapshot, now: float) -> dict[str, Instance]:
        try:
            instances = await self._deployer.observe(tuple(_needed(snapshot.services).values()))
        except DeployError as error:
            self._troubles.note("servers", str(error), now, snapshot.services)
            return {}
        self._troubles.over("servers", now, snapshot.services)
        return {instance.revision_id: self._with_refusal(instance) for instance in instances}

    def _with_refusal(self, instance: Instance) -> Instance:
        """An absent server, with the reason why it could not be started."""
        if instance.state is not InstanceState.ABSENT:
            return instance
        return replace(instance, detail=instance.detail or self._refusals.get(instance.revision_id, ""))

    async def _read(self, snapshot: Snapshot, now: float) -> tuple[IntervalReport, ...]:
        try:
            reports = await self._evidence.read(snapshot.cursors)
        except GatewayError as error:
            self._troubles.note("evidence", str(error), now, snapshot.services)
            return ()
        self._troubles.over("evidence", now, snapshot.services)
        return tuple(reports)

    async def _read_metrics(self, snapshot: Snapshot, now: float) -> tuple[IntervalReport, ...]:
        """What is counted elsewhere. A source that is in trouble gives nothing: that is INCONCLUSIVE, and is told."""
        wanted = {
            one.source: (t, one) for t in snapshot.services for one in rollout.wanted_metrics(t.service, t.release)
        }
        reports: list[IntervalReport] = []
        ill: dict[str, str] = {}
        for source in self._metrics:
            reports += await source.read([one for _, one in wanted.values()], snapshot.cursors)
            ill |= dict(source.troubles())
        for name, (tracked, _) in wanted.items():
            if name in ill:
                self._troubles.note(f"metric {name}", ill[name], now, (tracked,))
            else:
                self._troubles.over(f"metric {name}", now, (tracked,))
        return tuple(reports)

    async def _has_reports(self) -> bool:
        try:
            return bool(await self._evidence.read(tuple(self._cursors.items())))
        except GatewayError:
            return False  # the next look meets it too, and tells it

    async def _has_commands(self) -> bool:
        try:
            return bool((await asyncio.to_thread(self._store.snapshot)).commands)
        except StoreError:
            return False  # as above

    def _see_checks(self, snapshot: Snapshot, now: float) -> dict[str, CheckReport]:
        reports: dict[str, CheckReport] = {}
        for tracked in snapshot.services:
            if tracked.release is None or not _is_checking(tracked):
                continue
            subject = f"checks of {tracked.release.id}"
            if not self._patience.allows(subject, self._clock.monotonic()):
                continue
            try:
                report = self._checklists.report(tracked.release)
            except GrayliftError as error:
                self._patience.tried(subject, self._clock.monotonic())
                self._troubles.note(subject, str(error), now, (tracked,))
                continue
            if report is not None:
                reports[tracked.release.id] = report
                self._patience.succeeded(subject)
                self._troubles.over(subject, now, (tracked,))
        return reports

    # Storing.

    async def _commit(self, lease: Lease, planned: Plan) -> None:
        events = self._troubles.untold
        change = replace(planned.change, events=(*planned.change.events, *events))
        if change.tracked or change.table or change.events or change.reports or change.handled:
            await asyncio.to_thread(self._store.commit, lease, change)
            self._troubles.told(events)

    # Acting, on what is stored and on nothing else.

    async def _act(self, planned: Plan, world: World, lease: Lease) -> None:
        # Users first: a rollback waits for no server.
        await self._apply(planned, world, lease)
        for tracked in planned.services:
            for revision in rollout.wanted(tracked.service, tracked.release):
                await self._ensure(tracked, revision, world)
        await self._stop_others(planned, world.now)

    async def _ensure(self, tracked: Tracked, revision: Revision, world: World) -> None:
        instance = world.instances.get(revision.id)
        state = InstanceState.ABSENT if instance is None else instance.state
        subject = _server(revision.id)
        if state is InstanceState.READY:
            self._patience.succeeded(subject)
        if state in (InstanceState.READY, InstanceState.STARTING):
            return
        monotonic = self._clock.monotonic()
        if not self._patience.allows(subject, monotonic):
            return
        self._patience.tried(subject, monotonic)
        try:
            await self._deployer.ensure(revision)
        except DeployError as error:
            self._refusals[revision.id] = str(error)
            self._troubles.note(subject, str(error), world.now, (tracked,))
        else:
            self._refusals.pop(revision.id, None)

    def _note_servers(self, planned: Plan, world: World) -> None:
        """Tell of servers that must run and have ended; they are started again."""
        for tracked in planned.services:
            for revision in rollout.wanted(tracked.service, tracked.release):
                instance = world.instances.get(revision.id)
                if instance is not None and instance.state is InstanceState.DEAD:
                    what = "is gone" if isinstance(revision.backend, RunningEndpoint) else "ended and is started again"
                    text = f"{revision.name} {what}: {instance.detail or 'it left no word'}"
                    self._troubles.note(_server(revision.id), text, world.now, (tracked,))
                if instance is not None and instance.state is InstanceState.READY:
                    self._troubles.over(_server(revision.id), world.now, (tracked,))

    async def _apply(self, planned: Plan, world: World, lease: Lease) -> None:
        if planned.table is None:
            return
        # The version names what the table says, the token who hands it out: after a takeover it is handed out anew.
        table = replace(planned.table, token=lease.token)
        behind = any(gateway.applied_version != table.version for gateway in world.gateways)
        if table == self._applied and not behind:
            return
        try:
            await self._router.apply(table)
        except GatewayError as error:
            self._troubles.note("routing table", str(error), world.now, planned.services)
            return
        self._applied = table
        self._troubles.over("routing table", world.now, planned.services)

    async def _stop_others(self, planned: Plan, now: float) -> None:
        needed = _needed(planned.services)
        try:
            for revision_id in await self._deployer.running():
                if revision_id not in needed:
                    await self._deployer.stop(revision_id)
        except DeployError as error:
            self._troubles.note("servers to stop", str(error), now, planned.services)
        else:
            self._troubles.over("servers to stop", now, planned.services)


def _needed(services: Iterable[Tracked]) -> dict[str, Revision]:
    """The revisions, by id, whose servers run for a reason."""
    return {
        revision.id: revision
        for tracked in services
        for select in (rollout.wanted, rollout.kept)
        for revision in select(tracked.service, tracked.release)
    }


def _is_checking(tracked: Tracked) -> bool:
    return tracked.release is not None and tracked.release.phase is Phase.CHECKING


def _server(revision_id: str) -> str:
    return f"server {revision_id}"
