"""Copies of shadowed requests and answers, as Envoy's filter sends them to the agent: the other side of `shadow.py`.

Pure; called by `gateway/`, which takes them in. A copy says of itself what it is about, so that one that was under way
while the routing table changed is still understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum

import orjson

from graylift.domain.shadow import Answer, Shadowed
from graylift.domain.spec import KeepExamples, ServingProtocol, Tolerance
from graylift.domain.weights import Role

ASKED, ANSWERED = "/asked", "/answered"
"""The candidate is about to be asked; one of the two has answered, to the last byte."""

HEADERS = ("content-type", "content-encoding", "inference-header-content-length")
"""What of an answer's headers is needed to read its body."""
OF_ANSWER = "answer-"


@dataclass(frozen=True, slots=True)
class Asked:
    """The candidate is asked now. request: its body, empty unless examples keep texts."""

    request_id: str
    shadowed: Shadowed
    request: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Answered:
    """One side has answered."""

    request_id: str
    shadowed: Shadowed
    role: Role
    answer: Answer


def about_from(shadowed: Shadowed) -> str:
    """The text that travels with the request."""
    return orjson.dumps(asdict(shadowed), default=_plain).decode()


def copy_from(path: str, headers: Mapping[str, str], body: bytes) -> Asked | Answered:
    """What a copy says. `headers` by lower-case name. ValueError if it was not written by our filter."""
    try:
        request_id, shadowed = headers["x-request-id"], _shadowed(headers["about"])
        if path == ASKED:
            return Asked(request_id, shadowed, body)
        if path != ANSWERED:
            raise ValueError(f"path {path}")
        elapsed_us = int(headers["ended"]) - int(headers["began"])
        if elapsed_us < 0:
            raise ValueError(f"{elapsed_us} us is no duration")
        answer = Answer(
            status=int(headers["status"]),
            headers=tuple((name, headers[OF_ANSWER + name]) for name in HEADERS if OF_ANSWER + name in headers),
            body=None if "too-long" in headers else body,
            elapsed_s=elapsed_us / 1e6,
        )
        return Answered(request_id, shadowed, Role(headers["arm"]), answer)
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"no copy of a shadowed request: {type(exc).__name__}: {exc}") from exc


def _shadowed(text: str) -> Shadowed:
    fields = orjson.loads(text)
    fields["tolerance"] = Tolerance(**fields["tolerance"])
    fields["protocol"], fields["keep"] = ServingProtocol(fields["protocol"]), KeepExamples(fields["keep"])
    return Shadowed(**fields)


def _plain(value: object) -> object:
    assert isinstance(value, Enum)
    return value.value
