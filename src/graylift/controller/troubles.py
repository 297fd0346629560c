"""What is wrong at the ports now: told once when it begins and once when it is over, and tried again with patience.

In memory only; after a restart a trouble that lasts is told again. Called by the controller.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graylift.domain.release import Event
from graylift.ports import Tracked

LONGEST_WAIT_S = 30.0

_log = logging.getLogger(__name__)


class Troubles:
    """Open troubles by subject (`gateway g1`, `server file-type.v1.0123`), and the events that are not stored yet."""

    def __init__(self) -> None:
        self._open: dict[str, str] = {}
        self._untold: list[Event] = []

    def note(self, subject: str, text: str, now: float, concerned: Iterable[Tracked] = ()) -> None:
        """`subject` is in trouble. Each service concerned gets an event, unless the same was told already."""
        if self._open.get(subject) == text:
            return
        self._open[subject] = text
        _log.warning("%s: %s", subject, text)
        self._untold.extend(_event(tracked, "TROUBLE", f"{subject}: {text}", now) for tracked in concerned)

    def over(self, subject: str, now: float, concerned: Iterable[Tracked] = ()) -> None:
        """`subject` is well (again)."""
        if self._open.pop(subject, None) is None:
            return
        _log.info("%s: well again", subject)
        self._untold.extend(_event(tracked, "MENDED", f"{subject}: well again", now) for tracked in concerned)

    @property
    def untold(self) -> tuple[Event, ...]:
        return tuple(self._untold)

    def told(self, events: Sequence[Event]) -> None:
        """These events, the oldest of `untold`, are stored."""
        del self._untold[: len(events)]


def _event(tracked: Tracked, kind: str, text: str, now: float) -> Event:
    release = tracked.release
    release_id = None if release is None or release.phase.is_final else release.id
    return Event(now, tracked.service.name, release_id, kind, text)


@dataclass(frozen=True, slots=True)
class _Wait:
    seconds: float
    until_s: float


class Patience:
    """When something that fails again and again may be tried again: after 1, 2, 4, ... seconds, `longest_s` at most."""

    def __init__(self, longest_s: float = LONGEST_WAIT_S) -> None:
        self._longest_s = longest_s
        self._waits: dict[str, _Wait] = {}

    def allows(self, subject: str, now: float) -> bool:
        """Monotonic seconds, as in `tried`."""
        wait = self._waits.get(subject)
        return wait is None or now >= wait.until_s

    def tried(self, subject: str, now: float) -> None:
        before = self._waits.get(subject)
        seconds = 1.0 if before is None else min(self._longest_s, before.seconds * 2)
        self._waits[subject] = _Wait(seconds, now + seconds)

    def succeeded(self, subject: str) -> None:
        self._waits.pop(subject, None)
