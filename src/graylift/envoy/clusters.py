"""The servers of a service as Envoy's clusters: whom it asks in which turn, when it stops asking, when it asks again.

Clusters, by name:
- `<revision>`            its server, with health checks; no request at all while they fail
- `unchecked/<revision>`  the same server without them; last resort of a stable, since nobody else may take its requests
- `stable/<revision>`     where routes send stable's requests: the server, else the same unchecked
- `candidate/<revision>`  where routes send the candidate's: first attempt the candidate, the retry stable

`<revision>` reads the same whatever the revision's role: Envoy replaces a cluster whose definition changes, loses its
connections and forgets how many requests are open on it, on which draining relies. The role is in the other three.

Called by `files.py`. It knows no weight and no label.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from graylift.domain.routing import Backend, ServiceRoutes
from graylift.domain.spec import ServingProtocol
from graylift.domain.weights import Role
from graylift.envoy.consistency import backends
from graylift.envoy.names import CANNOT_COMPUTE, TYPE, UNCHECKED, Json, arm

CLUSTER = f"{TYPE}.config.cluster.v3.Cluster"

_MANY = 16_384
"""For the circuit breakers: high, since Envoy's default of 3 parallel retries turns a dying candidate into errors."""


def clusters_of(service: ServiceRoutes) -> Iterator[Json]:
    """All clusters of one service."""
    for backend in backends(service):
        yield _checked(backend, service.protocol)
    stable = service.stable.revision_id
    yield _server(UNCHECKED + stable, service.stable)
    # Asked again only where the server cannot have begun, and never of the candidate: a release costs those users
    # nothing whom it did not choose.
    yield _in_turn(
        Role.STABLE,
        [stable, UNCHECKED + stable],
        "connect-failure,refused-stream,reset-before-request",
    )
    if service.candidate is not None:
        # Inference changes nothing, so even what the candidate had begun may be asked again, of stable.
        yield _in_turn(
            Role.CANDIDATE,
            [service.candidate.revision_id, stable, UNCHECKED + stable],
            "5xx,reset,connect-failure,refused-stream,retriable-status-codes",
        )


def _server(name: str, backend: Backend) -> Json:
    host, port = _host_port(backend)
    endpoint = {"address": {"socket_address": {"address": host, "port_value": port}}}
    return {
        "@type": CLUSTER,
        "name": name,
        **_discovery_of(host),
        "connect_timeout": "1s",
        "circuit_breakers": _BREAKERS,
        "typed_extension_protocol_options": _http_options(
            {
                "explicit_http_config": {"http_protocol_options": {}},
                # Shorter than the 5 s that servers commonly keep an idle connection: a server that closes it just as
                # a request comes looks like a failure, and more often so for the arm with less traffic.
                "common_http_protocol_options": {"idle_timeout": "4s"},
            }
        ),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": endpoint,
                            "metadata": {"filter_metadata": {"graylift": {"revision": backend.revision_id}}},
                        }
                    ]
                }
            ],
        },
    }


def _checked(backend: Backend, protocol: ServingProtocol) -> Json:
    return {
        **_server(backend.revision_id, backend),
        # Never a request to a server known to be sick: whoever comes next in the turn takes it. And workers learn of it
        # at once, by default up to a second later.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "health_checks": [
            {
                # An answer other than 200 takes it out at once, silence only after three strikes: a machine that is
                # merely busy must not look like a dead candidate.
                "timeout": "1s",
                "interval": "0.5s",
                "no_traffic_interval": "0.5s",
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "http_health_check": {
                    "path": protocol.ready_path,
                    "expected_statuses": [
                        {"start": protocol.ready_statuses.start, "end": protocol.ready_statuses.stop}
                    ],
                },
            }
        ],
        # Only refused connections eject it. Ejecting for what it answered would count requests that it never saw as its
        # failures, while stable, which nobody replaces, is counted by its answers alone.
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 5,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "interval": "0.5s",
            "base_ejection_time": "2s",
            "max_ejection_time": "10s",
            "max_ejection_percent": 100,
        },
    }


def _in_turn(role: Role, clusters: list[str], retry_on: str) -> Json:
    """The n-th attempt goes to the n-th cluster, or to the next one if that has no healthy server."""
    return {
        "@type": CLUSTER,
        "name": arm(role, clusters[0]),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": _BREAKERS,
        "cluster_type": {
            "name": "envoy.clusters.composite",
            "typed_config": {
                "@type": f"{TYPE}.extensions.clusters.composite.v3.ClusterConfig",
                "clusters": [{"name": name} for name in clusters],
            },
        },
        # Here and not on the route, which the two arms share.
        "typed_extension_protocol_options": _http_options(
            {
                "explicit_http_config": {"http_protocol_options": {}},
                "retry_policy": {
                    "retry_on": retry_on,
                    "retriable_status_codes": [CANNOT_COMPUTE],
                    "num_retries": 1,
                    "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
                },
            }
        ),
    }


_BREAKERS = {
    "thresholds": [
        {"max_connections": _MANY, "max_pending_requests": _MANY, "max_requests": _MANY, "max_retries": _MANY}
    ]
}


def _http_options(options: Json) -> Json:
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {name: {"@type": f"type.googleapis.com/{name}", **options}}


def _host_port(backend: Backend) -> tuple[str, int]:
    host, _, port = backend.address.rpartition(":")
    return host.strip("[]"), int(port)


def _discovery_of(host: str) -> Json:
    try:
        ip_address(host)
    except ValueError:
        return {"type": "STRICT_DNS", "dns_lookup_family": "ALL"}
    return {"type": "STATIC"}
