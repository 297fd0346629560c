"""What the API needs of the store: reading, and appending commands. The SQL store gives all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from graylift.domain.access import Token
from graylift.domain.evidence import IntervalReport
from graylift.domain.release import Command, Event, Release
from graylift.ports import Handled, History, Lease, Snapshot


class Numbered(Protocol):
    """An event with its number in the store, which rises with every event."""

    @property
    def number(self) -> int: ...

    @property
    def event(self) -> Event: ...


class Records(Protocol):
    """Methods block; the API calls them in threads. All raise StoreError."""

    def snapshot(self) -> Snapshot: ...

    def releases(self, service: str | None = None, limit: int = 100) -> Sequence[Release]:
        """The newest releases of one service or of all, newest first."""
        ...

    def release(self, release_id: str) -> Release:
        """KeyError if there is none of that id."""
        ...

    def history(self, release_id: str) -> History:
        """KeyError if there is none of that id."""
        ...

    def recent_reports(self, service: str, since_s: float) -> Sequence[IntervalReport]: ...

    def events_after(
        self, number: int = 0, *, service: str | None = None, release_id: str | None = None, limit: int = 1000
    ) -> Sequence[Numbered]: ...

    def lease(self) -> Lease | None: ...

    def append(self, command: Command) -> None: ...

    def tokens(self) -> Sequence[Token]: ...

    def outcome(self, command_id: str) -> Handled | None: ...
