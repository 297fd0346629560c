"""What one look changes: from what is stored and what is seen to what is to be stored. Pure; called by the controller.

The same snapshot and the same world always give the same plan, so a look that was cut off is simply done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graylift import rollout
from graylift.controller import judging
from graylift.domain.evidence import IntervalReport
from graylift.domain.judgement import Judgement
from graylift.domain.notices import GateAnswer, Question
from graylift.domain.release import CheckReport, CheckResult, Command, Event, Release, Situation
from graylift.domain.revision import Instance, InstanceState, Revision
from graylift.domain.routing import Backend, GatewayState, RoutingTable, ServiceRoutes
from graylift.ports import Change, Handled, Snapshot, Tracked


@dataclass(frozen=True, slots=True)
class World:
    """What was seen at one look.

    gateways:  empty if none could be asked; `reports` is empty then too
    instances: by revision id; what the deployer could not tell is missing
    checks:    by release id, of the checklists that are done
    ended_checks: by release id, of the checks that have ended while others run
    gates:     by release id and stage, what the gates before that stage say
    """

    now: float
    gateways: tuple[GatewayState, ...]
    instances: Mapping[str, Instance]
    reports: tuple[IntervalReport, ...]
    checks: Mapping[str, CheckReport]
    ended_checks: Mapping[str, tuple[CheckResult, ...]]
    gates: Mapping[tuple[str, int], tuple[GateAnswer, ...]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be stored, and how things stand then.

    services: all of them, as they are after the change
    table:    the newest routing table, changed or not; None before the first
    moved:    something was set going: look again soon
    questions: what gates are to be asked
    """

    change: Change
    services: tuple[Tracked, ...]
    table: RoutingTable | None
    moved: bool
    questions: tuple[Question, ...] = ()


def plan(snapshot: Snapshot, world: World, token: int) -> Plan:
    """One look at everything. `token`: of the lease under which a new routing table is written."""
    newest = newest_version(snapshot.table, world.gateways)
    known = {tracked.service.name: tracked for tracked in snapshot.services}
    commands = _first_of_each(snapshot.commands)
    looks = [_look(known.get(name), commands.get(name), world, newest) for name in sorted({*known, *commands})]
    services = tuple(look.after for look in looks if look.after is not None)
    table = _table(snapshot.table, services, world, newest, token)
    change = Change(
        tracked=tuple(after for after in services if known.get(after.service.name) != after),
        table=table if table != snapshot.table else None,
        events=tuple(event for look in looks for event in look.events),
        reports=world.reports,
        handled=tuple(look.handled for look in looks if look.handled is not None),
    )
    moved = change.table is not None or bool(change.handled) or any(_has_moved(known, after) for after in services)
    questions = tuple(look.question for look in looks if look.question is not None)
    return Plan(change, services, table, moved, questions)


def newest_version(stored: RoutingTable | None, gateways: Sequence[GatewayState]) -> int:
    """Of the routing tables that were ever handed out. A gateway knows a newer one than the store only if the store
    was lost; to count on below it would take a gateway's old table for a new one."""
    return max(0 if stored is None else stored.version, *(gateway.applied_version or 0 for gateway in gateways), 0)


def _first_of_each(commands: Iterable[Command]) -> dict[str, Command]:
    """The first command of each service: the next one is to meet what this one changed, stored and applied."""
    first: dict[str, Command] = {}
    for command in commands:
        first.setdefault(command.service, command)
    return first


def _has_moved(known: Mapping[str, Tracked], after: Tracked) -> bool:
    before = known.get(after.service.name)
    return before is None or after.service != before.service or not _same_place(before.release, after.release)


def _same_place(before: Release | None, after: Release | None) -> bool:
    """Is it the same release in the same phase and stage?"""
    if before is None or after is None:
        return before is after
    return (before.id, before.phase, before.stage) == (after.id, after.phase, after.stage)


@dataclass(frozen=True, slots=True)
class _Look:
    """One service, looked at. `after` is None only for a command to a service that there is not."""

    after: Tracked | None
    events: tuple[Event, ...]
    handled: Handled | None = None
    question: Question | None = None


def _look(before: Tracked | None, command: Command | None, world: World, newest: int) -> _Look:
    """What was observed is counted in the stage it was observed in; then a person's word goes before a decision."""
    if before is None or before.release is None:
        return _begin(before, command, world, newest)
    service = rollout.retire(before.service, world.gateways, newest, world.now)
    release = before.release
    for report in world.reports:
        release = rollout.credit(release, report, len(world.gateways))
    judged = judging.judged(service, release, before.judge_state, world.reports)
    events = _lost(release, judged, world.now)
    after, handled, question = release, None, None
    if command is not None:
        obeyed = rollout.obey(command, service, release, newest, world.now)
        handled = Handled(command.id, obeyed.outcome, obeyed.refused)
        service, after, events = obeyed.service or service, obeyed.release or release, (*events, *obeyed.events)
    if after == release:
        situation = _situation(release, world, newest, judged.judgement)
        question = rollout.question(release, situation, world.now)
        after, told = rollout.evolve(release, rollout.decide(release, situation, world.now), situation, world.now)
        events = (*events, *told)
    settled = rollout.settle(service, release, after, world.now)
    events = (*events, *rollout.partings(before.service, settled, after, world.gateways, world.now))
    tracked = Tracked(
        service=settled,
        release=after,
        judge_state=judging.entered(service, release, after, judged.state),
        revision_no=before.revision_no,
    )
    return _Look(tracked, events, handled, question)


def _begin(before: Tracked | None, command: Command | None, world: World, newest: int) -> _Look:
    """A service without any release yet: only a person's START makes something of it."""
    if command is None:
        return _Look(before, ())
    obeyed = rollout.obey(command, None if before is None else before.service, None, newest, world.now)
    handled = Handled(command.id, obeyed.outcome, obeyed.refused)
    service, release = obeyed.service, obeyed.release
    if service is None or release is None:
        return _Look(before, obeyed.events, handled)
    judge_state = judging.entered(service, None, release, None)
    revision_no = 0 if before is None else before.revision_no
    return _Look(Tracked(service, release, judge_state, revision_no), obeyed.events, handled)


def _lost(release: Release, judged: judging.Judged, now: float) -> tuple[Event, ...]:
    if judged.lost is None:
        return ()
    text = f"the evidence so far is lost, the judge begins anew: {judged.lost}"
    return (Event(now, release.service, release.id, "EVIDENCE_LOST", text),)


def _situation(release: Release, world: World, newest: int, judgement: Judgement | None) -> Situation:
    def seen(revision: Revision | None) -> Instance | None:
        return None if revision is None else world.instances.get(revision.id)

    ahead = rollout.stage_ahead(release)
    return Situation(
        checks=world.checks.get(release.id),
        stable=seen(release.stable),
        candidate=seen(release.candidate),
        gateways=world.gateways,
        table_version=newest,
        judgement=judgement,
        ended_checks=world.ended_checks.get(release.id, ()),
        gates=() if ahead is None else world.gates.get((release.id, ahead), ()),
    )


def _table(
    stored: RoutingTable | None, services: Sequence[Tracked], world: World, newest: int, token: int
) -> RoutingTable | None:
    """The stored table if it still says what it should, else the next one."""
    addresses = {} if stored is None else {b.revision_id: b.address for s in stored.services for b in _backends(s)}
    # A server is put into the table once it can answer. One that died later has no address, or starts again: its
    # routes stay, since Envoy's retries and health checks deal with that.
    addresses |= {
        i.revision_id: i.address
        for i in world.instances.values()
        if i.address is not None and (i.state is InstanceState.READY or i.revision_id in addresses)
    }
    all_routes = (rollout.routes(tracked.service, tracked.release, addresses) for tracked in services)
    routes = tuple(r for r in all_routes if r is not None)
    if stored is None and not routes:
        return None
    if stored is not None and stored.services == routes and stored.version == newest:
        return stored
    return RoutingTable(newest + 1, token, routes)


def _backends(routes: ServiceRoutes) -> tuple[Backend, ...]:
    candidate = () if routes.candidate is None else (routes.candidate,)
    return (routes.stable, *candidate, *routes.draining)
