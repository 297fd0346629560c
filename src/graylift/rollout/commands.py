"""What a person may tell a release, and what comes of it: every command in every phase, done or refused with the cure.

A command that asks for what is so already is done, not refused. It knows nothing of who delivers commands; the
controller hands each one over once, and stores the outcome with the release.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from graylift.domain.release import Command, CommandKind, Event, Phase, Release, Service
from graylift.domain.spec import ReleaseSpec
from graylift.errors import CommandRefused
from graylift.rollout.arms import ON_TRAFFIC
from graylift.rollout.moves import enter_phase, go_back, next_stage, told
from graylift.rollout.wording import because, stage_name


@dataclass(frozen=True, slots=True)
class Obeyed:
    """What came of a command.

    service, release: as they are now; None if there is none
    outcome: the sentence for the person who gave the command; if `refused`, why, and what can be done instead
    """

    service: Service | None
    release: Release | None
    outcome: str
    refused: bool
    events: tuple[Event, ...]


def obey(command: Command, service: Service | None, release: Release | None, table_version: int, now: float) -> Obeyed:
    """Do what `command` says. `release` is the service's newest, ended or not; `table_version` is of the newest
    routing table that was stored."""
    try:
        return _done(command, service, release, table_version + 1, now)
    except CommandRefused as refusal:
        text = f"{command.kind.value} refused: {refusal}"
        event = Event(now, command.service, None if release is None else release.id, "REFUSED", text, command.by)
        return Obeyed(service, release, str(refusal), refused=True, events=(event,))


def _done(command: Command, service: Service | None, release: Release | None, table: int, now: float) -> Obeyed:
    if command.kind is CommandKind.START:
        return _start(command, service, release, now)
    if service is None or release is None:
        raise CommandRefused(f"there is no release of {command.service}: start one with graylift run FILE")
    match command.kind:
        case CommandKind.RETRY:
            return _retry(command, service, release, now)
        case CommandKind.PROMOTE:
            after = _promote(command, release, table, now)
        case CommandKind.PAUSE:
            after = _pause(command, release)
        case CommandKind.RESUME:
            after = _resume(command, release, now)
        case CommandKind.APPROVE:
            after = _approve(release)
        case CommandKind.ABORT:
            after = _abort(command, release, table, now)
        case _:
            assert_never(command.kind)
    if after == release:
        return Obeyed(service, release, f"{release.id} is {_state(release)} already", refused=False, events=())
    if after.phase is release.phase and after.stage == release.stage:
        event = Event(now, service.name, release.id, "APPROVED", f"{stage_name(release)} is approved", command.by)
        return Obeyed(service, after, event.text, refused=False, events=(event,))
    event = told(after, now, command.by)
    return Obeyed(service, after, f"{after.id} is {after.phase.value}: {event.text}", refused=False, events=(event,))


def _state(release: Release) -> str:
    return "approved" if release.phase in ON_TRAFFIC and release.approved else release.phase.value


def _start(command: Command, service: Service | None, release: Release | None, now: float) -> Obeyed:
    spec = command.spec
    if spec is None:
        raise CommandRefused("it carries no release file: start one with graylift run FILE")
    if spec.service != command.service:
        raise CommandRefused(f"the file is about {spec.service}, the command about {command.service}")
    if release is not None and not release.phase.is_final:
        if release.spec.digest != spec.digest:
            raise CommandRefused(
                f"{release.id} is {release.phase.value} on {release.service}, and a service has one release at a time: "
                f"wait for its end, or graylift abort {release.service}"
            )
        return Obeyed(service, release, f"{release.id} goes on: {release.phase.value}", refused=False, events=())
    service = service or Service(name=spec.service, protocol=spec.protocol, routing=spec.routing)
    return _begun(command, service, spec, now)


def _retry(command: Command, service: Service, release: Release, now: float) -> Obeyed:
    if not release.phase.is_final:
        raise CommandRefused(f"{release.id} is {release.phase.value}, there is nothing to retry before it has ended")
    if release.phase is Phase.PROMOTED:
        raise CommandRefused(f"{release.id} is PROMOTED, there is nothing to retry: start a new release")
    return _begun(command, service, release.spec, now)


def _begun(command: Command, service: Service, spec: ReleaseSpec, now: float) -> Obeyed:
    number = service.releases + 1
    release_id = f"{service.name}-{number}"
    why = f"{'retried' if command.kind is CommandKind.RETRY else 'started'} by {command.by}{because(command.reason)}"
    release = Release(
        id=release_id,
        spec=spec,
        phase=Phase.PENDING,
        reason=why,
        stage=0,
        entered_s=now,
        observed_s=0.0,
        stage_table=0,
        approved=False,
        salt=release_id,
        created_s=now,
        stable=service.stable,
    )
    service = replace(service, releases=number)
    return Obeyed(service, release, f"{release_id} {why}", refused=False, events=(told(release, now, command.by),))


def _promote(command: Command, release: Release, table: int, now: float) -> Release:
    if release.phase not in ON_TRAFFIC:
        raise CommandRefused(
            f"{release.id} is {release.phase.value}: only a release that gets traffic can go on to its next stage"
        )
    return next_stage(release, f"promoted by {command.by}{because(command.reason)}", table, now)


def _pause(command: Command, release: Release) -> Release:
    if release.phase is Phase.PAUSED:
        return release
    if release.phase not in ON_TRAFFIC:
        raise CommandRefused(
            f"there is nothing to pause: {release.id} is {release.phase.value} and sends the candidate no traffic"
            + ("" if release.phase.is_final else f"; to end it, graylift abort {release.service}")
        )
    return replace(release, phase=Phase.PAUSED, reason=f"paused by {command.by}{because(command.reason)}")


def _resume(command: Command, release: Release, now: float) -> Release:
    if release.phase in (Phase.PROGRESSING, Phase.PROMOTING):
        return release
    if release.phase is not Phase.PAUSED:
        raise CommandRefused(f"there is nothing to resume: {release.id} is {release.phase.value}, not paused")
    judgement, watch = release.judgement, release.current_stage.is_watch
    if judgement is not None and not watch and (judgement.failed or judgement.share_off is not None):
        raise CommandRefused(
            f"what paused {release.id} is still so ({release.reason}): graylift abort {release.service} takes users "
            f"off the candidate, graylift promote {release.service} goes on nevertheless"
        )
    phase = Phase.PROMOTING if watch else Phase.PROGRESSING
    return replace(release, phase=phase, reason=f"resumed by {command.by}{because(command.reason)}", resumed_s=now)


def _approve(release: Release) -> Release:
    if release.phase not in ON_TRAFFIC:
        raise CommandRefused(f"there is nothing to approve: {release.id} is {release.phase.value}")
    if not release.current_stage.approval_required:
        raise CommandRefused(f"there is nothing to approve: {stage_name(release)} of {release.id} asks for no approval")
    return replace(release, approved=True)


def _abort(command: Command, release: Release, table: int, now: float) -> Release:
    why = f"aborted by {command.by}{because(command.reason)}"
    match release.phase:
        case Phase.PENDING | Phase.CHECKING | Phase.STARTING:
            return enter_phase(release, Phase.REJECTED, why, table, now)
        case Phase.PROGRESSING | Phase.PAUSED | Phase.PROMOTING:
            return go_back(release, why, table, now)
        case Phase.ROLLING_BACK | Phase.ROLLBACK_FAILED:
            return release
        case Phase.PROMOTED | Phase.ROLLED_BACK | Phase.REJECTED:
            raise CommandRefused(f"there is nothing to abort: {release.id} is {release.phase.value}")
        case _:
            assert_never(release.phase)
