"""The two answers to a shadowed request brought together. Pure: `now` is an argument.

The halves of a pair come apart in time, in any order, and some never come. None is waited for beyond its time, and what
waits is bounded: the oldest gives way, and is counted as lost. Called by `gateway/`, which also has the answers
compared: what they say is no business of this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graylift.domain.shadow import Answer, Lost, Shadowed, ShadowLoss
from graylift.domain.weights import Role

MOST_WAITING = 2_000
MOST_WAITING_BYTES = 64 * 1024 * 1024
SETTLED_S = 2.0
"""After so long, what one part of Envoy knew the others have told: a candidate that was not asked by now was not."""


@dataclass(frozen=True, slots=True)
class Matched:
    """Both halves of one request. candidate: None if it gave no answer to the end; `reason` then says why."""

    request_id: str
    shadowed: Shadowed
    request: bytes = field(repr=False)
    stable: Answer
    candidate: Answer | None
    reason: str | None = None


@dataclass(slots=True)
class _Waiting:
    since_s: float
    shadowed: Shadowed
    request: bytes = b""
    asked: bool = False
    broken: str | None = None
    stable: Answer | None = None
    candidate: Answer | None = None
    settles_s: float = 0.0

    @property
    def size(self) -> int:
        answers = (self.stable, self.candidate)
        return len(self.request) + sum(len(a.body) for a in answers if a is not None and a.body is not None)


class Pairing:
    """What waits for its other half, by request id."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._bytes = 0

    def asked(self, request_id: str, shadowed: Shadowed, request: bytes, now: float) -> None:
        """The candidate is being asked."""
        waiting = self._of(request_id, shadowed, now)
        self._bytes += len(request) - len(waiting.request)
        waiting.asked, waiting.request = True, request

    def broken(self, request_id: str, reason: str, now: float) -> None:
        """The candidate will give no answer to this request, or none to the end."""
        waiting = self._waiting.get(request_id)
        if waiting is not None:
            waiting.broken, waiting.settles_s = reason, now + SETTLED_S

    def answered(
        self, request_id: str, shadowed: Shadowed, role: Role, answer: Answer, now: float
    ) -> Matched | ShadowLoss | None:
        """One side has answered; the pair, if it is complete now."""
        waiting = self._of(request_id, shadowed, now)
        if (waiting.stable if role is Role.STABLE else waiting.candidate) is not None:
            # A client that gives two requests one id: nobody can tell which answers belong together.
            self._drop(request_id)
            return _loss(waiting, Lost.UNMATCHED, now)
        waiting.settles_s = now + SETTLED_S
        self._bytes += 0 if answer.body is None else len(answer.body)
        if role is Role.STABLE:
            waiting.stable = answer
        else:
            waiting.candidate = answer
        if waiting.stable is None or waiting.candidate is None:
            return None
        self._drop(request_id)
        return Matched(request_id, waiting.shadowed, waiting.request, waiting.stable, waiting.candidate)

    def settle(self, now: float) -> Iterator[Matched | ShadowLoss]:
        """What waits no longer: its time is over, or there is no room for it."""
        for request_id, waiting in list(self._waiting.items()):
            if len(self._waiting) > MOST_WAITING or self._bytes > MOST_WAITING_BYTES:
                self._drop(request_id)
                yield _loss(waiting, Lost.CROWDED, now)
            elif (settled := _settled(request_id, waiting, now)) is not None:
                self._drop(request_id)
                yield settled

    def _of(self, request_id: str, shadowed: Shadowed, now: float) -> _Waiting:
        return self._waiting.setdefault(request_id, _Waiting(now, shadowed))

    def _drop(self, request_id: str) -> None:
        self._bytes -= self._waiting.pop(request_id).size


def _settled(request_id: str, waiting: _Waiting, now: float) -> Matched | ShadowLoss | None:
    """What comes of a request of which one half is missing; None while it may still come."""
    late = now > waiting.since_s + waiting.shadowed.limit_s + SETTLED_S
    if waiting.stable is None:
        return _loss(waiting, Lost.UNMATCHED, now) if late else None
    if now < waiting.settles_s:
        return None
    if not waiting.asked:
        return _loss(waiting, Lost.SHED, now)
    if waiting.broken is not None:
        return Matched(request_id, waiting.shadowed, waiting.request, waiting.stable, None, waiting.broken)
    # It was asked, and nothing says that it failed: a copy that was lost is no reason to blame anybody.
    return _loss(waiting, Lost.UNMATCHED, now) if late else None


def _loss(waiting: _Waiting, why: Lost, now: float) -> ShadowLoss:
    return ShadowLoss(now, waiting.shadowed.service, waiting.shadowed.split, waiting.shadowed.revision_id, why)
