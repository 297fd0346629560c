"""Who is told of a release, who is asked before it goes on, and what is said.

A secret is only ever the name of an environment variable here, so that none can reach a file, the store or a log.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Secret:
    """The value of the environment variable `env`, where the controller runs; read when it is used, kept nowhere."""

    env: str

    def __str__(self) -> str:
        return f"${self.env}"


Address = str | Secret
"""A URL as written, or one that is a secret itself."""

TOLD = ("PAUSED", "PROMOTED", "ROLLING_BACK", "ROLLED_BACK", "ROLLBACK_FAILED", "REJECTED")
"""The kinds of event that are told where a receiver names none: a person may have to act, or it is over."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Gets each event as JSON. signing_key: of the HMAC that shows it came from here, None: unsigned."""

    url: Address
    signing_key: Secret | None = None
    on: tuple[str, ...] = TOLD

    def __str__(self) -> str:
        return f"webhook {self.url}"


@dataclass(frozen=True, slots=True)
class Slack:
    """A Slack-compatible incoming webhook. Whoever knows its address may write there, so it is a secret."""

    hook: Secret
    on: tuple[str, ...] = TOLD

    def __str__(self) -> str:
        return f"slack {self.hook}"


@dataclass(frozen=True, slots=True)
class Email:
    """Messages through the SMTP server `host`:`port`. user, password: both or neither."""

    to: tuple[str, ...]
    sender: str
    host: str
    port: int
    user: str | None = None
    password: Secret | None = None
    on: tuple[str, ...] = TOLD

    def __str__(self) -> str:
        return f"email {', '.join(self.to)}"


Receiver = Webhook | Slack | Email


@dataclass(frozen=True, slots=True)
class Notice:
    """One event for one receiver.

    number:   of the event in the order of all; with `place`, the receiver's in the release file, it names the notice
    at_s:     epoch seconds of the event
    candidate, stable: what the release file calls the two revisions
    """

    number: int
    place: int
    receiver: Receiver
    release_id: str
    service: str
    candidate: str
    stable: str
    at_s: float
    kind: str
    text: str
    by: str

    @property
    def id(self) -> str:
        """The same at each try: who was told of it already knows it by this."""
        return f"{self.release_id}.{self.number}.{self.place}"


@dataclass(frozen=True, slots=True)
class Gate:
    """Asked before a stage begins. timeout_s: how long it may take to answer."""

    name: str
    url: Address
    timeout_s: float = 10.0
    signing_key: Secret | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """May `release_id` enter stage `stage` (an index), as far as these gates go?

    weight: the candidate's share there, as people read it
    """

    release_id: str
    service: str
    candidate: str
    stable: str
    stage: int
    weight: str
    gates: tuple[Gate, ...]


class GateState(Enum):
    """GO, WAIT and STOP are a gate's own words. AWAY: it said none of them."""

    GO = "go"
    WAIT = "wait"
    STOP = "stop"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What a gate said last. `reason`: its own, or why it is AWAY; may be empty."""

    gate: str
    state: GateState
    reason: str = ""
