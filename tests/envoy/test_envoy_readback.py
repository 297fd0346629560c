"""Admin answers and Envoy's own log as facts. The real answers are read in the other files."""

from __future__ import annotations

from typing import Any

import pytest

from graylift.envoy.readback import applied_version, clusters_version, healthy, open_requests, refusal, warming

TYPE = "type.googleapis.com/envoy.admin.v3."


def dump(clusters: str | None, routes: str | None, warms: tuple[str, ...] = ()) -> dict[str, Any]:
    route = {"version_info": routes, "route_config": {"name": "main"}}
    clusters_section: dict[str, Any] = {"@type": TYPE + "ClustersConfigDump"}
    if clusters is not None:
        clusters_section["version_info"] = clusters
    if warms:
        clusters_section["dynamic_warming_clusters"] = [{"cluster": {"name": name}} for name in warms]
    routes_section: dict[str, Any] = {"@type": TYPE + "RoutesConfigDump"}
    if routes is not None:
        routes_section["dynamic_route_configs"] = [route]
    return {"configs": [{"@type": TYPE + "BootstrapConfigDump"}, clusters_section, routes_section]}


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        (dump("7", "7"), 7),
        (dump("7", "6"), None),
        (dump("6>7", "7"), None),
        (dump("7", "7", warms=("v2",)), None),
        (dump(None, None), None),
        (dump("7", None), None),
        (dump(None, "7"), None),
        ({"configs": []}, None),
    ],
)
def test_a_version_is_applied_when_clusters_and_routes_agree_on_it(answer: dict[str, Any], version: int | None) -> None:
    assert applied_version(answer) == version


def test_clusters_have_no_version_while_one_is_warming() -> None:
    assert clusters_version(dump("6>7", "6")) == "6>7"
    assert clusters_version(dump("6>7", "6", warms=("v3", "v2"))) is None
    assert warming(dump("6>7", "6", warms=("v3", "v2"))) == ("v2", "v3")


def host(active: int, **health: bool) -> dict[str, Any]:
    gauge: dict[str, Any] = {"type": "GAUGE", "name": "rq_active"}
    if active:
        gauge["value"] = str(active)
    return {"health_status": {"eds_health_status": "HEALTHY", **health}, "stats": [gauge]}


def test_servers_are_healthy_when_nothing_speaks_against_them() -> None:
    answer = {
        "cluster_statuses": [
            {"name": "v2", "host_statuses": [host(0)]},
            {"name": "v1", "host_statuses": [host(0, failed_outlier_check=True), host(0)]},
            {"name": "v3", "host_statuses": [host(0, failed_active_health_check=True)]},
            {"name": "v4", "host_statuses": [host(0, failed_outlier_check=True)]},
            {"name": "v5", "host_statuses": [host(0, pending_active_hc=True)]},
            {"name": "v6", "host_statuses": []},
            {"name": "unchecked/v3", "host_statuses": [host(0)]},
            {"name": "stable/v3"},
        ]
    }
    assert healthy(answer) == ("v1", "v2")


def test_open_requests_are_added_up_over_a_revisions_servers() -> None:
    answer = {
        "cluster_statuses": [
            {"name": "v2", "host_statuses": [host(2), host(3)]},
            {"name": "unchecked/v2", "host_statuses": [host(1)]},
            {"name": "v1", "host_statuses": [host(0)]},
            {"name": "candidate/v2"},
        ]
    }
    assert open_requests(answer) == (("v1", 0), ("v2", 6))


def test_the_last_refusal_is_told() -> None:
    said = "[warning] Filesystem config update {}: {}\nmore of it\n"
    assert refusal("[info] all is well\n") is None
    assert refusal(said.format("rejected", "first") + said.format("failure", "second")) == "second"
