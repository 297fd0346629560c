"""A shadow stage in the state machine: on with enough pairs that pass, rejected if they fail, held with the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graylift.domain.judgement import DecisionKind, Judgement, Ruling
from graylift.domain.release import Phase, Release, Service, Situation
from graylift.domain.revision import Instance, InstanceState
from graylift.domain.shadow import ShadowWindow
from graylift.domain.spec import (
    JudgeSpec,
    KeepExamples,
    OnFailure,
    OnInconclusive,
    RoutingSpec,
    ServingProtocol,
    ShadowCheck,
    ShadowJudge,
    ShadowSpec,
    Stage,
)
from graylift.domain.weights import ALL, NONE, Weights
from graylift.rollout import decide, evolve, routes, settle, wanted
from graylift.testing.samples import ERRORS, gateway_state, instance, release_spec, revision, verdict

STABLE, CANDIDATE = revision("v1"), revision("v2")
NOW = 1000.0
SHADOW = ShadowSpec(Weights(1_000))
STAGES = (Stage(NONE, 60.0, 200, shadow=SHADOW), Stage(Weights(500), 60.0), Stage(ALL, 60.0))
SPEC = replace(
    release_spec(stages=STAGES),
    judge=JudgeSpec((ERRORS,), shadow=ShadowJudge(keep_examples=KeepExamples.HASHES)),
)
RELEASE = Release(
    id="file-type-1",
    spec=SPEC,
    phase=Phase.PROGRESSING,
    reason="as before",
    stage=0,
    entered_s=NOW - 60,
    observed_s=60.0,
    stage_table=7,
    approved=False,
    salt="file-type-1",
    created_s=0.0,
    stable=STABLE,
    candidate=CANDIDATE,
)
SERVICE = Service("file-type", ServingProtocol.OPEN_INFERENCE, RoutingSpec(), STABLE)
ADDRESSES = {STABLE.id: "v1.test:80", CANDIDATE.id: "v2.test:80"}


def judged(
    ruling: Ruling = Ruling.PASS, pairs: int = 300, lost: tuple[tuple[str, int], ...] = (), stable_n: int = 5_000
) -> Judgement:
    names = (ShadowCheck.ERRORS.value, ShadowCheck.LATENCY.value)
    return Judgement(
        verdicts=tuple(verdict(name, ruling, f"{name} is so") for name in names),
        failed=ruling is Ruling.FAIL,
        passed=ruling is Ruling.PASS,
        stable_sick=None,
        candidate_sick=None,
        share_off=None,
        candidate_n=pairs,
        stable_n=stable_n,
        shadow=ShadowWindow("file-type", "file-type-1/0", CANDIDATE.id, pairs=pairs, lost=lost),
    )


def seen(judgement: Judgement | None, candidate: Instance | None = None) -> Situation:
    gateway = gateway_state(applied=7, healthy=(STABLE, CANDIDATE))
    return Situation(None, instance(STABLE), candidate or instance(CANDIDATE), (gateway,), 7, judgement)


def test_enough_pairs_that_pass_bring_the_release_to_its_first_weight() -> None:
    decision = decide(RELEASE, seen(judged()), NOW)
    assert decision.kind is DecisionKind.ADVANCE
    assert decision.why == "2 checks passed in 1 min: on to 5 %"
    after, _ = evolve(RELEASE, decision, seen(judged()), NOW)
    assert (after.phase, after.stage) == (Phase.PROGRESSING, 1)
    assert after.done[0].shadow == judged().shadow


def test_pairs_that_fail_reject_the_candidate_and_nobody_has_to_go_back() -> None:
    decision = decide(RELEASE, seen(judged(Ruling.FAIL)), NOW)
    assert decision.kind is DecisionKind.REJECT
    after, (event, *_) = evolve(RELEASE, decision, seen(judged(Ruling.FAIL)), NOW)
    assert after.phase is Phase.REJECTED
    assert after.done[0].why == decision.why == "FAIL: shadow errors is so; FAIL: shadow latency is so"
    assert wanted(settle(SERVICE, RELEASE, after, NOW), after) == (STABLE,)
    assert event.kind in ("REJECTED", "VERDICT")


def test_a_candidate_whose_server_ends_is_rejected_too_and_a_file_may_ask_for_a_pause_instead() -> None:
    dead = instance(CANDIDATE, InstanceState.DEAD, "killed")
    assert decide(RELEASE, seen(None, dead), NOW).kind is DecisionKind.REJECT
    paused = replace(RELEASE, spec=replace(SPEC, on_failure=OnFailure.PAUSE))
    assert decide(paused, seen(judged(Ruling.FAIL)), NOW).kind is DecisionKind.PAUSE
    endless = replace(STAGES[0], max_duration_s=10.0, on_inconclusive=OnInconclusive.ROLLBACK)
    late = replace(RELEASE, spec=replace(SPEC, stages=(endless, *STAGES[1:])))
    assert decide(late, seen(judged(Ruling.INCONCLUSIVE)), NOW).kind is DecisionKind.REJECT


@pytest.mark.parametrize(
    ("judgement", "why"),
    [
        (None, "no shadow request arrived in the 1 min observed in this stage, while stable had 0 requests"),
        (
            judged(Ruling.INCONCLUSIVE, 0),
            "no shadow request arrived in the 1 min observed in this stage, while stable had 5,000 requests",
        ),
        (
            judged(Ruling.INCONCLUSIVE, 0, (("shed", 40), ("unmatched", 2))),
            "no shadow request became a pair of answers in the 1 min observed in this stage: 40 shed, 2 unmatched",
        ),
        (judged(pairs=150), "150 of 200 pairs"),
        (judged(Ruling.INCONCLUSIVE), "INCONCLUSIVE: shadow errors is so"),
    ],
)
def test_a_shadow_stage_without_enough_to_show_holds_and_says_what_is_missing(
    judgement: Judgement | None, why: str
) -> None:
    decision = decide(RELEASE, seen(judgement), NOW)
    assert (decision.kind, decision.why) == (DecisionKind.HOLD, why)


def test_the_gateways_shadow_in_that_stage_alone_and_give_the_candidate_no_weight() -> None:
    first = routes(SERVICE, RELEASE, ADDRESSES)
    assert first is not None
    assert first.weights == NONE
    assert first.shadow is not None
    assert (first.shadow.requests, first.shadow.keep_examples) == (SHADOW, KeepExamples.HASHES)
    for later in (
        replace(RELEASE, stage=1),
        replace(RELEASE, phase=Phase.STARTING),
        replace(RELEASE, phase=Phase.REJECTED),
        None,
    ):
        table = routes(SERVICE, later, ADDRESSES)
        assert table is not None
        assert table.shadow is None
    paused = routes(SERVICE, replace(RELEASE, phase=Phase.PAUSED), ADDRESSES)
    assert paused is not None
    assert paused.shadow == first.shadow
