"""Envoy's first file: the listener, where the other two files lie, the log. It changes only with a restart of Envoy.

Called by `gateway/`. It knows no service and no revision: those are in the files of `files.py`, which Envoy watches.
"""

from __future__ import annotations

import json

from graylift.envoy import limits, shadow
from graylift.envoy.access_log import ATTEMPT_FORMAT, REQUEST_FORMAT
from graylift.envoy.llm import llm_filter
from graylift.envoy.names import AGENT, CANNOT_COMPUTE, ROUTES, TYPE, Json, status_filter
from graylift.envoy.own_errors import mappers

MAX_BODY_BYTES = 64 * 1024 * 1024
"""A larger request is refused with 413. Each is taken in whole before a model sees it: it can then always be asked
again elsewhere, and neither a slow client's upload occupies a model nor counts against the time of an attempt."""

MAX_CONNECTIONS = 50_000
MAX_HEADERS_KB = 64
MAX_HEADERS = 200


def bootstrap(
    *,
    node: str,
    listen_host: str,
    listen_port: int,
    xds_dir: str,
    access_log: str,
    shadow_socket: str,
    agent_socket: str,
    admin_host: str = "127.0.0.1",
    admin_port: int = 0,
) -> str:
    """The bootstrap file, as JSON.

    node:        name of the gateway
    listen_port: 0 lets the system choose; the admin answer `/listeners?format=json` tells which
    xds_dir:     where `cds.json` and `rds.json` lie. Envoy watches it for renames: write beside, rename over
    access_log:  path of the log; one JSON line a request and one a failed attempt, read by `access_log.parse`
    agent_socket: path of the socket on which the agent answers Envoy's questions, when it has any to answer
    shadow_socket: path of the one on which it takes in copies of answers (see `shadow.py`)
    """
    config = {
        "node": {"id": node, "cluster": "graylift"},
        "admin": {"address": _address(admin_host, admin_port)},
        "bootstrap_extensions": [shadow.extension()],
        "dynamic_resources": {"cds_config": _watched(xds_dir, "cds.json")},
        "static_resources": {
            "clusters": [_agent(agent_socket), *shadow.clusters(shadow_socket)],
            "listeners": [
                {
                    "name": "gateway",
                    "address": _address(listen_host, listen_port),
                    "filter_chains": [
                        {"filters": [_typed("http_connection_manager", _connections(xds_dir, access_log))]}
                    ],
                },
                shadow.listener(access_log),
            ],
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{TYPE}.extensions.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": MAX_CONNECTIONS,
                    },
                }
            ]
        },
    }
    return json.dumps(config, indent=1)


def _connections(xds_dir: str, access_log: str) -> Json:
    return {
        "@type": f"{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "codec_type": "AUTO",
        "rds": {"route_config_name": ROUTES, "config_source": _watched(xds_dir, "rds.json")},
        "http_filters": [
            _typed(
                "buffer",
                {
                    "@type": f"{TYPE}.extensions.filters.http.buffer.v3.Buffer",
                    "max_request_bytes": MAX_BODY_BYTES,
                },
            ),
            llm_filter(),
            # After it, which says how many tokens a request may take.
            *limits.filters(),
            # Nearest to the servers: what they are asked, and what they answered.
            shadow.copying(),
            _typed(
                "router",
                {
                    "@type": f"{TYPE}.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                    "upstream_log": [
                        {
                            **_file_log(access_log, ATTEMPT_FORMAT),
                            # A good attempt has its request's line; the failed ones may be hidden behind a retry.
                            "filter": {
                                "and_filter": {
                                    "filters": [
                                        shadow.of_users(),
                                        {
                                            "or_filter": {
                                                "filters": [
                                                    status_filter("GE", 500),
                                                    status_filter("EQ", CANNOT_COMPUTE),
                                                    {"response_flag_filter": {}},
                                                ]
                                            }
                                        },
                                    ]
                                }
                            },
                        }
                    ],
                },
            ),
        ],
        "local_reply_config": {"mappers": list(mappers())},
        "access_log": [_file_log(access_log, REQUEST_FORMAT)],
        # The edge: a client is not believed what it claims about itself, nor may its x-envoy-* headers set timeouts.
        "use_remote_address": True,
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "merge_slashes": True,
        "max_request_headers_kb": MAX_HEADERS_KB,
        "common_http_protocol_options": {"max_headers_count": MAX_HEADERS, "idle_timeout": "3600s"},
        # Against clients that send their headers drop by drop. Routes set the limits for everything after them.
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "300s",
        "drain_timeout": "5s",
    }


def _agent(socket: str) -> Json:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    endpoint = {"address": {"pipe": {"path": socket}}}
    return {
        "name": AGENT,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "circuit_breakers": {
            "thresholds": [{"max_requests": MAX_CONNECTIONS, "max_pending_requests": MAX_CONNECTIONS}]
        },
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {"cluster_name": AGENT, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }


def _typed(name: str, config: Json) -> Json:
    return {"name": name, "typed_config": config}


def _file_log(path: str, line: dict[str, str]) -> Json:
    return _typed(
        "file",
        {
            "@type": f"{TYPE}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": line},
        },
    )


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _watched(directory: str, name: str) -> Json:
    return {
        "resource_api_version": "V3",
        # The whole directory, since a watch on the file itself would follow the old file through a rename.
        "path_config_source": {"path": f"{directory}/{name}", "watched_directory": {"path": directory}},
        # Envoy must not open its port before it knows its routes; without an end, since the files are local.
        "initial_fetch_timeout": "0s",
    }
