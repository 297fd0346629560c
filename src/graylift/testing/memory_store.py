"""ports.ReleaseStore without a file: for tests of whatever needs a store, and the shortest statement of what one does.

It holds one immutable state and replaces it whole, so that a commit that fails has changed nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from threading import Lock

from graylift.domain.evidence import IntervalReport
from graylift.domain.release import Command, Event, Release
from graylift.domain.routing import RoutingTable
from graylift.errors import LeaseLost
from graylift.ports import Change, Handled, History, Lease, Snapshot, Tracked


@dataclass(frozen=True, slots=True)
class _State:
    lease: Lease | None = None
    services: dict[str, Tracked] = field(default_factory=dict[str, Tracked])
    releases: dict[str, Release] = field(default_factory=dict[str, Release])
    table: RoutingTable | None = None
    events: tuple[Event, ...] = ()
    reports: tuple[IntervalReport, ...] = ()
    cursors: dict[str, int] = field(default_factory=dict[str, int])
    commands: dict[str, Command] = field(default_factory=dict[str, Command])
    outcomes: dict[str, Handled] = field(default_factory=dict[str, Handled])


class MemoryStore:
    """Everything is kept for as long as the object lives; it may be called from several threads."""

    def __init__(self) -> None:
        self._state = _State()
        self._lock = Lock()

    def acquire(self, holder: str, now: float, ttl_s: float) -> Lease | None:
        with self._lock:
            held = self._state.lease
            if held is not None and held.holder != holder and held.until_s > now:
                return None
            token = 1 if held is None else held.token + (held.holder != holder)
            taken = Lease(holder, token, now + ttl_s)
            self._state = replace(self._state, lease=taken)
            return taken

    def snapshot(self) -> Snapshot:
        state = self._state
        return Snapshot(
            services=tuple(tracked for _, tracked in sorted(state.services.items())),
            table=state.table,
            cursors=tuple(sorted(state.cursors.items())),
            commands=tuple(command for id_, command in state.commands.items() if id_ not in state.outcomes),
        )

    def commit(self, lease: Lease, change: Change) -> None:
        with self._lock:
            state = self._state
            held = state.lease
            if held is None or (held.holder, held.token) != (lease.holder, lease.token):
                raise LeaseLost(f"{lease.holder} lost the lease (token {lease.token}): stored is {held}")
            services, releases = dict(state.services), dict(state.releases)
            for tracked in change.tracked:
                name = tracked.service.name
                stored = services[name].revision_no if name in services else 0
                if stored != tracked.revision_no:
                    raise LeaseLost(f"service {name}: stored revision_no {stored}, read {tracked.revision_no}")
                services[name] = replace(tracked, revision_no=stored + 1)
                if tracked.release is not None:
                    releases[tracked.release.id] = tracked.release
            cursors, reports = dict(state.cursors), list(state.reports)
            for report in sorted(change.reports, key=lambda report: report.sequence):
                if report.sequence > cursors.get(report.gateway, -1):
                    cursors[report.gateway] = report.sequence
                    reports.append(report)
            self._state = replace(
                state,
                services=services,
                releases=releases,
                table=change.table or state.table,
                events=state.events + change.events,
                reports=tuple(reports),
                cursors=cursors,
                outcomes=state.outcomes | {handled.command_id: handled for handled in change.handled},
            )

    def append(self, command: Command) -> None:
        with self._lock:
            if command.id not in self._state.commands:
                self._state = replace(self._state, commands={**self._state.commands, command.id: command})

    def history(self, release_id: str) -> History:
        state = self._state
        release = state.releases[release_id]
        alive = [
            replace(report, windows=tuple(w for w in report.windows if w.service == release.service))
            for report in state.reports
            if report.start_s + report.length_s > release.created_s
            and (release.finished_s is None or report.start_s < release.finished_s)
            and report.service in (None, release.service)
        ]
        return History(
            release=release,
            events=tuple(told for told in state.events if told.release_id == release_id),
            reports=tuple(sorted(alive, key=lambda r: (r.start_s, r.gateway, r.sequence))),
        )
