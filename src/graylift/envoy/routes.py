"""The services of a table as Envoy's routes: which request goes to which arm, and what the gateway answers itself.

Called by `files.py`. It knows the arms by the names that `clusters.py` gives them, and no server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from graylift.domain.routing import RoutingTable, ServiceRoutes
from graylift.domain.spec import LabelRule
from graylift.domain.weights import TOTAL, Role
from graylift.envoy.bootstrap import MAX_BODY_BYTES
from graylift.envoy.names import REVISION_HEADER, ROUTES, TYPE, Json, arm, set_header
from graylift.envoy.shadow import shadowed


def routes_of(table: RoutingTable) -> Json:
    """The one route configuration of a table."""
    return {
        "@type": f"{TYPE}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "validate_clusters": True,
        # Envoy passes over a file that differs in its version alone; with this no two tables have equal routes.
        "metadata": {"filter_metadata": {"graylift": {"table": str(table.version)}}},
        # Only the gateway may say who answered.
        "request_headers_to_remove": [REVISION_HEADER],
        "response_headers_to_remove": ["server"],
        "response_headers_to_add": [set_header(REVISION_HEADER, "%UPSTREAM_METADATA(graylift:revision)%")],
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "request_body_buffer_limit": MAX_BODY_BYTES,
                "routes": [
                    *(route for service in table.services for route in _service_routes(service)),
                    *_own_answers(table),
                ],
            }
        ],
    }


def _service_routes(service: ServiceRoutes) -> Iterator[Json]:
    # Weight 0 is no request at all, not even a labelled one: the candidate may still be starting, or have failed.
    candidate_open = service.candidate is not None and service.weights.candidate > 0
    for rule in service.match:
        if rule.to is Role.STABLE or candidate_open:
            yield _route(service, {"weighted_clusters": {"clusters": [_arm(service, rule.to, TOTAL)]}}, rule)
    # The candidate comes first in a list of fixed sum: its users are those with a hash below its weight.
    arms = ((Role.CANDIDATE, service.weights.candidate), (Role.STABLE, service.weights.stable))
    split: Json = {"clusters": [_arm(service, role, weight) for role, weight in arms if weight > 0]}
    target: Json = {"weighted_clusters": split}
    if service.sticky_header is not None:
        salted = {"pattern": {"regex": "^(.*)$"}, "substitution": f"{service.salt}:\\1"}
        target = {
            "hash_policy": [{"header": {"header_name": service.sticky_header, "regex_rewrite": salted}}],
            "weighted_clusters": {**split, "use_hash_policy": True},
        }
    route = _route(service, target)
    if (shadow := shadowed(service, route)) is not None:
        yield shadow
    yield route


def _arm(service: ServiceRoutes, role: Role, weight: int) -> Json:
    match role:
        case Role.STABLE:
            return {"name": arm(role, service.stable.revision_id), "weight": weight}
        case Role.CANDIDATE:
            assert service.candidate is not None, "render has refused a weight without a candidate"
            # Envoy takes the time limit of an attempt from this header, which it does not pass on, or from the route,
            # which the arms share.
            limit_ms = max(1, round(_attempt_limit_s(service) * 1000))
            return {
                "name": arm(role, service.candidate.revision_id),
                "weight": weight,
                "request_headers_to_add": [set_header("x-envoy-upstream-stream-duration-ms", str(limit_ms))],
            }


def _route(service: ServiceRoutes, target: Json, rule: LabelRule | None = None) -> Json:
    match: Json = {"path_separated_prefix": f"/v2/models/{service.service}"}
    # All that the log line of a request needs to be understood without the table.
    metadata: Json = {
        "service": service.service,
        "split": service.split,
        "attempt_limit_us": round(_attempt_limit_s(service) * 1_000_000),
    }
    if rule is not None:
        match["headers"] = [{"name": rule.header, "string_match": {"exact": rule.value}}]
        metadata["label"] = f"{rule.header}={rule.value}"
    return {
        "match": match,
        "metadata": {"filter_metadata": {"graylift": metadata}},
        "route": {
            **target,
            "timeout": _seconds(service.timeout_s),
            # Later than the timeout, so that running into it is the client's doing alone (it stopped sending).
            "idle_timeout": _seconds(service.timeout_s + 5),
        },
    }


def _attempt_limit_s(service: ServiceRoutes) -> float:
    """Half of the time is the candidate's: if it hangs, stable still has the other half."""
    return service.timeout_s / 2


def _own_answers(table: RoutingTable) -> Iterator[Json]:
    names = ", ".join(sorted(service.service for service in table.services))
    about: Json = {"name": "graylift", "version": f"routing table {table.version}", "extensions": []}
    yield _own_answer({"path": "/v2"}, 200, json.dumps(about))
    yield _own_answer({"path": "/v2/health/live"}, 200, json.dumps({"live": True}))
    if names:
        yield _own_answer({"path": "/v2/health/ready"}, 200, json.dumps({"ready": True}))
    else:
        yield _own_answer({"path": "/v2/health/ready"}, 503, "not ready: no service is routed here yet")
    unknown = f"no service at this path; services here: {names or 'none'}; a path is /v2/models/SERVICE/infer"
    yield _own_answer({"prefix": "/"}, 404, unknown)


def _own_answer(match: Json, status: int, body: str) -> Json:
    """Errors are plain text here; the bootstrap makes them JSON like all of Envoy's own."""
    return {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": body}},
        "response_headers_to_add": [set_header("content-type", "application/json")],
    }


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}s"
