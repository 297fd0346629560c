"""A revision: one immutable, servable version of a model, named by digest; and what its server is doing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from graylift.domain.spec import Serving, ServingProtocol, TensorName


@dataclass(frozen=True, slots=True)
class ServedEngine:
    """An engine of the artefact store, to be served by our own model server.

    artefact: digest (hex) of the engine's bytes; the server refuses to load other bytes
    """

    artefact: str
    inputs: tuple[TensorName, ...] = ()
    outputs: tuple[TensorName, ...] = ()
    serving: Serving = field(default_factory=Serving)


@dataclass(frozen=True, slots=True)
class RunningEndpoint:
    """A server somebody else runs. `url` is http://host:port."""

    url: str
    protocol: ServingProtocol = ServingProtocol.OPEN_INFERENCE


@dataclass(frozen=True, slots=True)
class Revision:
    """Model + engine + runtime + configuration. Equal digests mean equal behaviour.

    name:   what people call it (`v2`); unique only within a service at one time
    digest: sha256 (hex) over all that makes up the revision
    """

    service: str
    name: str
    digest: str
    backend: ServedEngine | RunningEndpoint
    ready_within_s: float

    @property
    def id(self) -> str:
        """Unique everywhere, fit for file and cluster names: `file-type.v2.0123456789ab`."""
        return f"{self.service}.{self.name}.{self.digest[:12]}"


class InstanceState(Enum):
    """ABSENT: never started or stopped. STARTING: not ready yet. READY: answers. DEAD: ended by itself."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Instance:
    """What the deployer sees of one revision's server.

    address: host:port once known
    detail:  for DEAD and STARTING: why, with the last log lines, ready to be shown
    """

    revision_id: str
    state: InstanceState
    address: str | None = None
    detail: str = ""
