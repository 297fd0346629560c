"""A port that fails: nothing is lost, nothing is blamed on the candidate, the reason is told once."""

from __future__ import annotations

from dataclasses import replace

from release_scene import GOOD_WAY, STAGES, Scene

from graylift.controller.controller import LEASE_S
from graylift.domain.release import CommandKind, Phase
from graylift.errors import EngineError
from graylift.ports import Change
from graylift.testing.samples import release_spec

SPEC = release_spec(stages=STAGES)


async def test_while_the_store_is_locked_nothing_happens_and_nothing_is_lost() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.store.locked = "the state is locked by another process"
    tables, started = len(scene.router.applied), len(scene.deployer.started)
    for _ in range(20):
        scene.traffic()
        assert await scene.controller.look() is None
    assert (len(scene.router.applied), len(scene.deployer.started)) == (tables, started)
    scene.store.locked = None

    await scene.until(Phase.PROMOTED)

    assert scene.stages() == GOOD_WAY
    assert scene.release.done[0].observed_s == 20.0, "what was seen meanwhile is counted when it can be stored"


async def test_a_router_that_fails_holds_and_is_told_once() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.router.broken = "the agent does not answer"
    await scene.seconds(20)
    assert scene.release.phase is Phase.PROGRESSING
    assert scene.release.reason == "no gateway answers"
    assert [event.text for event in scene.events("TROUBLE")] == ["gateways: the agent does not answer"]
    scene.router.broken = None

    await scene.until(Phase.PROMOTED)

    assert [event.text for event in scene.events("MENDED")] == ["gateways: well again"]


async def test_evidence_that_cannot_be_read_holds_and_is_read_later() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.evidence.broken = "the agent's log cannot be read"
    await scene.seconds(20)
    assert (scene.release.stage, scene.release.observed_s) == (0, 0.0)
    scene.evidence.broken = None

    await scene.until(Phase.PROMOTED)

    assert scene.release.done[0].observed_s == 20.0
    assert len(scene.events("TROUBLE")) == 1


async def test_a_deployer_that_cannot_tell_holds() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.deployer.away = "too many open files"
    await scene.seconds(20)
    assert scene.release.reason == "nobody can tell how the server of v1 is"
    assert scene.table.services[0].stable.address == "v1.test:80", "its routes stay"
    scene.deployer.away = None

    await scene.until(Phase.PROMOTED)


async def test_a_gap_in_the_evidence_is_no_evidence() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.behaves("v2", failed=1.0)
    scene.silent.add("g1")
    for _ in range(20):
        seen, table = scene.windows("g1"), scene.table.version
        scene.evidence.add("g1", scene.clock.now(), seen, table_version=table, gap="log lines were lost")
        await scene.seconds(1)

    assert (scene.release.phase, scene.release.stage, scene.release.observed_s) == (Phase.PROGRESSING, 0, 0.0)


async def test_a_stable_that_dies_is_started_again_and_the_candidate_is_not_blamed() -> None:
    scene = Scene(ready_after_s=3.0)
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.deployer.kill("v1", "signal 11")

    await scene.seconds(2)
    assert scene.release.phase is Phase.PROGRESSING
    assert "the server of v1" in scene.release.reason

    await scene.until(Phase.PROMOTED)
    assert (
        len([event for event in scene.events("TROUBLE") if "v1 ended and is started again: signal 11" in event.text])
        == 1
    )
    assert len(scene.events("MENDED")) == 1
    assert len(scene.deployer.started) == 3


async def test_a_server_that_dies_again_and_again_is_started_with_patience() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTED)
    await scene.seconds(2)
    before = len(scene.deployer.started)
    for _ in range(60):
        scene.deployer.kill("v2")
        await scene.seconds(1)
        scene.deployer.stuck.add("v2")

    assert 4 <= len(scene.deployer.started) - before <= 8


async def test_checks_that_cannot_be_carried_out_are_tried_again() -> None:
    scene = Scene()
    scene.checklist.errors = [EngineError("the disk is full"), EngineError("the disk is full")]
    scene.starts(SPEC)

    await scene.until(Phase.PROMOTED)

    assert scene.checklist.begun == 3
    assert [event.text for event in scene.events("TROUBLE")] == ["checks of file-type-1: the disk is full"]


def forget_the_evidence(scene: Scene) -> None:
    lease = scene.memory.acquire("controller 1", scene.clock.now(), LEASE_S)
    assert lease is not None
    tracked = scene.memory.snapshot().services[0]
    scene.memory.commit(lease, Change(tracked=(replace(tracked, judge_state="of a newer Graylift"),)))


async def test_a_judge_state_that_cannot_be_read_is_missing_evidence() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    await scene.seconds(1)
    forget_the_evidence(scene)

    await scene.until(Phase.PROMOTED)

    assert len(scene.events("EVIDENCE_LOST")) == 1
    assert scene.stages() == GOOD_WAY


async def test_a_stage_can_be_entered_with_a_judge_state_that_cannot_be_read() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    forget_the_evidence(scene)
    scene.commands(CommandKind.PROMOTE)

    await scene.until(Phase.PROMOTED)

    assert scene.stages() == GOOD_WAY


async def test_a_gateway_that_runs_a_newer_table_than_a_lost_store_knows_gets_a_newer_one_still() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTED)
    newest = scene.table.version
    fresh = Scene()
    fresh.router = scene.router
    fresh.router._deployer = fresh.deployer
    fresh.controller = fresh.new_controller()
    fresh.starts(SPEC)

    await fresh.until(Phase.PROMOTED)

    assert fresh.table.version > newest
    assert fresh.stages() == GOOD_WAY


async def test_a_gateway_that_is_ahead_of_a_restored_store_gets_what_the_store_says() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTED)
    await scene.seconds(3)
    gateway, stored = scene.router.gateways["g1"], scene.table
    gateway.table = replace(stored, version=stored.version + 50, services=())

    await scene.seconds(1)

    assert scene.table.version == stored.version + 51
    assert gateway.table.services == stored.services
