"""The services of a table as Envoy's routes: which request goes to which arm, and what the gateway answers itself.

Called by `files.py`. It knows the arms by the names that `clusters.py` gives them, and no server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from graylift.domain.routing import RoutingTable, ServiceRoutes
from graylift.domain.spec import LabelRule, ServingProtocol
from graylift.domain.weights import TOTAL, Role
from graylift.envoy.bootstrap import MAX_BODY_BYTES
from graylift.envoy.limits import asked, hidden_headers
from graylift.envoy.llm import KEY_HEADER, attached
from graylift.envoy.names import REVISION_HEADER, ROUTES, TYPE, Json, arm, attempt_limit_s, seconds, set_header
from graylift.envoy.shadow import OWN_HEADERS, shadowed
from graylift.envoy.sticky import Way, in_body, ways

LONGEST_ANSWER_S = 3600.0
"""Of a stream of tokens: one that never ends is a failure too."""


def routes_of(table: RoutingTable) -> Json:
    """The one route configuration of a table."""
    return {
        "@type": f"{TYPE}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "validate_clusters": True,
        # Envoy passes over a file that differs in its version alone; with this no two tables have equal routes.
        "metadata": {"filter_metadata": {"graylift": {"table": str(table.version)}}},
        # Only the gateway may say who answered, and what keeps a conversation together or shadows a request is its own
        # business.
        "request_headers_to_remove": [REVISION_HEADER, KEY_HEADER, *OWN_HEADERS],
        "response_headers_to_remove": ["server"],
        "response_headers_to_add": [set_header(REVISION_HEADER, "%UPSTREAM_METADATA(graylift:revision)%")],
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "request_body_buffer_limit": MAX_BODY_BYTES,
                "routes": [
                    *(route for service, path in _paths(table) for route in _service_routes(service, path)),
                    *_own_answers(table),
                ],
            }
        ],
    }


@dataclass(frozen=True, slots=True)
class _Path:
    """prefix: which paths belong to a service; sent: what its servers get in place of it, None for the same."""

    prefix: str
    sent: str | None = None


def _paths(table: RoutingTable) -> Iterator[tuple[ServiceRoutes, _Path]]:
    """Each service with its paths, in the order in which they are looked at."""
    openai = [service for service in table.services if service.protocol is ServingProtocol.OPENAI]
    for service in table.services:
        match service.protocol:
            case ServingProtocol.OPEN_INFERENCE:
                yield service, _Path(f"/v2/models/{service.service}")
            case ServingProtocol.OPENAI:
                # Its clients name the service in their base URL, and the model, which is the server's business, in
                # the body.
                yield service, _Path(f"/{service.service}/v1", "/v1")
            case _:
                assert_never(service.protocol)
    if len(openai) == 1:
        yield openai[0], _Path("/v1")


def _service_routes(service: ServiceRoutes, path: _Path) -> Iterator[Json]:
    # Weight 0 is no request at all, not even a labelled one: the candidate may still be starting, or have failed.
    candidate_open = service.candidate is not None and service.weights.candidate > 0
    for rule in service.match:
        if rule.to is Role.STABLE or candidate_open:
            yield _route(service, path, {"weighted_clusters": {"clusters": [_arm(service, rule.to, TOTAL)]}}, rule)
    # The candidate comes first in a list of fixed sum: its users are those with a hash below its weight.
    arms = ((Role.CANDIDATE, service.weights.candidate), (Role.STABLE, service.weights.stable))
    split: Json = {"clusters": [_arm(service, role, weight) for role, weight in arms if weight > 0]}
    if service.sticky is None:
        yield from _with_shadow(service, _route(service, path, {"weighted_clusters": split}))
        return
    for way in ways(service.sticky, service.salt):
        hashed = {"hash_policy": [way.policy], "weighted_clusters": {**split, "use_hash_policy": True}}
        yield from _with_shadow(service, _route(service, path, hashed, way=way))


def _with_shadow(service: ServiceRoutes, route: Json) -> Iterator[Json]:
    """The route, and before it the one that takes its share of the same requests, and shadows them."""
    if (shadow := shadowed(service, route)) is not None:
        yield shadow
    yield route


def _arm(service: ServiceRoutes, role: Role, weight: int) -> Json:
    match role:
        case Role.STABLE:
            return {"name": arm(role, service.stable.revision_id), "weight": weight}
        case Role.CANDIDATE:
            assert service.candidate is not None, "render has refused a weight without a candidate"
            return {
                "name": arm(role, service.candidate.revision_id),
                "weight": weight,
                **_attempt_limit(service),
            }


def _attempt_limit(service: ServiceRoutes) -> Json:
    """What keeps the candidate's attempt from taking the whole time."""
    match service.protocol:
        case ServingProtocol.OPEN_INFERENCE:
            # Envoy takes the time limit of an attempt from this header, which it does not pass on, or from the route,
            # which the arms share.
            limit_ms = max(1, round(attempt_limit_s(service) * 1000))
            return {"request_headers_to_add": [set_header("x-envoy-upstream-stream-duration-ms", str(limit_ms))]}
        case ServingProtocol.OPENAI:
            # An answer goes on for as long as tokens come; silence has its limit in the route, for both arms.
            return {}


def _route(
    service: ServiceRoutes, path: _Path, target: Json, rule: LabelRule | None = None, way: Way | None = None
) -> Json:
    match: Json = {"path_separated_prefix": path.prefix}
    # All that the log line of a request needs to be understood without the table.
    metadata: Json = {
        "service": service.service,
        "split": service.split,
        "attempt_limit_us": round(attempt_limit_s(service) * 1_000_000),
    }
    if rule is not None:
        match["headers"] = [{"name": rule.header, "string_match": {"exact": rule.value}}]
        metadata["label"] = f"{rule.header}={rule.value}"
    if way is not None and way.only is not None:
        match["headers"] = [way.only]
    answers: Json = {"response_headers_to_add": list(way.answers)} if way is not None and way.answers else {}
    sent: Json = {} if path.sent is None else {"prefix_rewrite": path.sent}
    return {
        "match": match,
        "metadata": {"filter_metadata": {"graylift": metadata}},
        "route": {**target, **sent, **_time(service)},
        **answers,
        **_filters(service),
        **hidden_headers(service),
    }


def _filters(service: ServiceRoutes) -> Json:
    match service.protocol:
        case ServingProtocol.OPEN_INFERENCE:
            return {"typed_per_filter_config": asked(service)}
        case ServingProtocol.OPENAI:
            return {"typed_per_filter_config": {**attached(in_body(service.sticky)), **asked(service)}}


def _time(service: ServiceRoutes) -> Json:
    """How long a request may take. `idle_timeout` is later than all else, so that running into it is the client's doing
    alone: it stopped sending, or reading."""
    match service.protocol:
        case ServingProtocol.OPEN_INFERENCE:
            return {"timeout": seconds(service.timeout_s), "idle_timeout": seconds(service.timeout_s + 5)}
        case ServingProtocol.OPENAI:
            # Two servers may be silent for their whole time, one after the other.
            return {
                "timeout": seconds(LONGEST_ANSWER_S),
                "idle_timeout": seconds(2 * service.timeout_s + 5),
                # Of this policy alone: whether and of whom it is asked again, the arm's cluster says.
                "retry_policy": {"per_try_idle_timeout": seconds(attempt_limit_s(service))},
            }


_EXAMPLES = {
    ServingProtocol.OPEN_INFERENCE: "/v2/models/SERVICE/infer",
    ServingProtocol.OPENAI: "/SERVICE/v1/chat/completions",
}


def _own_answers(table: RoutingTable) -> Iterator[Json]:
    names = ", ".join(sorted(service.service for service in table.services))
    about: Json = {"name": "graylift", "version": f"routing table {table.version}", "extensions": []}
    yield _own_answer({"path": "/v2"}, 200, json.dumps(about))
    yield _own_answer({"path": "/v2/health/live"}, 200, json.dumps({"live": True}))
    if names:
        yield _own_answer({"path": "/v2/health/ready"}, 200, json.dumps({"ready": True}))
    else:
        yield _own_answer({"path": "/v2/health/ready"}, 503, "not ready: no service is routed here yet")
    protocols = {service.protocol for service in table.services} or {ServingProtocol.OPEN_INFERENCE}
    paths = " or ".join(_EXAMPLES[protocol] for protocol in ServingProtocol if protocol in protocols)
    unknown = f"no service at this path; services here: {names or 'none'}; a path is {paths}"
    yield _own_answer({"prefix": "/"}, 404, unknown)


def _own_answer(match: Json, status: int, body: str) -> Json:
    """Errors are plain text here; `own_errors.py` makes them JSON like all of Envoy's own."""
    return {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": body}},
        "response_headers_to_add": [set_header("content-type", "application/json")],
    }
