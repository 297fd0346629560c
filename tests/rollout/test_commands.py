"""Every command in every phase: done, or refused with the cure; twice is as once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graylift.domain.release import Command, CommandKind, Phase, Release, Service
from graylift.domain.spec import ReleaseSpec, RoutingSpec, ServingProtocol, Stage
from graylift.domain.weights import ALL, Weights
from graylift.rollout import Obeyed, obey
from graylift.testing.samples import judgement, release_spec, revision

NOW = 1000.0
SPEC = release_spec(stages=(Stage(Weights(500), 5.0, approval_required=True), Stage(ALL, 5.0)))
SERVICE = Service("file-type", ServingProtocol.OPEN_INFERENCE, RoutingSpec(), revision("v1"), releases=1)


def release(phase: Phase) -> Release:
    return Release(
        id="file-type-1",
        spec=SPEC,
        phase=phase,
        reason="as before",
        stage=1 if phase in (Phase.PROMOTING, Phase.PROMOTED) else 0,
        entered_s=0.0,
        observed_s=2.0,
        stage_table=4,
        approved=False,
        salt="file-type-1",
        created_s=0.0,
        stable=revision("v1"),
        candidate=revision("v2"),
    )


def tell(kind: CommandKind, before: Release | None, *, reason: str = "", spec: ReleaseSpec | None = None) -> Obeyed:
    command = Command("c1", "file-type", kind, "ann", reason, NOW, spec)
    return obey(command, SERVICE, before, table_version=7, now=NOW)


REFUSED = None
TABLE = {
    CommandKind.PROMOTE: {
        Phase.PROGRESSING: Phase.PROMOTING,
        Phase.PAUSED: Phase.PROMOTING,
        Phase.PROMOTING: Phase.PROMOTED,
    },
    CommandKind.PAUSE: {
        Phase.PROGRESSING: Phase.PAUSED,
        Phase.PAUSED: Phase.PAUSED,
        Phase.PROMOTING: Phase.PAUSED,
    },
    CommandKind.RESUME: {
        Phase.PAUSED: Phase.PROGRESSING,
        Phase.PROGRESSING: Phase.PROGRESSING,
        Phase.PROMOTING: Phase.PROMOTING,
    },
    CommandKind.APPROVE: {Phase.PROGRESSING: Phase.PROGRESSING, Phase.PAUSED: Phase.PAUSED},
    CommandKind.ABORT: {
        Phase.PENDING: Phase.REJECTED,
        Phase.CHECKING: Phase.REJECTED,
        Phase.STARTING: Phase.REJECTED,
        Phase.PROGRESSING: Phase.ROLLING_BACK,
        Phase.PAUSED: Phase.ROLLING_BACK,
        Phase.PROMOTING: Phase.ROLLING_BACK,
        Phase.ROLLING_BACK: Phase.ROLLING_BACK,
        Phase.ROLLBACK_FAILED: Phase.ROLLBACK_FAILED,
    },
    CommandKind.RETRY: {Phase.ROLLED_BACK: Phase.PENDING, Phase.REJECTED: Phase.PENDING},
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("kind", TABLE)
def test_each_command_does_in_each_phase_what_the_table_says(kind: CommandKind, phase: Phase) -> None:
    before = release(phase)
    obeyed = tell(kind, before)
    expected = TABLE[kind].get(phase, REFUSED)

    assert obeyed.outcome
    if expected is REFUSED:
        assert obeyed.refused
        assert obeyed.release == before
        assert phase.value in obeyed.outcome or "approve" in obeyed.outcome
        assert [event.kind for event in obeyed.events] == ["REFUSED"]
    else:
        assert not obeyed.refused
        assert obeyed.release is not None
        assert obeyed.release.phase is expected
        assert all(event.by == "ann" for event in obeyed.events)


def test_a_move_to_another_stage_starts_with_the_next_table_and_nothing_observed() -> None:
    obeyed = tell(CommandKind.PROMOTE, release(Phase.PROGRESSING), reason="looks fine")

    assert obeyed.release is not None
    assert (obeyed.release.stage, obeyed.release.stage_table, obeyed.release.observed_s) == (1, 8, 0.0)
    assert obeyed.release.done[0].observed_s == 2.0
    assert obeyed.outcome == ("file-type-1 is PROMOTING: stage 2 of 2 (100 %): promoted by ann: looks fine")


def test_what_was_approved_once_is_approved() -> None:
    once = tell(CommandKind.APPROVE, release(Phase.PROGRESSING))
    twice = tell(CommandKind.APPROVE, once.release)

    assert once.outcome == "stage 1 of 2 (5 %) is approved"
    assert (twice.refused, twice.events, twice.release) == (False, (), once.release)


def test_a_stage_that_asks_for_no_approval_cannot_be_approved() -> None:
    obeyed = tell(CommandKind.APPROVE, release(Phase.PROMOTING))

    assert obeyed.outcome == "there is nothing to approve: stage 2 of 2 (100 %) of file-type-1 asks for no approval"


def test_what_paused_a_release_by_itself_is_not_resumed_while_it_lasts() -> None:
    paused = replace(release(Phase.PAUSED), judgement=judgement(share_off="9 % instead of 5 %"), reason="9 % not 5 %")

    obeyed = tell(CommandKind.RESUME, paused)

    assert obeyed.refused
    assert "9 % not 5 %" in obeyed.outcome
    assert "graylift abort file-type" in obeyed.outcome
    assert "graylift promote file-type" in obeyed.outcome


def test_start_makes_the_first_release_and_its_service() -> None:
    command = Command("c1", "file-type", CommandKind.START, "ann", "", NOW, SPEC)

    obeyed = obey(command, None, None, table_version=0, now=NOW)

    assert obeyed.service == Service("file-type", SPEC.protocol, SPEC.routing, releases=1)
    assert obeyed.release is not None
    assert (obeyed.release.id, obeyed.release.phase, obeyed.release.stable) == ("file-type-1", Phase.PENDING, None)
    assert obeyed.outcome == "file-type-1 started by ann"


def test_start_on_a_service_that_serves_names_what_it_runs() -> None:
    obeyed = tell(CommandKind.START, release(Phase.ROLLED_BACK), spec=SPEC)

    assert obeyed.release is not None
    assert (obeyed.release.id, obeyed.release.stable) == ("file-type-2", revision("v1"))


@pytest.mark.parametrize("phase", [phase for phase in Phase if not phase.is_final])
def test_a_service_has_one_release_at_a_time(phase: Phase) -> None:
    other = tell(CommandKind.START, release(phase), spec=release_spec(candidate="v3"))
    same = tell(CommandKind.START, release(phase), spec=SPEC)

    assert other.refused
    assert f"file-type-1 is {phase.value}" in other.outcome
    assert (same.refused, same.release, same.outcome) == (False, release(phase), f"file-type-1 goes on: {phase.value}")


def test_start_without_a_file_or_about_another_service_is_refused() -> None:
    assert "carries no release file" in tell(CommandKind.START, None).outcome
    other = tell(CommandKind.START, None, spec=release_spec(service="other"))
    assert other.outcome == "the file is about other, the command about file-type"
