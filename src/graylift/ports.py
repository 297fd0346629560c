"""What the controller needs of the world, as narrow as it can be. Implementations meet their ports in `cli/wiring.py`.

Each port has at most five methods, whoever can set can also observe, and `graylift.testing` ships an in-memory
implementation and a conformance suite of each. Implementations raise the errors named here and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from graylift.domain.evidence import IntervalReport
from graylift.domain.notices import Gate, GateAnswer, Notice, Question
from graylift.domain.release import CheckReport, CheckResult, Command, Event, Release, Service
from graylift.domain.revision import Instance, Revision
from graylift.domain.routing import GatewayState, RoutingTable
from graylift.domain.scores import Score, Scored
from graylift.domain.sources import WantedMetric
from graylift.domain.spec import ReleaseSpec
from graylift.protocols.otlp import HistogramPoint


class Clock(Protocol):
    """Time as an argument. Epoch seconds for what is stored, monotonic seconds for durations."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class Router(Protocol):
    """All gateways together."""

    async def apply(self, table: RoutingTable) -> None:
        """Hand the table to every gateway. Idempotent. Whether it took effect, `observe` tells.

        TableRefused if no gateway can take it; an unreachable gateway is no error here, but misses in `observe`.
        """
        ...

    async def observe(self) -> Sequence[GatewayState]:
        """What each gateway really does now, read back from its Envoy. One entry for every gateway that should be
        there; one that does not answer has `applied_version` None and a `problem`."""
        ...


class EvidenceSource(Protocol):
    """Where interval reports come from."""

    async def read(self, after: Sequence[tuple[str, int]]) -> Sequence[IntervalReport]:
        """The reports that follow the given (gateway, sequence) of each gateway, oldest first by gateway; all that
        are kept of a gateway that is not named. Reports up to `after` may be forgotten by the source. A source may give
        a part of them: ask again for the rest."""
        ...


class MetricSource(Protocol):
    """Where metrics come from that no gateway records."""

    async def read(self, wanted: Sequence[WantedMetric], after: Sequence[tuple[str, int]]) -> Sequence[IntervalReport]:
        """What is there of the wanted metrics that this source has, behind each one's (source, sequence), oldest first
        by metric; it waits for nobody. From now on these are read and no others. Each increment of a counter is in one
        report at most, also after a restart with the cursors of then. A report has no routing table: it says how
        something went, not how long it was observed."""
        ...

    def troubles(self) -> Sequence[tuple[str, str]]:
        """(source of a metric, why nothing new is known of it)."""
        ...


class Pushed(Protocol):
    """Where metrics go that servers push."""

    def take(self, points: Sequence[HistogramPoint]) -> None:
        """Count what is wanted now; the rest is nobody's. A point that comes twice counts once."""
        ...


class Scores(Protocol):
    """Where scores of answers join the requests they belong to."""

    async def score(self, given: Sequence[Score], known: Mapping[str, Collection[str]]) -> Sequence[Scored]:
        """Count each score once for (request, name), with the arm and the split that its request was assigned to.

        known: names that are judged now, by service; others are not counted
        """
        ...


class Deployer(Protocol):
    """Servers of revisions. Endpoints of other people are only observed."""

    async def ensure(self, revision: Revision) -> None:
        """Start the revision's server if it is not running; adopt it if it is. Returns before it is ready.

        Idempotent; a server that is DEAD is started again. DeployError if it cannot be started at all.
        """
        ...

    async def observe(self, revisions: Sequence[Revision]) -> Sequence[Instance]:
        """The state of each, in the same order."""
        ...

    async def running(self) -> Sequence[str]:
        """Ids of all revisions whose server this deployer has started and not stopped."""
        ...

    async def stop(self, revision_id: str) -> None:
        """End the server: it finishes what it has begun, within its drain time. Idempotent; returns before the end."""
        ...


class Checklist(Protocol):
    """The pre-release checks."""

    async def run(self, spec: ReleaseSpec, tell: Callable[[CheckResult], None]) -> CheckReport:
        """Build what must be built and check it. Idempotent: what was built is found again. A model that is wrong is
        a failed check in the report, never an exception. Cancelling leaves nothing half-built.

        tell: called in the running loop with each result of the report as its check ends
        """
        ...


class Notifier(Protocol):
    """How people and systems are told."""

    async def tell(self, notice: Notice) -> None:
        """Hand the notice to its receiver, once for each call, within a bounded time. NotTold, with a reason that
        holds no secret, if it was not taken."""
        ...


class Gates(Protocol):
    """Other systems that have a word in a release."""

    async def ask(self, gate: Gate, question: Question) -> GateAnswer:
        """What the gate says to `question` now, within its `timeout_s`. Whatever is no clear answer is AWAY, with the
        reason; nothing is raised. No secret is in it."""
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to act, until `until_s`. `token` rises each time the holder changes."""

    holder: str
    token: int
    until_s: float


@dataclass(frozen=True, slots=True)
class Tracked:
    """A service with the release that is in flight (or was last) and the judge's state, as stored.

    revision_no: rises with each commit of this service; a commit must name it
    judge_state: opaque text of `analysis`
    """

    service: Service
    release: Release | None
    judge_state: str | None
    revision_no: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a controller needs to go on after a restart.

    table:    the newest routing table, None before the first
    cursors:  (gateway, sequence) of the last interval report that was stored
    commands: not yet handled, in order of arrival
    """

    services: tuple[Tracked, ...]
    table: RoutingTable | None
    cursors: tuple[tuple[str, int], ...]
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Handled:
    """What came of a command. `text` is for the person who gave it; if `refused`, it says why and what can be done."""

    command_id: str
    text: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What one look changes, written in one transaction or not at all.

    tracked:  services to write, each with the `revision_no` it was read with (0 for a new one)
    reports:  interval reports to keep as evidence and to advance the cursors by
    handled:  commands that need no further look
    """

    tracked: tuple[Tracked, ...] = ()
    table: RoutingTable | None = None
    events: tuple[Event, ...] = ()
    reports: tuple[IntervalReport, ...] = ()
    handled: tuple[Handled, ...] = ()


class ReleaseStore(Protocol):
    """The state, durable. Methods block; the controller calls them in a thread. All raise StoreError."""

    def acquire(self, holder: str, now: float, ttl_s: float) -> Lease | None:
        """Take or renew the lease; None while somebody else holds it."""
        ...

    def snapshot(self) -> Snapshot: ...

    def commit(self, lease: Lease, change: Change) -> None:
        """Write all of it in one transaction. LeaseLost if the lease was taken by another or a `revision_no` is not
        the stored one; nothing is written then. A report that is stored already is passed over."""
        ...

    def append(self, command: Command) -> None:
        """Put a command before the controller. Appending one with a known id changes nothing."""
        ...

    def history(self, release_id: str) -> History:
        """All that is kept of one release. KeyError if there is none of that id."""
        ...


@dataclass(frozen=True, slots=True)
class History:
    """A release with its events and its evidence, both oldest first. What is of other services is left out."""

    release: Release
    events: tuple[Event, ...]
    reports: tuple[IntervalReport, ...]


@dataclass(frozen=True, slots=True)
class Unread:
    """An event with its number, and the file of its release; None if it belongs to none."""

    number: int
    event: Event
    spec: ReleaseSpec | None


class Outbox(Protocol):
    """What is still to be told, durable beside the events. Methods block and raise StoreError; those with a lease
    raise LeaseLost if another holds it, and have done nothing then."""

    def unread(self, limit: int = 1000) -> Sequence[Unread]:
        """The oldest events that were not sorted yet."""
        ...

    def sort(self, lease: Lease, up_to: int, notices: Sequence[Notice]) -> None:
        """The events up to number `up_to` are sorted: these notices come of them, and wait. In one transaction."""
        ...

    def waiting(self) -> Sequence[Notice]:
        """What was not settled yet, oldest first."""
        ...

    def settle(self, lease: Lease, notices: Sequence[Notice]) -> None:
        """These notices need nothing more: told, or given up."""
        ...
