"""What gateways and servers must do for a service, as a function of where its release stands. Nothing is remembered.

It knows nothing of routing table versions, of Envoy or of processes. Called by the controller, which puts the routes
of all services into one table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from graylift.domain.release import Phase, Release, Service
from graylift.domain.revision import Revision
from graylift.domain.routing import Backend, ServiceRoutes, ShadowRoutes
from graylift.domain.spec import LabelRule
from graylift.domain.weights import NONE, Role
from graylift.rollout.arms import GOING_BACK, ON_TRAFFIC, weights_of


def routes(service: Service, release: Release | None, addresses: Mapping[str, str]) -> ServiceRoutes | None:
    """How the service's requests are routed now. `addresses`: host:port by revision id, as far as known.

    None until stable has an address: there is nothing yet that could answer.
    """
    stable = _backends(() if service.stable is None else (service.stable,), addresses)
    if not stable:
        return None
    in_flight = release if release is not None and not release.phase.is_final else None
    candidates = _backends(_with_weight(in_flight), addresses)
    on_traffic = bool(candidates) and in_flight is not None and in_flight.phase in ON_TRAFFIC
    # The file's routing belongs to the release until it is promoted: rolled back is as it was before.
    routing = in_flight.spec.routing if in_flight is not None and on_traffic else service.routing
    return ServiceRoutes(
        service=service.name,
        protocol=service.protocol,
        stable=stable[0],
        candidate=candidates[0] if candidates else None,
        weights=weights_of(in_flight) if in_flight is not None and candidates else NONE,
        match=tuple(rule for rule in routing.match if on_traffic or _is_for_stable(rule)),
        sticky=routing.sticky,
        salt=service.name if in_flight is None else in_flight.salt,
        split=split_of(service, release),
        timeout_s=routing.timeout_s,
        draining=_backends(kept(service, release), addresses),
        shadow=_shadow(in_flight) if in_flight is not None and on_traffic else None,
        limits=routing.limits,
    )


def _shadow(release: Release) -> ShadowRoutes | None:
    """What the current stage shadows."""
    requests, judge = release.current_stage.shadow, release.spec.judge.shadow
    if requests is None or judge is None:
        return None
    return ShadowRoutes(requests, judge.tolerance, judge.keep_examples)


def split_of(service: Service, release: Release | None) -> str:
    """The name of what assigns requests now: another one for each stage, for going back, and for no release."""
    at_rest = f"{service.name}/stable"
    if release is None:
        return at_rest
    match release.phase:
        case Phase.PENDING | Phase.CHECKING | Phase.PROMOTED | Phase.ROLLED_BACK | Phase.REJECTED:
            return at_rest
        case Phase.STARTING:
            return f"{release.id}/starting"
        case Phase.PROGRESSING | Phase.PAUSED | Phase.PROMOTING:
            return f"{release.id}/{release.stage}"
        case Phase.ROLLING_BACK | Phase.ROLLBACK_FAILED:
            return f"{release.id}/back"
        case _:
            assert_never(release.phase)


def wanted(service: Service, release: Release | None) -> tuple[Revision, ...]:
    """The revisions whose servers must run: stable, and the candidate from STARTING on until it goes back."""
    return _unique((*(() if service.stable is None else (service.stable,)), *_with_weight(release)))


def kept(service: Service, release: Release | None) -> tuple[Revision, ...]:
    """The revisions that get no new request but may finish what they have begun: not stopped, not started again."""
    leaving = [retiring.revision for retiring in service.retiring]
    if release is not None and release.phase in GOING_BACK and release.candidate is not None:
        leaving.append(release.candidate)
    needed = {revision.id for revision in wanted(service, release)}
    return tuple(revision for revision in _unique(leaving) if revision.id not in needed)


def _with_weight(release: Release | None) -> tuple[Revision, ...]:
    """The candidate, where a weight is set for it, be it 0."""
    if release is None or release.candidate is None:
        return ()
    return (release.candidate,) if release.phase is Phase.STARTING or release.phase in ON_TRAFFIC else ()


def _is_for_stable(rule: LabelRule) -> bool:
    return rule.to is Role.STABLE


def _unique(revisions: Iterable[Revision]) -> tuple[Revision, ...]:
    return tuple({revision.id: revision for revision in revisions}.values())


def _backends(revisions: Iterable[Revision], addresses: Mapping[str, str]) -> tuple[Backend, ...]:
    return tuple(Backend(revision.id, addresses[revision.id]) for revision in revisions if revision.id in addresses)
