"""What the moves of a release mean for its service: who is stable, and who retires. Called by the controller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from graylift.domain.release import Event, Phase, Release, Retiring, Service
from graylift.domain.revision import Revision
from graylift.domain.routing import GatewayState
from graylift.domain.spec import ServingProtocol
from graylift.rollout.arms import UNBOUND, candidate_of, stable_of
from graylift.rollout.wording import duration

DRAIN_S = 60.0
STREAMS_DRAIN_S = 600.0
"""How long a revision that retires may still answer what it has begun. A stream of tokens has no timeout that would end
it sooner; OpenAI's own client waits for ten minutes, unless it is told otherwise."""


def drain_s(service: Service) -> float:
    match service.protocol:
        case ServingProtocol.OPEN_INFERENCE:
            return DRAIN_S
        case ServingProtocol.OPENAI:
            return STREAMS_DRAIN_S


def settle(service: Service, before: Release | None, after: Release, now: float) -> Service:
    """The service after its release went from `before` to `after` (another phase, or another release)."""
    if before is not None and before.id == after.id and before.phase is after.phase:
        return service
    if service.stable is None and after.stable is not None and after.phase not in (*UNBOUND, Phase.REJECTED):
        service = replace(service, stable=after.stable)
    match after.phase:
        case Phase.PROMOTED:
            promoted = replace(service, stable=candidate_of(after), routing=after.spec.routing)
            return _with_retiring(promoted, stable_of(after), now)
        case Phase.ROLLED_BACK:
            return _with_retiring(service, candidate_of(after), now)
        case _:
            return service


def _with_retiring(service: Service, revision: Revision, now: float) -> Service:
    others = tuple(retiring for retiring in service.retiring if retiring.revision.id != revision.id)
    return replace(service, retiring=(*others, Retiring(revision, now + drain_s(service))))


def retire(service: Service, gateways: Sequence[GatewayState], table_version: int, now: float) -> Service:
    """The service without the retiring revisions that have nothing left to do, or no time left.

    A revision is idle when every gateway runs the newest routing table, which sends it nothing, and none has a request
    open on it. What cannot be seen counts as busy, until the revision's time is over.
    """
    seen = bool(gateways) and all(
        g.applied_version is not None and g.applied_version >= table_version for g in gateways
    )
    busy = {revision for gateway in gateways for revision, open_requests in gateway.open_requests if open_requests > 0}
    staying = tuple(
        retiring
        for retiring in service.retiring
        if now < retiring.until_s and (not seen or retiring.revision.id in busy)
    )
    return service if len(staying) == len(service.retiring) else replace(service, retiring=staying)


def partings(
    before: Service, after: Service, release: Release, gateways: Sequence[GatewayState], now: float
) -> tuple[Event, ...]:
    """What is to be told of revisions that began to retire between the two, or had to end: of their open requests."""
    open_on = Counter[str]()
    for gateway in gateways:
        open_on.update(dict(gateway.open_requests))
    told = {
        "DRAINING": (
            [one for one in after.retiring if not _is_among(one, before)],
            f"gets no new request; it may answer what it has begun for {duration(drain_s(after))}",
        ),
        "DRAINED_LATE": (
            [one for one in before.retiring if not _is_among(one, after)],
            f"had {duration(drain_s(after))} for what it had begun, and is not waited for any longer",
        ),
    }
    return tuple(
        Event(now, release.service, release.id, kind, f"{one.revision.name} {text}: {_requests(count)} open")
        for kind, (retiring, text) in told.items()
        for one in retiring
        if (count := open_on[one.revision.id]) > 0
    )


def _is_among(retiring: Retiring, service: Service) -> bool:
    return any(other.revision.id == retiring.revision.id for other in service.retiring)


def _requests(count: int) -> str:
    return f"{count:,} request" + "s" * (count != 1)
