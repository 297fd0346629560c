"""Whole releases, from START to their end, in virtual time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from release_scene import GOOD_WAY, ON_TRAFFIC, STAGES, Scene

from graylift.domain.release import CommandKind, Phase
from graylift.domain.spec import OnFailure, ReleaseSpec, RoutingSpec, Stage, Sticky, StickyBy
from graylift.domain.weights import ALL, Weights
from graylift.rollout import DRAIN_S, ROLLBACK_WITHIN_S
from graylift.testing.samples import LATENCY, check_report, release_spec

SPEC = release_spec(stages=STAGES)
TO_V3 = release_spec(stable="v2", candidate="v3", stages=STAGES)


async def test_a_good_candidate_is_promoted_stage_by_stage() -> None:
    scene = Scene()
    scene.starts(SPEC)

    release = await scene.until(Phase.PROMOTED)

    assert scene.stages() == GOOD_WAY
    assert [record.weights for record in release.done] == [stage.weights for stage in STAGES]
    assert all(record.observed_s == 3.0 for record in release.done)
    assert scene.service.stable is not None
    assert scene.service.stable.name == "v2"


async def test_promotion_restarts_nothing_and_the_old_stable_drains() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTING)
    assert scene.running() == {"v1", "v2"}, "the old stable stays warm while the new one is watched"
    old = scene.table.services[0].stable.revision_id
    scene.router.gateways["g1"].open_requests[old] = 1

    await scene.until(Phase.PROMOTED)
    await scene.seconds(3)
    assert scene.running() == {"v1", "v2"}, "it still answers a request"
    scene.router.gateways["g1"].open_requests[old] = 0
    await scene.seconds(1)

    assert scene.running() == {"v2"}
    assert len(scene.deployer.started) == 2
    assert scene.deployer.stopped == [old]


async def test_a_request_that_never_ends_does_not_keep_the_old_stable_for_ever() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTING)
    scene.router.gateways["g1"].open_requests[scene.table.services[0].stable.revision_id] = 1

    await scene.until(Phase.PROMOTED)
    await scene.seconds(DRAIN_S - 2)
    assert scene.running() == {"v1", "v2"}
    await scene.seconds(4)

    assert scene.running() == {"v2"}
    (begun,), (late,) = scene.events("DRAINING"), scene.events("DRAINED_LATE")
    assert "v1 gets no new request" in begun.text
    assert "1 request open" in late.text


async def test_a_bad_candidate_is_rolled_back_and_gets_nothing_any_more() -> None:
    scene = Scene()
    scene.behaves("v2", failed=0.5)
    scene.starts(SPEC)

    release = await scene.until(Phase.ROLLED_BACK)
    await scene.seconds(2)

    assert "errors" in release.reason
    assert "verified at 1 gateway" in release.reason
    assert scene.weight_at() == 0
    assert scene.running() == {"v1"}
    assert release.done[-1].verdicts


async def test_a_slow_candidate_is_rolled_back() -> None:
    scene = Scene()
    scene.behaves("v2", latency_s=0.050)
    scene.starts(release_spec(stages=STAGES, checks=(LATENCY,)))

    release = await scene.until(Phase.ROLLED_BACK)

    assert "p99 latency" in release.reason


async def test_without_traffic_a_release_holds_for_ever_and_says_so() -> None:
    scene = Scene(rate=0)
    scene.starts(SPEC)

    await scene.until(Phase.PROGRESSING)
    await scene.seconds(600)

    assert (scene.release.phase, scene.release.stage) == (Phase.PROGRESSING, 0)
    assert "no request to v2" in scene.release.reason


async def test_traffic_that_stops_in_a_stage_does_not_carry_it_over() -> None:
    scene = Scene()
    scene.starts(release_spec(stages=(Stage(Weights(2000), 5.0, 2000), *STAGES[1:])))
    await scene.until(Phase.PROGRESSING)
    await scene.seconds(2)
    scene.rate = 0

    await scene.seconds(100)

    assert scene.release.stage == 0
    assert scene.release.reason == "160 of 2,000 requests"


async def test_a_silent_gateway_is_missing_evidence_and_missing_evidence_holds() -> None:
    scene = Scene(gateways=("g1", "g2"))
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.silent = {"g1", "g2"}

    await scene.seconds(100)

    assert (scene.release.phase, scene.release.stage, scene.release.observed_s) == (Phase.PROGRESSING, 0, 0.0)


async def test_two_gateways_do_not_make_time_run_twice_as_fast() -> None:
    scene = Scene(gateways=("g1", "g2"))
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    began = scene.clock.now()

    await scene.until(Phase.PROMOTING)

    assert scene.clock.now() - began == 6.0


async def test_a_stable_that_is_sick_itself_holds_the_stage_and_blames_nobody() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.behaves("v1", failed=0.4)
    scene.behaves("v2", failed=0.4)

    await scene.seconds(60)
    assert scene.release.phase is Phase.PROGRESSING
    assert "stable itself fails" in scene.release.reason
    scene.behaves("v1")
    scene.behaves("v2")

    await scene.until(Phase.PROMOTED)
    assert len(scene.events("STABLE_SICK")) == 1
    assert len(scene.events("STABLE_WELL")) == 1


async def test_a_gateway_that_is_away_during_a_rollback_makes_it_fail_and_later_succeed() -> None:
    scene = Scene(gateways=("g1", "g2"))
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.router.gateways["g2"].away = True
    scene.commands(CommandKind.ABORT)

    await scene.seconds(1)
    assert scene.release.phase is Phase.ROLLING_BACK
    assert scene.weight_at("g1") == 0
    await scene.seconds(ROLLBACK_WITHIN_S + 1)
    assert scene.release.phase is Phase.ROLLBACK_FAILED
    assert "gateway g2: it does not answer" in scene.release.reason
    assert scene.running() == {"v1", "v2"}, "users may still be sent to v2"
    scene.router.gateways["g2"].away = False

    release = await scene.until(Phase.ROLLED_BACK)
    assert scene.weight_at("g2") == 0
    assert release.reason == "aborted by ann (weight 0 verified at 2 gateways)"
    await scene.seconds(1)
    assert scene.running() == {"v1"}


async def test_a_gateway_that_keeps_the_old_table_holds_the_stage() -> None:
    scene = Scene(gateways=("g1", "g2"))
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.router.gateways["g2"].frozen = True

    await scene.seconds(60)

    assert scene.release.stage == 1, "stored and handed out, but g2 does not do it"
    assert scene.release.observed_s < 60
    assert "gateway g2 runs routing table" in scene.release.reason


async def test_a_gateway_that_refuses_the_table_is_quoted() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.router.gateways["g1"].refuses = "port 8080 is taken"

    await scene.until(Phase.PROGRESSING)
    await scene.seconds(10)

    assert scene.release.stage == 1, "stage 1 was stored, but the gateway never took it"
    assert "port 8080 is taken" in scene.release.reason
    assert len([event for event in scene.events("TROUBLE") if "port 8080" in event.text]) == 2, (
        "gateway and table, once"
    )


async def test_a_stage_that_asks_for_approval_waits_for_a_person() -> None:
    scene = Scene()
    spec = release_spec(stages=(replace(STAGES[0], approval_required=True), *STAGES[1:]))
    scene.starts(spec)
    await scene.until(Phase.PROGRESSING)
    await scene.seconds(60)
    assert scene.release.reason == "waiting for approval: graylift approve file-type"

    approve = scene.commands(CommandKind.APPROVE)
    await scene.until(Phase.PROMOTED)

    assert scene.outcome(approve) == "stage 1 of 3 (20 %) is approved"
    assert [event.by for event in scene.events("APPROVED")] == ["ann"]


async def test_an_approval_is_for_one_stage() -> None:
    scene = Scene()
    scene.starts(release_spec(stages=(*(replace(stage, approval_required=True) for stage in STAGES[:2]), STAGES[2])))
    await scene.until(Phase.PROGRESSING)
    scene.commands(CommandKind.APPROVE)

    await scene.seconds(60)

    assert scene.release.stage == 1
    assert scene.release.reason == "waiting for approval: graylift approve file-type"


async def test_a_paused_release_stays_where_it_is_until_it_is_resumed() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.commands(CommandKind.PAUSE)
    await scene.seconds(60)
    assert (scene.release.phase, scene.release.stage, scene.weight_at()) == (Phase.PAUSED, 0, 2000)
    assert scene.release.reason == "paused by ann"

    scene.commands(CommandKind.RESUME)
    await scene.until(Phase.PROMOTED)

    assert scene.release.done[0].observed_s >= 60, "what was seen while it was paused was seen"


async def test_a_paused_release_still_protects_users() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.commands(CommandKind.PAUSE)
    await scene.seconds(1)
    scene.behaves("v2", failed=0.5)

    await scene.until(Phase.ROLLED_BACK)


async def test_a_pause_of_the_watch_resumes_into_the_watch() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTING)
    scene.commands(CommandKind.PAUSE)
    await scene.seconds(20)
    assert (scene.release.phase, scene.weight_at()) == (Phase.PAUSED, 10_000)
    scene.commands(CommandKind.RESUME)

    await scene.until(Phase.PROMOTED)


@pytest.mark.parametrize("phase", [Phase.CHECKING, Phase.STARTING])
async def test_an_abort_before_traffic_rejects(phase: Phase) -> None:
    scene = Scene(ready_after_s=10.0)
    scene.checklist.may_end.clear()
    scene.starts(SPEC)
    await scene.until(Phase.CHECKING)
    if phase is Phase.STARTING:
        scene.checklist.may_end.set()
        await scene.until(Phase.STARTING)

    scene.commands(CommandKind.ABORT)
    release = await scene.until(Phase.REJECTED)
    await scene.seconds(2)

    assert release.reason == "aborted by ann"
    assert "v2" not in scene.running()
    assert scene.checklist.cancelled == (1 if phase is Phase.CHECKING else 0)


@pytest.mark.parametrize("phase", ON_TRAFFIC)
async def test_an_abort_on_traffic_rolls_back(phase: Phase) -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTING if phase is Phase.PROMOTING else Phase.PROGRESSING)
    if phase is Phase.PAUSED:
        scene.commands(CommandKind.PAUSE)
        await scene.until(Phase.PAUSED)

    scene.commands(CommandKind.ABORT)
    release = await scene.until(Phase.ROLLED_BACK)

    assert release.reason.startswith("aborted by ann")
    assert scene.weight_at() == 0
    assert scene.service.stable is not None
    assert scene.service.stable.name == "v1"


async def test_a_second_release_is_refused_naming_the_first() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)

    second = scene.starts(TO_V3)
    await scene.seconds(1)

    assert "file-type-1 is PROGRESSING" in scene.outcome(second)
    assert "graylift abort file-type" in scene.outcome(second)
    assert scene.release.id == "file-type-1"
    assert [event.kind for event in scene.events("REFUSED")] == ["REFUSED"]


async def test_the_same_file_once_more_goes_on_with_its_release() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)

    again = scene.starts(SPEC)
    await scene.until(Phase.PROMOTED)

    assert scene.outcome(again) == "file-type-1 goes on: PROGRESSING"
    assert scene.service.releases == 1


async def test_a_file_whose_stable_is_not_what_runs_is_rejected_naming_both() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTED)

    scene.starts(release_spec(stable="v1", candidate="v3", stages=STAGES))
    release = await scene.until(Phase.REJECTED)

    assert "the file's stable is v1 (" in release.reason
    assert "but file-type runs v2 (" in release.reason


async def test_a_candidate_that_runs_already_is_rejected() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTED)
    scene.starts(release_spec(stable="v2", candidate="v2", stages=STAGES))

    release = await scene.until(Phase.REJECTED)

    assert "is what file-type runs already" in release.reason


async def test_one_release_follows_another_and_starts_at_nothing() -> None:
    scene = Scene()
    scene.behaves("v2", failed=0.5)
    scene.starts(SPEC)
    await scene.until(Phase.ROLLED_BACK)
    scene.starts(release_spec(candidate="v3", stages=STAGES))
    weights = set()
    while scene.release.phase not in (Phase.PROGRESSING, Phase.PROMOTED):
        scene.traffic()
        await scene.controller.look()
        if scene.release.phase is not Phase.PROGRESSING:
            weights.add(scene.weight_at())

    assert weights == {0}
    await scene.until(Phase.PROMOTED)
    assert scene.release.id == "file-type-2"
    await scene.seconds(2)
    assert scene.running() == {"v3"}


async def test_promote_goes_to_the_next_stage_now_and_at_last_to_the_end() -> None:
    scene = Scene(rate=0)
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    for phase, weight in ((Phase.PROGRESSING, 5000), (Phase.PROMOTING, 10_000), (Phase.PROMOTED, 0)):
        scene.commands(CommandKind.PROMOTE)
        await scene.seconds(1)
        assert (scene.release.phase, scene.weight_at()) == (phase, weight)

    assert scene.stages() == GOOD_WAY
    assert [record.why for record in scene.release.done] == ["promoted by ann"] * 3


async def test_two_commands_at_once_are_obeyed_one_after_the_other() -> None:
    scene = Scene(rate=0)
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    scene.commands(CommandKind.PROMOTE)
    scene.commands(CommandKind.PROMOTE)

    await scene.looks()

    assert scene.release.phase is Phase.PROMOTING
    assert [t.services[0].weights.candidate for t in scene.router.applied if t.services][-2:] == [5000, 10_000]


async def test_promote_before_traffic_is_refused() -> None:
    scene = Scene(ready_after_s=10.0)
    scene.starts(SPEC)
    await scene.until(Phase.STARTING)

    promote = scene.commands(CommandKind.PROMOTE)
    await scene.seconds(1)

    assert "file-type-1 is STARTING" in scene.outcome(promote)
    assert scene.release.phase is Phase.STARTING


async def test_a_rolled_back_release_can_be_retried() -> None:
    scene = Scene()
    scene.behaves("v2", failed=0.5)
    scene.starts(SPEC)
    await scene.until(Phase.ROLLED_BACK)
    scene.behaves("v2")

    scene.commands(CommandKind.RETRY)
    await scene.seconds(1)
    release = await scene.until(Phase.PROMOTED)

    assert release.id == "file-type-2"
    assert release.salt != "file-type-1"
    assert scene.running() >= {"v2"}


async def test_a_promoted_release_cannot_be_retried() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTED)

    retry = scene.commands(CommandKind.RETRY)
    await scene.seconds(1)

    assert "is PROMOTED" in scene.outcome(retry)


async def test_on_failure_pause_leaves_the_decision_to_a_person() -> None:
    scene = Scene()
    scene.behaves("v2", failed=0.5)
    scene.starts(release_spec(stages=STAGES, on_failure=OnFailure.PAUSE))
    release = await scene.until(Phase.PAUSED)
    assert "errors" in release.reason
    resume = scene.commands(CommandKind.RESUME)
    await scene.seconds(10)
    assert "what paused file-type-1 is still so" in scene.outcome(resume)
    assert (scene.release.phase, scene.weight_at()) == (Phase.PAUSED, 2000)

    scene.commands(CommandKind.ABORT)

    await scene.until(Phase.ROLLED_BACK)


@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.PAUSED, Phase.PROMOTING])
async def test_a_candidate_that_dies_on_traffic_is_rolled_back_at_once_and_not_started_again(phase: Phase) -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTING if phase is Phase.PROMOTING else Phase.PROGRESSING)
    if phase is Phase.PAUSED:
        scene.commands(CommandKind.PAUSE)
        await scene.until(Phase.PAUSED)
    starts = len(scene.deployer.started)
    scene.deployer.kill("v2", "signal 9; last log line: out of memory")

    await scene.looks()

    assert scene.release.phase is Phase.ROLLED_BACK
    assert scene.release.reason.startswith("the server of v2 ended: signal 9; last log line: out of memory")
    assert scene.weight_at() == 0
    await scene.seconds(5)
    assert len(scene.deployer.started) == starts


async def test_a_candidate_that_gets_sick_with_all_traffic_goes_back_to_the_old_stable() -> None:
    scene = Scene()
    scene.starts(release_spec(stages=(*STAGES[:2], Stage(ALL, 60.0))))
    await scene.until(Phase.PROMOTING)
    await scene.seconds(5)
    scene.behaves("v2", failed=0.6)

    release = await scene.until(Phase.ROLLED_BACK)

    assert "the candidate fails" in release.reason
    assert scene.service.stable is not None
    assert scene.service.stable.name == "v1"


async def test_a_candidate_that_dies_while_it_starts_is_rejected_with_its_last_words() -> None:
    scene = Scene(ready_after_s=5.0)
    scene.starts(SPEC)
    await scene.until(Phase.STARTING)
    scene.deployer.kill("v2", "exit 1; last log line: no such operator")

    release = await scene.until(Phase.REJECTED)

    assert release.reason == "the server of v2 ended: exit 1; last log line: no such operator"


async def test_a_candidate_that_never_gets_ready_is_rejected_with_what_it_said() -> None:
    scene = Scene()
    scene.deployer.stuck.add("v2")
    scene.starts(SPEC)

    release = await scene.until(Phase.REJECTED)

    assert release.reason == "v2 was not ready within 30 s: the server of v2 is starting: loading the model"
    await scene.seconds(1)
    assert scene.running() == {"v1"}, "the first release has built stable, and it serves"
    assert scene.weight_at() == 0


async def test_a_server_that_cannot_be_started_is_rejected_with_the_reason() -> None:
    scene = Scene()
    scene.deployer.refuses["v2"] = "port 9000 is taken"
    scene.starts(SPEC)

    release = await scene.until(Phase.REJECTED)

    assert release.reason == "v2 was not ready within 30 s: the server of v2 does not run yet: port 9000 is taken"


async def test_a_failed_check_rejects_before_any_server_starts() -> None:
    scene = Scene()

    def found(spec: ReleaseSpec) -> object:
        return check_report(spec, "input `x` is FP32 in v1 and INT64 in v2")

    scene.checklist.found = found  # type: ignore[assignment]
    scene.starts(SPEC)

    release = await scene.until(Phase.REJECTED)

    assert release.reason == "interface: input `x` is FP32 in v1 and INT64 in v2"
    assert release.checks is not None
    assert not scene.deployer.started
    assert scene.memory.snapshot().table is None


async def test_the_files_routing_holds_with_the_candidate_and_goes_back_with_it() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTED)
    sticky = RoutingSpec(sticky=Sticky(StickyBy.HEADER, "x-user"))
    scene.starts(release_spec(stable="v2", candidate="v3", stages=STAGES, routing=sticky))
    await scene.looks()
    await scene.until(Phase.PROGRESSING)
    assert scene.table.services[0].sticky == sticky.sticky

    scene.commands(CommandKind.ABORT)
    await scene.until(Phase.ROLLED_BACK)

    assert scene.table.services[0].sticky is None


async def test_services_do_not_disturb_each_other() -> None:
    scene = Scene()
    scene.behaves("v3", failed=0.5)
    scene.starts(SPEC)
    scene.starts(release_spec(service="other", candidate="v3", stages=STAGES))
    await scene.until(Phase.PROMOTED)

    phases = {t.service.name: t.release.phase for t in scene.memory.snapshot().services if t.release}

    assert phases == {"file-type": Phase.PROMOTED, "other": Phase.ROLLED_BACK}


async def test_a_command_to_a_service_that_there_is_not_is_refused() -> None:
    scene = Scene()
    pause = scene.commands(CommandKind.PAUSE, service="nobody")

    await scene.looks()

    assert "there is no release of nobody" in scene.outcome(pause)
    assert scene.memory.snapshot().services == ()


async def test_an_idle_controller_stores_nothing_but_reports() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTED)
    await scene.seconds(5)
    before = len(scene.store.commits)

    await scene.seconds(10)

    idle = scene.store.commits[before:]
    assert len(idle) == 10
    assert not any(change.tracked or change.table or change.events for change in idle)
