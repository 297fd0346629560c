"""A routing table as the two files that Envoy watches: clusters (`cds.json`) and routes (`rds.json`).

Called by `gateway/`, which writes them in this order, each by an atomic rename, so that no route ever points nowhere:
`across(old, new)` as cds.json; once `readback.clusters_version` shows it, `new.rds` as rds.json; once
`readback.routes_version` shows that, `new.cds` as cds.json; `readback.applied_version` tells the arrival.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from graylift.domain.routing import RoutingTable
from graylift.envoy.clusters import CLUSTER, clusters_of
from graylift.envoy.consistency import problems
from graylift.envoy.names import Json
from graylift.envoy.routes import routes_of

_MARKER = "table/version"


@dataclass(frozen=True, slots=True)
class EnvoyFiles:
    """The two files of one table. Equal tables give equal text."""

    version: int
    cds: str
    rds: str


def render(table: RoutingTable) -> EnvoyFiles:
    """The table's files. ValueError that names everything inconsistent in it: nothing of such a table may be served."""
    wrong = "; ".join(problems(table))
    if wrong:
        raise ValueError(f"routing table {table.version} is inconsistent: {wrong}")
    clusters = (cluster for service in table.services for cluster in clusters_of(service))
    return EnvoyFiles(
        version=table.version,
        cds=_cds(str(table.version), clusters),
        rds=_discovery(str(table.version), [routes_of(table)]),
    )


def across(old: EnvoyFiles | None, new: EnvoyFiles) -> str:
    """The cds.json for the way from `old` to `new`: the clusters of both, so that neither's routes point nowhere.

    Its version is that of no table (`16>17`), so `readback.applied_version` does not take it for arrived.
    """
    if old is None:
        return new.cds
    clusters = {c["name"]: c for files in (old, new) for c in json.loads(files.cds)["resources"]}
    del clusters[_MARKER]
    return _cds(f"{old.version}>{new.version}", clusters.values())


def _cds(version: str, clusters: Iterable[Json]) -> str:
    # Envoy does not take over the version of a file in which no cluster differs; so one differs always.
    marker = {
        "@type": CLUSTER,
        "name": _MARKER,
        "type": "STATIC",
        "metadata": {"filter_metadata": {"graylift": {"table": version}}},
    }
    return _discovery(version, [marker, *clusters])


def _discovery(version: str, resources: list[Json]) -> str:
    return json.dumps({"version_info": version, "resources": resources}, indent=1)
