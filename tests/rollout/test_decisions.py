"""What is decided in each phase, and with which words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graylift.domain.judgement import Decision, DecisionKind, Judgement, Ruling
from graylift.domain.release import CheckReport, Phase, Release, Situation
from graylift.domain.revision import Instance, InstanceState
from graylift.domain.routing import GatewayState
from graylift.domain.spec import OnFailure, OnInconclusive, Stage
from graylift.domain.weights import ALL, Weights
from graylift.rollout import decide, evolve
from graylift.rollout.wording import duration
from graylift.testing.samples import (
    ERRORS,
    LATENCY,
    check_report,
    gateway_state,
    instance,
    judgement,
    release_spec,
    revision,
)

STABLE, CANDIDATE = revision("v1"), revision("v2")
NOW = 1000.0
BOTH = (STABLE, CANDIDATE)
GATEWAY = gateway_state(applied=7, healthy=BOTH)
SPEC = release_spec(
    stages=(Stage(Weights(500), 600.0, 500), Stage(Weights(5000), 600.0), Stage(ALL, 1800.0)), checks=(ERRORS, LATENCY)
)
PASSED = judgement(Ruling.PASS, Ruling.PASS)


def release(
    phase: Phase = Phase.PROGRESSING, *, stage: int = 0, observed_s: float = 600.0, **changes: object
) -> Release:
    made = Release(
        id="file-type-1",
        spec=SPEC,
        phase=phase,
        reason="as before",
        stage=stage,
        entered_s=NOW - 20,
        observed_s=observed_s,
        stage_table=7,
        approved=False,
        salt="file-type-1",
        created_s=0.0,
        stable=STABLE,
        candidate=CANDIDATE,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def situation(
    *gateways: GatewayState,
    judged: Judgement | None = PASSED,
    stable: Instance | None = None,
    candidate: Instance | None = None,
    checks: CheckReport | None = None,
    table_version: int = 7,
) -> Situation:
    return Situation(
        checks=checks,
        stable=stable or instance(STABLE),
        candidate=candidate or instance(CANDIDATE),
        gateways=gateways or (GATEWAY,),
        table_version=table_version,
        judgement=judged,
    )


def hold(why: str) -> Decision:
    return Decision(DecisionKind.HOLD, why)


DEAD = instance(CANDIDATE, InstanceState.DEAD, "signal 9")


@pytest.mark.parametrize(
    ("seen", "observed_s", "why"),
    [
        (situation(judged=None), 40.0, "no request to v2 in the 40 s observed in this stage"),
        (situation(judged=judgement(candidate_n=0)), 0.0, "no request to v2 in the 0 s observed in this stage"),
        (situation(), 40.0, "observed 40 s of 10 min"),
        (situation(), 599.99, "observed 9 min 59 s of 10 min"),
        (situation(judged=judgement(Ruling.PASS, Ruling.PASS, candidate_n=120)), 600.0, "120 of 500 requests"),
        (
            situation(judged=judgement(Ruling.PASS, Ruling.INCONCLUSIVE)),
            600.0,
            "INCONCLUSIVE: 0.1 % against 0.1 %",
        ),
        (situation(judged=judgement(Ruling.PASS)), 600.0, "latency p99 INCONCLUSIVE: it was not judged"),
        (situation(judged=replace(PASSED, stable_sick="stable fails 30 %")), 600.0, "stable fails 30 %"),
        (situation(replace(GATEWAY, problem="Envoy restarts")), 600.0, "gateway g1: Envoy restarts"),
        (situation(GATEWAY, gateway_state("g2", applied=6)), 600.0, "gateway g2 runs routing table 6, expected 7"),
        (situation(gateway_state(applied=None)), 600.0, "gateway g1 runs no routing table yet, expected 7"),
        (
            situation(gateway_state(applied=6, refused="port taken")),
            600.0,
            "gateway g1 refused routing table 7: port taken",
        ),
        (situation(gateway_state(applied=7, healthy=(STABLE,))), 600.0, "gateway g1 does not see v2 healthy"),
        (
            situation(stable=instance(STABLE, InstanceState.STARTING, "loading")),
            600.0,
            "the server of v1 is starting: loading",
        ),
    ],
)
def test_a_stage_holds_with_the_most_telling_reason(seen: Situation, observed_s: float, why: str) -> None:
    assert decide(release(observed_s=observed_s), seen, NOW) == hold(why)


def limited(then: OnInconclusive, **changes: object) -> Release:
    """A release whose first stage may last 15 minutes without being proven good."""
    first = replace(SPEC.stages[0], max_duration_s=900.0, on_inconclusive=then)
    return release(spec=replace(SPEC, stages=(first, *SPEC.stages[1:])), **changes)


UNDECIDED = situation(judged=judgement(Ruling.PASS, Ruling.INCONCLUSIVE))


@pytest.mark.parametrize(
    ("then", "kind"),
    [
        (OnInconclusive.HOLD, DecisionKind.HOLD),
        (OnInconclusive.PAUSE, DecisionKind.PAUSE),
        (OnInconclusive.ROLLBACK, DecisionKind.ROLLBACK),
    ],
)
def test_a_stage_that_is_not_proven_good_in_its_time_does_what_the_file_says(
    then: OnInconclusive, kind: DecisionKind
) -> None:
    for unproven in (UNDECIDED, situation(judged=None)):
        assert decide(limited(then, entered_s=NOW - 899), unproven, NOW).kind is DecisionKind.HOLD
        late = decide(limited(then, entered_s=NOW - 900), unproven, NOW)
        assert late.kind is kind
        assert (kind is DecisionKind.HOLD) or late.why.startswith("not proven good within 15 min: ")


@pytest.mark.parametrize("then", OnInconclusive)
def test_time_that_is_over_takes_nothing_from_a_stage_that_passed(then: OnInconclusive) -> None:
    assert decide(limited(then, entered_s=NOW - 5_000), situation(), NOW).kind is DecisionKind.ADVANCE


def test_a_person_who_resumes_gives_the_stage_its_whole_time_again() -> None:
    resumed = limited(OnInconclusive.PAUSE, entered_s=NOW - 5_000, resumed_s=NOW - 899)
    assert decide(resumed, UNDECIDED, NOW).kind is DecisionKind.HOLD
    assert decide(resumed, UNDECIDED, NOW + 1).kind is DecisionKind.PAUSE


def test_waiting_for_a_person_is_not_being_unproven() -> None:
    waiting = limited(OnInconclusive.ROLLBACK, entered_s=NOW - 5_000)
    first = replace(waiting.spec.stages[0], approval_required=True)
    waiting = replace(waiting, spec=replace(waiting.spec, stages=(first, *waiting.spec.stages[1:])))
    assert decide(waiting, situation(), NOW) == hold("waiting for approval: graylift approve file-type")


def test_without_a_gateway_a_stage_holds() -> None:
    assert decide(release(), replace(situation(), gateways=()), NOW) == hold("no gateway answers")


def test_a_judge_that_says_passed_without_a_verdict_moves_nothing() -> None:
    empty = replace(PASSED, verdicts=(), passed=True)

    assert decide(release(), situation(judged=empty), NOW) == hold("errors INCONCLUSIVE: it was not judged")


def test_a_release_without_checks_never_passes() -> None:
    without = release(spec=replace(SPEC, judge=replace(SPEC.judge, checks=())))

    assert decide(without, situation(), NOW).kind is DecisionKind.HOLD


def test_a_stage_that_passed_goes_on_and_the_last_but_one_to_all_traffic() -> None:
    assert decide(release(), situation(), NOW) == Decision(
        DecisionKind.ADVANCE, "2 checks passed in 10 min: on to 50 %"
    )
    assert decide(release(stage=1), situation(), NOW) == Decision(
        DecisionKind.PROMOTE, "2 checks passed in 10 min: all traffic"
    )


@pytest.mark.parametrize("phase", [Phase.PROGRESSING, Phase.PAUSED, Phase.PROMOTING])
@pytest.mark.parametrize("on_failure", OnFailure)
def test_a_dead_candidate_is_rolled_back_whatever_else_is_known(phase: Phase, on_failure: OnFailure) -> None:
    seen = replace(situation(judged=None, candidate=DEAD), gateways=(), stable=None)

    decision = decide(release(phase, spec=replace(SPEC, on_failure=on_failure)), seen, NOW)

    assert decision == Decision(DecisionKind.ROLLBACK, "the server of v2 ended: signal 9")


FAILED = judgement(Ruling.FAIL, Ruling.PASS)


@pytest.mark.parametrize(
    ("phase", "on_failure", "kind"),
    [
        (Phase.PROGRESSING, OnFailure.ROLLBACK, DecisionKind.ROLLBACK),
        (Phase.PROGRESSING, OnFailure.PAUSE, DecisionKind.PAUSE),
        (Phase.PAUSED, OnFailure.ROLLBACK, DecisionKind.ROLLBACK),
        (Phase.PAUSED, OnFailure.PAUSE, DecisionKind.HOLD),
        (Phase.PROMOTING, OnFailure.ROLLBACK, DecisionKind.ROLLBACK),
    ],
)
def test_a_fail_rolls_back_or_pauses_as_the_file_says(phase: Phase, on_failure: OnFailure, kind: DecisionKind) -> None:
    decision = decide(release(phase, spec=replace(SPEC, on_failure=on_failure)), situation(judged=FAILED), NOW)

    assert decision.kind is kind


def test_a_fail_needs_no_gateway_no_time_and_no_number_of_requests() -> None:
    seen = replace(situation(judged=replace(FAILED, candidate_n=3)), gateways=())

    assert decide(release(observed_s=0.0), seen, NOW).kind is DecisionKind.ROLLBACK


def test_a_split_that_is_off_pauses() -> None:
    seen = situation(judged=replace(PASSED, share_off="the candidate got 9 %, configured is 5 %"))

    assert decide(release(), seen, NOW) == Decision(DecisionKind.PAUSE, "the candidate got 9 %, configured is 5 %")


def test_a_sick_candidate_goes_back_only_where_nothing_is_left_to_compare_with() -> None:
    seen = situation(judged=replace(PASSED, candidate_sick="it fails 60 %"))

    assert decide(release(Phase.PROMOTING, stage=2), seen, NOW) == Decision(DecisionKind.ROLLBACK, "it fails 60 %")
    assert decide(release(), seen, NOW).kind is DecisionKind.ADVANCE


def test_a_sick_candidate_does_not_hand_users_to_a_stable_that_is_down() -> None:
    seen = situation(
        judged=replace(PASSED, candidate_sick="it fails 60 %"), stable=instance(STABLE, InstanceState.DEAD, "exit 1")
    )

    assert decide(release(Phase.PROMOTING, stage=2), seen, NOW) == hold("the server of v1 ended: exit 1")


def test_the_watch_ends_when_it_was_long_enough() -> None:
    assert decide(release(Phase.PROMOTING, stage=2), situation(), NOW) == hold("observed 10 min of 30 min")
    assert decide(release(Phase.PROMOTING, stage=2, observed_s=1800.0), situation(), NOW) == Decision(
        DecisionKind.PROMOTE, "all traffic watched for 30 min"
    )


def test_a_paused_release_moves_by_itself_only_to_safety() -> None:
    assert decide(release(Phase.PAUSED), situation(), NOW) == hold("as before")


def test_checks_reject_with_every_sentence() -> None:
    seen = situation(checks=check_report(SPEC, "no input `x`", "no output `y`"))

    assert decide(release(Phase.CHECKING, stable=None, candidate=None), seen, NOW) == Decision(
        DecisionKind.REJECT, "2 checks stop it: (1) interface: no input `x`; (2) interface: no output `y`"
    )


def test_checks_that_bind_no_revision_reject() -> None:
    report = replace(check_report(SPEC), candidate=None)

    assert decide(release(Phase.CHECKING), situation(checks=report), NOW) == Decision(
        DecisionKind.REJECT, "its checks gave no revision for v2"
    )


def test_a_stable_of_another_name_and_the_same_digest_is_the_one_that_runs() -> None:
    renamed = replace(STABLE, name="production")
    before = release(Phase.CHECKING, stable=renamed, candidate=None)
    seen = situation(checks=check_report(SPEC))

    decision = decide(before, seen, NOW)
    after, _ = evolve(before, decision, seen, NOW)

    assert decision.kind is DecisionKind.ADVANCE
    assert (after.phase, after.stable, after.candidate) == (Phase.STARTING, renamed, CANDIDATE)


def test_starting_waits_for_the_newest_table_and_for_health_at_every_gateway() -> None:
    starting = release(Phase.STARTING)

    assert decide(starting, situation(table_version=8), NOW) == hold("gateway g1 runs routing table 7, expected 8")
    assert decide(starting, situation(gateway_state(applied=7, healthy=(CANDIDATE,))), NOW) == hold(
        "gateway g1 does not see v1 healthy"
    )
    assert decide(starting, situation(), NOW).kind is DecisionKind.ADVANCE


def test_starting_ends_when_the_candidate_takes_longer_than_it_may() -> None:
    young = situation(candidate=instance(CANDIDATE, InstanceState.STARTING, "warming up"))

    assert decide(release(Phase.STARTING), young, NOW) == hold("the server of v2 is starting: warming up")
    assert decide(release(Phase.STARTING), young, NOW + 11) == Decision(
        DecisionKind.REJECT, "v2 was not ready within 30 s: the server of v2 is starting: warming up"
    )


@pytest.mark.parametrize("phase", [Phase.ROLLING_BACK, Phase.ROLLBACK_FAILED])
def test_a_rollback_is_done_when_every_gateway_was_read_back(phase: Phase) -> None:
    back = release(phase, stage_table=8)

    verified = decide(back, situation(gateway_state(applied=9)), NOW)
    unverified = decide(back, situation(gateway_state("g1", applied=8), gateway_state("g2", applied=7)), NOW)

    assert verified == Decision(DecisionKind.ROLLBACK, "as before (weight 0 verified at 1 gateway)")
    assert unverified.kind is DecisionKind.HOLD


def test_a_rollback_without_any_gateway_is_not_done() -> None:
    nobody = replace(situation(), gateways=())

    assert decide(release(Phase.ROLLING_BACK), nobody, NOW).kind is DecisionKind.HOLD
    late = decide(release(Phase.ROLLING_BACK), nobody, NOW + 11)
    assert late.kind is DecisionKind.PAUSE
    assert "no gateway answers" in late.why


def test_a_decision_that_its_phase_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="REJECT means nothing to a release that is PROGRESSING"):
        evolve(release(), Decision(DecisionKind.REJECT, "no"), situation(), NOW)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (2.55, "2.5 s"),
        (40.9, "40 s"),
        (600.0, "10 min"),
        (5400.0, "1 h 30 min"),
        (3661.0, "1 h 1 min 1 s"),
    ],
)
def test_durations_are_rounded_down(seconds: float, text: str) -> None:
    assert duration(seconds) == text
