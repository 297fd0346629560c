"""Shadow traffic in Envoy: who asks the candidate, and how both answers reach the agent. No client waits for any of it.

    client -> gateway -> stable                     as ever; a filter copies the answer as it passes
                \\-> mirror -> listener `shadow` -> candidate    inside Envoy; the same filter copies that answer
    both copies -> the agent's socket, with the request's id, sent and forgotten

The mirror goes to a second listener of the same Envoy rather than to the candidate, since of a plain mirror's answer
nothing is kept. So both answers are timed by one stopwatch, at one place: from the whole request to the last byte.

One draw decides: a route that takes its share of the requests both mirrors and copies all of them, so that no answer
lacks its other half. Everything is bounded: requests in flight (the rest is not asked: shed), the time of an answer,
the bytes of a copy, copies in flight.

`about` travels with the request, and tells the agent all it needs to understand a copy without a routing table.
Called by `bootstrap.py` and `routes.py`; the other side of the wire is `copies.py`.
"""

from __future__ import annotations

import pkgutil

from graylift.domain.routing import ServiceRoutes
from graylift.domain.shadow import Shadowed
from graylift.domain.spec import KeepExamples, ServingProtocol, ShadowSpec
from graylift.domain.weights import TOTAL
from graylift.envoy.access_log import SHADOW_FORMAT
from graylift.envoy.copies import about_from
from graylift.envoy.names import OWN, TYPE, Json, attempt_limit_s, set_header

IN_FLIGHT = 16
"""Requests that candidates answer at once for the shadow; one more is not asked. A shadow yields first."""
COPIES_IN_FLIGHT = 256
MAX_COPY_BYTES = 1024 * 1024
"""An answer beyond this is not copied, nor compared; `shadow.lua` says so too."""

MARK = "x-graylift-shadow"
"""Its value is 1 in every request that a candidate answers for the shadow alone: a server may use it to do nothing
that lasts."""

LISTENER = "shadow"
FILTER = "shadow"
_MIRROR = f"{OWN}mirror"
_COPIES = f"{OWN}copies"
_TO, _ABOUT, _LIMIT, _TEXT = (f"{MARK}-{what}" for what in ("to", "about", "limit-ms", "text"))
OWN_HEADERS = (MARK, _TO, _ABOUT, _LIMIT, _TEXT)
"""What the mirror says to the listener; of a client none is believed."""
_LUA = f"{TYPE}.extensions.filters.http.lua.v3"


def copying() -> Json:
    """The filter of both listeners. It does nothing where no route attaches it."""
    source = pkgutil.get_data("graylift.envoy", "shadow.lua")
    assert source is not None
    return {
        "name": FILTER,
        "disabled": True,
        "typed_config": {"@type": f"{_LUA}.Lua", "source_codes": {FILTER: {"inline_string": source.decode()}}},
    }


def listener(access_log: str) -> Json:
    """Where mirrored requests come in; it can be reached from within this Envoy alone. Into the log go those that the
    candidate did not answer to the end."""
    route: Json = {
        "match": {"prefix": "/"},
        "route": {"cluster_header": _TO, "timeout": "300s"},
        "typed_per_filter_config": _copied(),
    }
    virtual_host: Json = {
        "name": "all",
        "domains": ["*"],
        "request_headers_to_add": [set_header(MARK, "1")],
        "request_headers_to_remove": [_TO, _ABOUT, _LIMIT, _TEXT],
        "routes": [route],
    }
    connections: Json = {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "shadow",
        "http_filters": [
            copying(),
            {
                "name": "router",
                "typed_config": {
                    "@type": f"{TYPE}.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
        "access_log": [
            {
                "name": "file",
                "filter": {"response_flag_filter": {}},
                "typed_config": {
                    "@type": f"{TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": access_log,
                    "log_format": {"json_format": SHADOW_FORMAT},
                },
            }
        ],
        "route_config": {"name": "shadow", "virtual_hosts": [virtual_host]},
        # What the gateway has found out about the client is passed on as it is.
        "generate_request_id": False,
        "preserve_external_request_id": True,
        "skip_xff_append": True,
        "stream_idle_timeout": "300s",
    }
    return {
        "name": LISTENER,
        "internal_listener": {},
        "filter_chains": [{"filters": [{"name": "http_connection_manager", "typed_config": connections}]}],
    }


def clusters(agent_socket: str) -> list[Json]:
    """The way to the listener, and to the agent. `agent_socket`: path of its socket."""
    mirror = {"envoy_internal_address": {"server_listener_name": LISTENER}}
    return [
        _cluster(_MIRROR, mirror, IN_FLIGHT),
        # A copy that finds the agent away is lost, and the agent says that none came.
        _cluster(_COPIES, {"pipe": {"path": agent_socket}}, COPIES_IN_FLIGHT),
    ]


def of_users() -> Json:
    """A filter of logs that leaves out what the mirror asked: nobody waited for it."""
    return {"header_filter": {"header": {"name": _TO, "present_match": True, "invert_match": True}}}


def extension() -> Json:
    """Without it Envoy knows no listener inside itself."""
    return {
        "name": "envoy.bootstrap.internal_listener",
        "typed_config": {"@type": f"{TYPE}.extensions.bootstrap.internal_listener.v3.InternalListener"},
    }


def shadowed(service: ServiceRoutes, route: Json) -> Json | None:
    """The route of those requests that are shadowed: like `route`, and mirrored and copied; None if none are."""
    if service.shadow is None or service.candidate is None:
        return None
    limit_s = _limit_s(service)
    about = about_from(
        Shadowed(
            service=service.service,
            split=service.split,
            revision_id=service.candidate.revision_id,
            protocol=service.protocol,
            limit_s=limit_s,
            tolerance=service.shadow.tolerance,
            keep=service.shadow.keep_examples,
        )
    )
    mirror: Json = {
        "cluster": _MIRROR,
        "disable_shadow_host_suffix_append": True,
        "request_headers_mutations": [
            {"append": set_header(_TO, service.candidate.revision_id)},
            {"append": set_header(_ABOUT, about)},
            {"append": set_header(_LIMIT, str(round(limit_s * 1000)))},
            *([{"append": set_header(_TEXT, "1")}] if service.shadow.keep_examples is KeepExamples.TEXT else []),
        ],
    }
    return {
        **route,
        "match": {**route["match"], **_drawn(service.shadow.requests, route["match"].get("headers", []))},
        "route": {**route["route"], "request_mirror_policies": [mirror]},
        "typed_per_filter_config": {**route.get("typed_per_filter_config", {}), **_copied(about)},
    }


def _drawn(requests: ShadowSpec, others: list[Json]) -> Json:
    return {
        "runtime_fraction": {
            "default_value": {"numerator": requests.share.candidate * 1_000_000 // TOTAL, "denominator": "MILLION"},
        },
        "headers": [
            *others,
            {"name": ":method", "string_match": {"safe_regex": {"regex": "|".join(requests.methods)}}},
            *({"name": rule.header, "string_match": {"exact": rule.value}} for rule in requests.match),
        ],
    }


def _limit_s(service: ServiceRoutes) -> float:
    """How long the candidate may take; without a limit, a few that hang would hold the shadow up for ever."""
    match service.protocol:
        case ServingProtocol.OPEN_INFERENCE:
            # As with users; and before the limit of the mirror, the route's, which would hang up and say nothing.
            return attempt_limit_s(service)
        case ServingProtocol.OPENAI:
            # The service's own is of silence between two tokens, not of a whole answer.
            return 10 * service.timeout_s


def _copied(about: str | None = None) -> Json:
    """Attaches the filter. about: None where each request says it by itself."""
    context = {} if about is None else {"filter_context": {"about": about}}
    config = {"@type": f"{_LUA}.LuaPerRoute", "name": FILTER, **context}
    return {FILTER: {"@type": f"{TYPE}.config.route.v3.FilterConfig", "config": config}}


def _cluster(name: str, address: Json, in_flight: int) -> Json:
    limits = {"max_connections": in_flight, "max_pending_requests": in_flight, "max_requests": in_flight}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{**limits, "max_retries": 0}]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
