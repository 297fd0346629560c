"""The routing table: the one document the control plane hands to a gateway. It knows nothing of Envoy."""

from __future__ import annotations

from dataclasses import dataclass

from graylift.domain.limits import Limits
from graylift.domain.spec import KeepExamples, LabelRule, ServingProtocol, ShadowSpec, Sticky, Tolerance
from graylift.domain.weights import Weights


@dataclass(frozen=True, slots=True)
class Backend:
    """A revision that a gateway may send requests to. `address` is host:port."""

    revision_id: str
    address: str


@dataclass(frozen=True, slots=True)
class ShadowRoutes:
    """Which requests the candidate answers as well, and how the two answers are compared (see `ShadowJudge`)."""

    requests: ShadowSpec
    tolerance: Tolerance
    keep_examples: KeepExamples


@dataclass(frozen=True, slots=True)
class ServiceRoutes:
    """How the requests of one service are routed.

    stable:    answers everything that nothing else claims; it also answers what the candidate could not
    candidate: None when there is none; with weight 0 it is connected and health-checked but gets no request
    match:     label rules, first match wins, before the weights. Those to CANDIDATE hold only while `candidate` is set
    salt:      makes each release hash users afresh; constant within a release, so that nobody moves back
    split:     names the stage that assigns requests now; it comes back in every record
    draining:  get no new request but keep what runs
    shadow:    what the candidate, at weight 0, answers without any user getting it; None outside of shadow stages
    limits:    what clients may ask of the service, whichever arm they come to; None: all they like
    """

    service: str
    protocol: ServingProtocol
    stable: Backend
    candidate: Backend | None
    weights: Weights
    match: tuple[LabelRule, ...]
    sticky: Sticky | None
    salt: str
    split: str
    timeout_s: float
    draining: tuple[Backend, ...] = ()
    shadow: ShadowRoutes | None = None
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All services of a gateway. A whole, never a difference.

    version: rises with every change
    token:   the writer's fencing token; an agent refuses a token lower than one it has seen
    """

    version: int
    token: int
    services: tuple[ServiceRoutes, ...]


@dataclass(frozen=True, slots=True)
class GatewayState:
    """What one gateway reports of itself.

    applied_version: of the table that Envoy really runs (read back from Envoy), None if none or Envoy is away
    refused:  why the last table was refused, None if it was not
    healthy:  revisions whose server answers Envoy's health check
    open_requests: (revision, requests in flight)
    problem:  what is wrong with the gateway itself (Envoy restarting, ...), None if nothing
    """

    gateway: str
    applied_version: int | None
    refused: str | None
    healthy: tuple[str, ...]
    open_requests: tuple[tuple[str, int], ...]
    problem: str | None = None
