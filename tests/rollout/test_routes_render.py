"""What rollout says of any phase, Envoy can be told: the two packages are blind to each other, so a test joins them."""

from __future__ import annotations

import pytest

from graylift.domain.release import Phase, Release, Service
from graylift.domain.routing import RoutingTable
from graylift.domain.spec import LabelRule, RoutingSpec, ServingProtocol, Sticky, StickyBy
from graylift.domain.weights import Role
from graylift.envoy.files import render
from graylift.rollout import routes
from graylift.testing.samples import release_spec, revision

V1, V2 = revision("v1"), revision("v2")
ADDRESSES = {V1.id: "127.0.0.1:9001", V2.id: "127.0.0.1:9002"}
ROUTING = RoutingSpec(
    Sticky(StickyBy.HEADER, "x-user"),
    (LabelRule("x-team", "us", Role.CANDIDATE), LabelRule("x-team", "them", Role.STABLE)),
    5,
)


@pytest.mark.parametrize("phase", [None, *Phase])
@pytest.mark.parametrize("at_rest", [RoutingSpec(), ROUTING])
def test_envoy_can_be_told_the_routes_of_every_phase(phase: Phase | None, at_rest: RoutingSpec) -> None:
    service = Service("file-type", ServingProtocol.OPEN_INFERENCE, at_rest, V1)
    spec = release_spec(routing=ROUTING)
    stage = len(spec.stages) - 1 if phase is Phase.PROMOTING else 0
    release = phase and Release(
        "file-type-1", spec, phase, "", stage, 0.0, 0.0, 4, False, "file-type-1", 0.0, stable=V1, candidate=V2
    )
    told = routes(service, release, ADDRESSES)
    assert told is not None
    assert render(RoutingTable(1, 1, (told,))).rds
