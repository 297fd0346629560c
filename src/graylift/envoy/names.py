"""The names on which Envoy's files, its log and its admin answers must agree. Used inside this folder alone."""

from __future__ import annotations

from typing import Any, TypeAlias

from graylift.domain.routing import ServiceRoutes
from graylift.domain.spec import ServingProtocol
from graylift.domain.weights import Role

Json: TypeAlias = "dict[str, Any]"

TYPE = "type.googleapis.com/envoy"

ROUTES = "main"
"""The one route configuration: written into `rds.json`, asked for by the bootstrap file."""

REVISION_HEADER = "x-graylift-revision"
"""In every response of a model: the revision that really gave it."""

CANNOT_COMPUTE = 422
"""The status of a server whose model cannot compute a request that is otherwise right: what one revision cannot,
another may, so a candidate's is asked again of stable. Envoy itself never answers so."""

UNCHECKED = "unchecked/"

OWN = "gateway/"
"""Begins the names of clusters that lead to no server of a revision."""
AGENT = f"{OWN}agent"
"""The cluster by which Envoy reaches the agent beside it."""


def arm(role: Role, revision_id: str) -> str:
    """The cluster to which requests assigned to a revision in this role are sent; the log names it."""
    return f"{role.value}/{revision_id}"


def arm_from_name(cluster: str) -> tuple[Role, str]:
    """(role, revision) that a log line's cluster stands for. ValueError if it is no arm."""
    role, _, revision_id = cluster.partition("/")
    return Role(role), revision_id


def attempt_limit_s(service: ServiceRoutes) -> float:
    """How long one attempt may take or, where answers are streams, be silent."""
    match service.protocol:
        case ServingProtocol.OPEN_INFERENCE:
            # Half of the time is the candidate's: if it hangs, stable still has the other half.
            return service.timeout_s / 2
        case ServingProtocol.OPENAI:
            return service.timeout_s


def seconds(seconds: float) -> str:
    return f"{seconds:.3f}s"


def set_header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def status_filter(comparison: str, status: int) -> Json:
    # Envoy wants a key by which an operator could change the number at run time; ours is never set.
    value = {"default_value": status, "runtime_key": f"graylift.status_{status}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}
