"""Every error Graylift raises on purpose. A class exists only where somebody catches it.

    GrayliftError
    ├── SpecError            the release file is wrong; carries every problem with its place
    ├── CommandRefused       a command that cannot be done now, with the cure (unknown service, second release)
    ├── EngineError          an engine cannot be built, found, loaded or run
    │   ├── InputError       one request's tensors do not fit the model's interface; the engine stays usable
    │   └── NotComputable    they fit, but the model cannot compute them; the engine stays usable
    ├── ProtocolError        bytes that are not what their protocol says; carries the HTTP status to answer with
    ├── NotServed            a model server does not take this request now; carries why
    ├── DeployError          a revision's server cannot be started
    ├── NotTold              a receiver of notices did not take one
    ├── GatewayError         Envoy cannot be started, asked or configured
    │   ├── GatewayBusy      another agent works on this gateway
    │   └── TableRefused     this agent cannot or must not apply this routing table; it keeps the last good one
    └── StoreError           the state cannot be read or written; nothing was written
        └── LeaseLost        another controller holds the lease: stop acting at once

Foreign exceptions are mapped to these once, in the module that talks to the foreign library, with `raise ... from`.
Every message says what was expected, what came, where, and what to do next; secrets and request bodies never appear.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol


class GrayliftError(Exception):
    """The root. Its text is meant for the user."""


class Problem(Protocol):
    """One thing wrong at one place of a document; `str()` shows the place, the line, a caret and the cure."""

    def __str__(self) -> str: ...


class SpecError(GrayliftError):
    """The release file is wrong. `problems` holds all of them, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n\n".join(str(problem) for problem in self.problems))


class CommandRefused(GrayliftError):
    """What was asked cannot be done in the present state; the text says why and what can be done."""


class EngineError(GrayliftError):
    """An engine cannot be built, found, loaded or run."""


class InputError(EngineError):
    """The tensors of one request do not fit the model's interface."""


class NotComputable(EngineError):
    """The tensors of one request fit the interface, but an operator of the model refuses them: an id beyond its table,
    a sequence longer than its positions."""


class ProtocolError(GrayliftError):
    """A message breaks its protocol. `status` is the HTTP status to answer with (4xx); `param` the field at fault and
    `code` the word that programs go by, where a protocol has them."""

    def __init__(self, message: str, status: int = 400, *, param: str | None = None, code: str | None = None) -> None:
        self.status = status
        self.param = param
        self.code = code
        super().__init__(message)


class Refusal(Enum):
    """Why a model server does not take a request. NOT_READY: it loads or warms up. BUSY: its queue is full, or somebody
    more urgent took the last place. TOO_LATE: the request's own time was up before its turn came."""

    NOT_READY = "not ready"
    BUSY = "busy"
    TOO_LATE = "too late"


class NotServed(GrayliftError):
    """The request is well, and so is the model; it may be sent again, here later or elsewhere."""

    def __init__(self, message: str, why: Refusal) -> None:
        self.why = why
        super().__init__(message)


class DeployError(GrayliftError):
    """The server of a revision cannot be started."""


class NotTold(GrayliftError):
    """A receiver did not take a notice. `for_good`: it refused this very one, so that to try again is of no use."""

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        self.for_good = for_good
        super().__init__(message)


class GatewayError(GrayliftError):
    """Envoy cannot be started, asked or configured."""


class GatewayBusy(GatewayError):
    """Another agent works on this gateway: its controller can be followed, or is about to start."""


class TableRefused(GatewayError):
    """The agent refuses a routing table and keeps the last good one."""


class StoreError(GrayliftError):
    """The store cannot be read or written (locked, full, unreachable). Nothing was written."""


class LeaseLost(StoreError):
    """Another controller holds the lease. Whoever sees this stops acting."""
