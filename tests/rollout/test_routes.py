"""The routes of a service in each phase, and who retires."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graylift.domain.release import Phase, Release, Retiring, Service
from graylift.domain.routing import Backend
from graylift.domain.spec import LabelRule, RoutingSpec, ServingProtocol, Sticky, StickyBy
from graylift.domain.weights import ALL, NONE, Role, Weights
from graylift.rollout import kept, partings, retire, routes, settle, wanted
from graylift.rollout.services import DRAIN_S, STREAMS_DRAIN_S
from graylift.testing.samples import gateway_state, release_spec, revision

V1, V2 = revision("v1"), revision("v2")
ADDRESSES = {V1.id: "127.0.0.1:9001", V2.id: "127.0.0.1:9002"}
TO_CANDIDATE, TO_STABLE = LabelRule("x-team", "us", Role.CANDIDATE), LabelRule("x-team", "them", Role.STABLE)
BY_USER = Sticky(StickyBy.HEADER, "x-user")
SPEC = release_spec(routing=RoutingSpec(BY_USER, (TO_CANDIDATE, TO_STABLE), 5.0))
SERVICE = Service("file-type", ServingProtocol.OPEN_INFERENCE, RoutingSpec(), V1)
NOW = 1000.0


def release(phase: Phase, stage: int = 0) -> Release:
    return Release(
        "file-type-1", SPEC, phase, "as before", stage, 0.0, 0.0, 4, False, "salt", 0.0, stable=V1, candidate=V2
    )


@pytest.mark.parametrize(
    ("phase", "stage", "weights", "has_candidate", "drains"),
    [
        (Phase.PENDING, 0, NONE, False, False),
        (Phase.CHECKING, 0, NONE, False, False),
        (Phase.STARTING, 0, NONE, True, False),
        (Phase.PROGRESSING, 0, Weights(500), True, False),
        (Phase.PROGRESSING, 1, Weights(5000), True, False),
        (Phase.PAUSED, 1, Weights(5000), True, False),
        (Phase.PROMOTING, 2, ALL, True, False),
        (Phase.ROLLING_BACK, 1, NONE, False, True),
        (Phase.ROLLBACK_FAILED, 1, NONE, False, True),
        (Phase.ROLLED_BACK, 1, NONE, False, False),
        (Phase.REJECTED, 0, NONE, False, False),
    ],
)
def test_the_weights_follow_from_the_phase(
    phase: Phase, stage: int, weights: Weights, has_candidate: bool, drains: bool
) -> None:
    seen = routes(SERVICE, release(phase, stage), ADDRESSES)

    assert seen is not None
    assert seen.weights == weights
    assert seen.stable == Backend(V1.id, "127.0.0.1:9001")
    assert seen.candidate == (Backend(V2.id, "127.0.0.1:9002") if has_candidate else None)
    assert seen.draining == ((Backend(V2.id, "127.0.0.1:9002"),) if drains else ())
    on_traffic = phase in (Phase.PROGRESSING, Phase.PAUSED, Phase.PROMOTING)
    assert seen.match == ((TO_CANDIDATE, TO_STABLE) if on_traffic else ())
    assert (seen.sticky, seen.timeout_s) == ((BY_USER, 5.0) if on_traffic else (None, 30.0))


def test_a_service_whose_stable_has_no_address_has_no_routes() -> None:
    assert routes(replace(SERVICE, stable=None), release(Phase.CHECKING), ADDRESSES) is None
    assert routes(SERVICE, None, {}) is None


def test_a_pause_changes_nothing_at_the_gateways() -> None:
    assert routes(SERVICE, release(Phase.PAUSED), ADDRESSES) == routes(SERVICE, release(Phase.PROGRESSING), ADDRESSES)


def test_who_goes_back_may_finish_but_is_not_started_again() -> None:
    back = release(Phase.ROLLING_BACK)

    assert wanted(SERVICE, back) == (V1,)
    assert kept(SERVICE, back) == (V2,)


def test_a_revision_that_retires_and_is_released_again_is_wanted_and_does_not_drain() -> None:
    service = replace(SERVICE, retiring=(Retiring(V2, NOW + DRAIN_S),))
    seen = routes(service, release(Phase.STARTING), ADDRESSES)

    assert wanted(service, release(Phase.STARTING)) == (V1, V2)
    assert kept(service, release(Phase.STARTING)) == ()
    assert seen is not None
    assert seen.draining == ()


def test_promotion_makes_the_candidate_stable_and_the_files_routing_the_services() -> None:
    service = settle(SERVICE, release(Phase.PROMOTING, 2), release(Phase.PROMOTED, 2), NOW)

    assert service.stable == V2
    assert service.routing == SPEC.routing
    assert service.retiring == (Retiring(V1, NOW + DRAIN_S),)


def test_a_settled_move_is_settled_once() -> None:
    service = settle(SERVICE, release(Phase.ROLLING_BACK), release(Phase.ROLLED_BACK), NOW)

    assert settle(service, release(Phase.ROLLED_BACK), release(Phase.ROLLED_BACK), NOW + 5) is service


def test_the_first_release_gives_the_service_its_stable_when_servers_start() -> None:
    fresh = replace(SERVICE, stable=None)

    assert settle(fresh, release(Phase.CHECKING), release(Phase.REJECTED), NOW).stable is None
    assert settle(fresh, release(Phase.CHECKING), release(Phase.STARTING), NOW).stable == V1


@pytest.mark.parametrize(
    ("gateways", "now", "stays"),
    [
        ((gateway_state(applied=5),), NOW, False),
        ((gateway_state(applied=4),), NOW, True),
        ((gateway_state(applied=None),), NOW, True),
        ((), NOW, True),
        ((gateway_state(applied=5, open_requests=((V2.id, 1),)),), NOW, True),
        ((gateway_state(applied=5), gateway_state("g2", applied=5, open_requests=((V2.id, 1),))), NOW, True),
        ((gateway_state(applied=5, open_requests=((V1.id, 9), (V2.id, 0))),), NOW, False),
        ((gateway_state(applied=5, open_requests=((V2.id, 1),)),), NOW + DRAIN_S, False),
        ((), NOW + DRAIN_S, False),
    ],
)
def test_who_retires_stays_until_it_is_seen_to_be_idle_or_its_time_is_over(
    gateways: tuple[object, ...], now: float, stays: bool
) -> None:
    service = replace(SERVICE, retiring=(Retiring(V2, NOW + DRAIN_S),))

    after = retire(service, gateways, 5, now)  # type: ignore[arg-type]

    assert bool(after.retiring) is stays


def test_streams_of_tokens_have_longer_to_end() -> None:
    service = replace(SERVICE, protocol=ServingProtocol.OPENAI)

    after = settle(service, release(Phase.ROLLING_BACK), release(Phase.ROLLED_BACK), NOW)

    assert after.retiring == (Retiring(V2, NOW + STREAMS_DRAIN_S),)


def test_who_goes_with_requests_open_is_told_with_their_number_and_their_time() -> None:
    back = release(Phase.ROLLED_BACK)
    retiring = replace(SERVICE, retiring=(Retiring(V2, NOW + DRAIN_S),))
    busy = (gateway_state(open_requests=((V2.id, 3),)), gateway_state("g2", open_requests=((V2.id, 9), (V1.id, 5))))

    (begun,) = partings(SERVICE, retiring, back, busy, NOW)
    assert (begun.kind, begun.release_id) == ("DRAINING", back.id)
    assert begun.text == "v2 gets no new request; it may answer what it has begun for 1 min: 12 requests open"
    (late,) = partings(retiring, SERVICE, back, busy[:1], NOW)
    assert late.kind == "DRAINED_LATE"
    assert late.text == "v2 had 1 min for what it had begun, and is not waited for any longer: 3 requests open"
    assert partings(SERVICE, retiring, back, (gateway_state(),), NOW) == ()
    assert partings(retiring, retiring, back, busy, NOW) == ()
