"""What Envoy says of itself: which table it really runs, who is healthy, what is still open, what it refused.

Called by `gateway/` with parsed answers of the admin port (`/config_dump`, `/clusters?format=json`) and with the text
of Envoy's own log.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from graylift.envoy.names import OWN, ROUTES, UNCHECKED

_UNHEALTHY = ("failed_active_health_check", "failed_outlier_check", "pending_active_hc", "pending_dynamic_removal")
_REFUSAL = re.compile(r"Filesystem config update (?:rejected|failure): (.*)")


def applied_version(config_dump: Mapping[str, Any]) -> int | None:
    """The version of the table that Envoy runs; None while its clusters and its routes are not of the same table."""
    routes = routes_version(config_dump)
    return routes if clusters_version(config_dump) == str(routes) else None


def clusters_version(config_dump: Mapping[str, Any]) -> str | None:
    """The version of the clusters (`17`, or `16>17` on the way, see `files.across`); None while one is warming."""
    if warming(config_dump):
        return None
    return next((section.get("version_info") for section in _sections(config_dump, "ClustersConfigDump")), None)


def routes_version(config_dump: Mapping[str, Any]) -> int | None:
    """The version of the routes alone: once it is the new table's, no new request goes to a cluster of the old."""
    for section in _sections(config_dump, "RoutesConfigDump"):
        for route in section.get("dynamic_route_configs", ()):
            if route["route_config"]["name"] == ROUTES:
                return int(route["version_info"])
    return None


def warming(config_dump: Mapping[str, Any]) -> tuple[str, ...]:
    """Clusters that Envoy has read but not yet checked, ascending; routes to them would answer 503."""
    sections = _sections(config_dump, "ClustersConfigDump")
    return tuple(
        sorted(str(c["cluster"]["name"]) for section in sections for c in section.get("dynamic_warming_clusters", ()))
    )


def refusal(log: str) -> str | None:
    """Why Envoy refused a file, the last time that its own log tells of it; None if `log` tells of no refusal.

    Envoy reads both files whenever one of them is renamed, so an old refusal is told again: give only what was logged
    since the file was written, and ask only while `applied_version` is not the expected one.
    """
    refusals = _REFUSAL.findall(log)
    return refusals[-1].strip() if refusals else None


def healthy(clusters: Mapping[str, Any]) -> tuple[str, ...]:
    """Revisions with a server that passes its health check and is not ejected, ascending."""
    # Names with a slash are roles of a server, not servers that are checked (see `files.py`).
    checked = ((name, host) for name, host in _hosts(clusters) if "/" not in name)
    return tuple(sorted({name for name, host in checked if not any(map(host["health_status"].get, _UNHEALTHY))}))


def open_requests(clusters: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """(revision, requests in flight), ascending by revision; 0 included."""
    count: Counter[str] = Counter()
    for name, host in _hosts(clusters):
        # Envoy leaves out a value of 0.
        active = sum(int(stat.get("value", 0)) for stat in host["stats"] if stat["name"] == "rq_active")
        count[name.removeprefix(UNCHECKED)] += active
    return tuple(sorted(count.items()))


def _hosts(clusters: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(cluster name, host) of all servers."""
    for cluster in clusters["cluster_statuses"]:
        for host in cluster.get("host_statuses", ()) if not cluster["name"].startswith(OWN) else ():
            yield cluster["name"], host


def _sections(config_dump: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    return (section for section in config_dump["configs"] if section["@type"].endswith(f".{kind}"))
