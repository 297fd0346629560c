"""Tables as files: what is refused, what always holds of what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.limits import LimitRule, Limits, Quota, WhenAway
from graylift.domain.routing import Backend, RoutingTable, ServiceRoutes, ShadowRoutes
from graylift.domain.spec import (
    HeaderRule,
    KeepExamples,
    LabelRule,
    ServingProtocol,
    ShadowSpec,
    Sticky,
    StickyBy,
    Tolerance,
)
from graylift.domain.weights import ALL, NONE, TOTAL, Role, Weights
from graylift.envoy.files import across, render

V1, V2, V3 = (Backend(f"m.v{n}.{str(n) * 12}", f"127.0.0.1:{8100 + n}") for n in (1, 2, 3))
BASE = ServiceRoutes(
    service="m",
    protocol=ServingProtocol.OPEN_INFERENCE,
    stable=V1,
    candidate=V2,
    weights=Weights(100),
    match=(),
    sticky=Sticky(StickyBy.HEADER, "x-user-id"),
    salt="m-1",
    split="m-1/1",
    timeout_s=10.0,
)


IN_BODY = (StickyBy.USER, StickyBy.CONVERSATION)
STICKY = (
    Sticky(StickyBy.HEADER, "x-user-id"),
    Sticky(StickyBy.COOKIE, "visitor"),
    Sticky(StickyBy.USER),
    Sticky(StickyBy.CONVERSATION),
)


SHADOW = ShadowRoutes(ShadowSpec(Weights(1_000), match=(HeaderRule("x-safe", "yes"),)), Tolerance(), KeepExamples.NONE)


def _limited(**rule: Any) -> ServiceRoutes:
    return replace(BASE, limits=Limits((LimitRule(**rule),), WhenAway.DENY))


def a_table(*services: ServiceRoutes, version: int = 1) -> RoutingTable:
    return RoutingTable(version=version, token=1, services=services)


def clusters_of(table: RoutingTable) -> dict[str, Any]:
    return {cluster["name"]: cluster for cluster in json.loads(render(table).cds)["resources"]}


def routes_of(table: RoutingTable) -> list[dict[str, Any]]:
    (config,) = json.loads(render(table).rds)["resources"]
    (host,) = config["virtual_hosts"]
    return [route for route in host["routes"] if "route" in route]


@pytest.mark.parametrize(
    ("services", "problem"),
    [
        ([replace(BASE, candidate=None)], "service 'm': candidate weight 1 % without a candidate"),
        ([BASE, replace(BASE, stable=V3, candidate=None, weights=Weights(0))], "service 'm' stands there 2 times"),
        ([replace(BASE, shadow=SHADOW)], "a shadow beside a candidate weight of 1 %"),
        ([replace(BASE, candidate=None, weights=NONE, shadow=SHADOW)], "a shadow without a candidate"),
        ([replace(BASE, candidate=V1)], f"revision '{V1.revision_id}' stands there 2 times"),
        ([replace(BASE, draining=(V2,))], f"revision '{V2.revision_id}' stands there 2 times"),
        ([replace(BASE, service="a/b")], "service 'a/b': its name does not fit into a path"),
        ([replace(BASE, stable=Backend("v1/x", "h:1"))], "revision id 'v1/x' must be made of letters"),
        ([replace(BASE, stable=Backend("v1", "host"))], "address 'host' of v1 is not host:port"),
        ([replace(BASE, stable=Backend("v1", "host:0"))], "address 'host:0' of v1 is not host:port"),
        ([replace(BASE, stable=Backend("v1", "host:65536"))], "address 'host:65536' of v1 is not host:port"),
        ([replace(BASE, stable=Backend("v1", "http://host:80"))], "address 'http://host:80' of v1 is not host:port"),
        ([replace(BASE, sticky=Sticky(StickyBy.HEADER, "x user"))], "sticky header 'x user' is no header name"),
        ([replace(BASE, sticky=Sticky(StickyBy.COOKIE, "a.b"))], "sticky cookie 'a.b' must be named by letters"),
        ([replace(BASE, sticky=Sticky(StickyBy.USER))], "a body of open-inference has no user to stay with"),
        ([replace(BASE, salt="")], "salt '' must be made of letters"),
        ([replace(BASE, salt=r"\1")], r"must be made of letters"),
        (
            [replace(BASE, match=(LabelRule("a b", "c", Role.STABLE),))],
            "header 'a b' of a label rule is no header name",
        ),
        ([replace(BASE, match=(LabelRule("a", "", Role.STABLE),))], "the label rule on header 'a' has no value"),
        ([_limited(key_header="a b", concurrent=1)], "header 'a b' of a limit is no header name"),
        ([_limited(label=("a b", "c"), concurrent=1)], "header 'a b' of a limit is no header name"),
        ([_limited(path="/a(b", concurrent=1)], "path '/a(b' of a limit is no path"),
        ([_limited(requests=Quota(0, 1.0))], "the limit for all has an amount or a time of 0"),
        ([_limited(path="/v1")], "the limit for /v1 limits nothing"),
        ([replace(BASE, split="")], "its split has no name"),
        ([replace(BASE, timeout_s=0.0)], "its timeout is 0.0 s"),
        ([replace(BASE, timeout_s=float("nan"))], "its timeout is nan s"),
    ],
)
def test_a_table_that_does_not_hold_together_is_refused_with_the_reason(
    services: list[ServiceRoutes], problem: str
) -> None:
    with pytest.raises(ValueError) as refused:
        render(a_table(*services))
    assert problem in str(refused.value)
    assert "routing table 1 is inconsistent" in str(refused.value)


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ValueError) as refused:
        render(a_table(replace(BASE, salt="", timeout_s=-1.0, service="?"), version=0))
    assert str(refused.value).count(";") >= 3


def test_one_table_gives_one_text() -> None:
    assert render(a_table(BASE)) == render(a_table(replace(BASE)))


def test_tables_that_differ_in_version_alone_differ_in_both_files_resources() -> None:
    one, two = render(a_table(BASE)), render(a_table(BASE, version=2))
    assert json.loads(one.cds)["resources"] != json.loads(two.cds)["resources"]
    assert json.loads(one.rds)["resources"] != json.loads(two.rds)["resources"]


def test_a_server_reads_the_same_in_every_role() -> None:
    as_candidate = clusters_of(a_table(BASE))[V2.revision_id]
    as_stable = clusters_of(a_table(replace(BASE, stable=V2, candidate=None, weights=Weights(0))))[V2.revision_id]
    other = replace(BASE, candidate=None, weights=Weights(0), timeout_s=99.0, draining=(V2,))
    as_draining = clusters_of(a_table(other))[V2.revision_id]
    assert as_candidate == as_stable == as_draining


def test_servers_are_found_by_address_or_by_name() -> None:
    def kind(address: str) -> tuple[str, str]:
        cluster = clusters_of(a_table(replace(BASE, stable=Backend("v1", address))))["v1"]
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        return cluster["type"], endpoint["endpoint"]["address"]["socket_address"]["address"]

    assert kind("10.0.0.7:80") == ("STATIC", "10.0.0.7")
    assert kind("[::1]:80") == ("STATIC", "::1")
    assert kind("models.example:80") == ("STRICT_DNS", "models.example")


def test_the_way_between_two_tables_has_the_clusters_of_both_and_the_version_of_neither() -> None:
    old = render(a_table(replace(BASE, stable=V3, candidate=None, weights=Weights(0)), version=1))
    new = render(a_table(BASE, version=2))
    way = json.loads(across(old, new))
    names = {cluster["name"] for cluster in way["resources"]}
    assert way["version_info"] == "1>2"
    assert {V1.revision_id, V2.revision_id, V3.revision_id, f"stable/{V3.revision_id}"} <= names
    assert across(None, new) == new.cds


def test_a_moved_server_has_its_new_address_on_the_way() -> None:
    old = render(a_table(BASE, version=1))
    new = render(a_table(replace(BASE, stable=replace(V1, address="127.0.0.1:9999")), version=2))
    way = {cluster["name"]: cluster for cluster in json.loads(across(old, new))["resources"]}
    assert "9999" in json.dumps(way[V1.revision_id])


@st.composite
def consistent_tables(draw: st.DrawFn) -> RoutingTable:
    services: list[ServiceRoutes] = []
    for number in range(draw(st.integers(0, 3))):
        has_candidate = draw(st.booleans())
        backends = [Backend(f"s{number}.v{n}", f"127.0.0.1:{8000 + 10 * number + n}") for n in range(4)]
        rules = st.builds(
            LabelRule, st.sampled_from(["x-a", "x-b"]), st.sampled_from(["p", "q q"]), st.sampled_from(Role)
        )
        services.append(
            ServiceRoutes(
                service=f"s{number}",
                protocol=ServingProtocol.OPEN_INFERENCE if number % 2 == 0 else ServingProtocol.OPENAI,
                stable=backends[0],
                candidate=backends[1] if has_candidate else None,
                weights=Weights(draw(st.integers(0, TOTAL)) if has_candidate else 0),
                match=tuple(draw(st.lists(rules, max_size=3))),
                sticky=draw(st.sampled_from([None, *STICKY[: 2 if number % 2 == 0 else 4]])),
                salt=f"s{number}-1",
                split="a",
                timeout_s=draw(st.floats(0.001, 1e6)),
                draining=tuple(backends[2 : 2 + draw(st.integers(0, 2))]),
            )
        )
    return a_table(*services, version=draw(st.integers(1, 10**9)))


@given(consistent_tables())
def test_weights_add_up_the_candidate_comes_first_and_zero_is_left_out(table: RoutingTable) -> None:
    routes = routes_of(table)
    for route in routes:
        arms = route["route"]["weighted_clusters"]["clusters"]
        assert sum(arm["weight"] for arm in arms) == TOTAL
        assert all(arm["weight"] > 0 for arm in arms)
        assert [arm["name"].split("/")[0] for arm in arms] in (["candidate"], ["stable"], ["candidate", "stable"])
    for service in table.services:
        own = [r for r in routes if r["metadata"]["filter_metadata"]["graylift"]["service"] == service.service]
        sends = sum(
            arm["weight"]
            for arm in own[-1]["route"]["weighted_clusters"]["clusters"]
            if arm["name"].startswith("candidate/")
        )
        assert sends == service.weights.candidate
        for_all = [r["match"]["path_separated_prefix"] for r in own if "headers" not in r["match"]]
        assert len(set(for_all)) == len(for_all), "one route of each path for everybody"
        assert "headers" not in own[-1]["match"], "and it is the last"
        if service.weights.candidate == 0:
            assert "candidate/" not in json.dumps(own)


@given(consistent_tables())
def test_every_route_and_every_turn_leads_to_clusters_of_the_same_file(table: RoutingTable) -> None:
    clusters = clusters_of(table)
    named = {arm["name"] for route in routes_of(table) for arm in route["route"]["weighted_clusters"]["clusters"]}
    for cluster in clusters.values():
        if "cluster_type" in cluster:
            named |= {entry["name"] for entry in cluster["cluster_type"]["typed_config"]["clusters"]}
    assert named <= clusters.keys()


@given(consistent_tables())
def test_only_a_candidates_requests_may_reach_another_revision_and_only_stable(table: RoutingTable) -> None:
    clusters = clusters_of(table)
    for service in table.services:
        stable = service.stable.revision_id
        turn = clusters[f"stable/{stable}"]["cluster_type"]["typed_config"]["clusters"]
        assert {entry["name"].split("/")[-1] for entry in turn} == {stable}
        if service.candidate is not None:
            own = service.candidate.revision_id
            turn = clusters[f"candidate/{own}"]["cluster_type"]["typed_config"]["clusters"]
            assert [entry["name"].split("/")[-1] for entry in turn] == [own, stable, stable]


@pytest.mark.parametrize("sticky", [None, *STICKY], ids=str)
def test_a_shadow_mirrors_its_share_and_sends_nobody_to_the_candidate(sticky: Sticky | None) -> None:
    protocol = ServingProtocol.OPENAI if sticky is not None and sticky.by in IN_BODY else BASE.protocol
    plain = replace(BASE, weights=NONE, sticky=sticky, protocol=protocol)
    before, after = routes_of(a_table(plain)), routes_of(a_table(replace(plain, shadow=SHADOW)))
    mirrored = [route for route in after if "request_mirror_policies" in route["route"]]
    assert [route for route in after if route not in mirrored] == before
    assert len(mirrored) == len(before)
    for route, original in zip(mirrored, before, strict=True):
        # It is asked before the route it is made of, answers as that does, and takes a tenth of those that fit.
        assert after.index(route) < after.index(original)
        assert route["route"]["weighted_clusters"] == original["route"]["weighted_clusters"]
        assert route["match"]["runtime_fraction"]["default_value"] == {"numerator": 100_000, "denominator": "MILLION"}
        asked = [header["name"] for header in route["match"]["headers"]]
        assert asked[-2:] == [":method", "x-safe"]
        (mirror,) = route["route"]["request_mirror_policies"]
        assert mirror["cluster"] == "gateway/mirror"


def test_a_shadow_of_everything_takes_everything() -> None:
    whole = replace(SHADOW, requests=ShadowSpec(ALL))
    route = routes_of(a_table(replace(BASE, weights=NONE, shadow=whole)))[0]
    assert route["match"]["runtime_fraction"]["default_value"]["numerator"] == 1_000_000
