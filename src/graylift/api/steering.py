"""A command put before the controller, and which commands would do something now.

Which ones are worth a button is asked of the very function that will obey them (`rollout.obey`), tried on the release
as it is and thrown away.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from graylift.api.records import Records
from graylift.domain.release import Command, CommandKind, Release, Service
from graylift.ports import Handled
from graylift.rollout import obey

BUTTONS = (
    CommandKind.PROMOTE,
    CommandKind.APPROVE,
    CommandKind.PAUSE,
    CommandKind.RESUME,
    CommandKind.ABORT,
    CommandKind.RETRY,
)
_MEANING = {
    CommandKind.PROMOTE: "Go on to the next stage now, proven or not",
    CommandKind.APPROVE: "Let this stage go on once its checks pass",
    CommandKind.PAUSE: "Keep the split as it is until somebody resumes",
    CommandKind.RESUME: "Go on observing and deciding",
    CommandKind.ABORT: "Send everybody back to stable, now",
    CommandKind.RETRY: "Begin a new attempt with the same file",
}
WAIT_S = 5.0
"""How long an answer waits for what comes of a command."""
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Button:
    """why_not: why the command would do nothing now, None if it would do something."""

    kind: CommandKind
    meaning: str
    why_not: str | None


def buttons(service: Service | None, release: Release, now: float) -> tuple[Button, ...]:
    """One for each command that a page offers."""
    return tuple(Button(kind, _MEANING[kind], _why_not(kind, service, release, now)) for kind in BUTTONS)


def _why_not(kind: CommandKind, service: Service | None, release: Release, now: float) -> str | None:
    tried = obey(Command("tried", release.service, kind, "", "", now), service, release, 0, now)
    if tried.refused or (tried.release == release and tried.service == service):
        return tried.outcome
    return None


async def put(records: Records, command: Command) -> Handled | None:
    """Append the command, or find it there already, and wait some seconds for what comes of it; None if nobody has
    handled it by then: it stays in the store, and a controller does when there is one."""
    await asyncio.to_thread(records.append, command)
    until = time.monotonic() + WAIT_S
    while (outcome := await asyncio.to_thread(records.outcome, command.id)) is None and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_S)
    return outcome
