"""The judge's promises over whole releases, at a size for every run; benchmarks/judge/simulate.py has the full size.

Seeds are fixed, so a run is no game of chance; the limits are what the seed would have to be very unlucky to miss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from judged_releases import (
    Course,
    Many,
    Plan,
    ScorePlan,
    false_promotions,
    false_rollbacks,
    false_verdicts_on_scores,
    judged,
    upper_limit,
)
from judged_traffic import USUAL, Arm, errors, latency, points, ratio, score, tpot, ttft
from side_by_side import evidence, first_fail, tables
from simulated_releases import EARLIER, FIRST_BIN, STAGES, ArmCounts, Change, Release, release

from graylift.analysis import conditional, judge, mixture
from graylift.analysis.betting import Side
from graylift.analysis.mixture import LASTING
from graylift.domain.evidence import Window
from graylift.domain.histogram import Histogram
from graylift.domain.judgement import Ruling
from graylift.domain.spec import Check, JudgeSpec, Stage
from graylift.domain.weights import TOTAL, Role, Weights
from graylift.spec.defaults import CHECKS, STREAM_CHECKS

RAMP = ((0.01, 30), (0.05, 30), (0.2, 30), (0.5, 30))
NO_MARGIN = 1 + 1e-9  # less than any bin
HEALTHY = Arm(errors=0.005)


def judged_alone(one: Release, checks: tuple[Check, ...]) -> Iterator[list[float]]:
    """ln M of each check after each interval, by the judge itself."""

    def window(role: Role, split: str, arm: ArmCounts, t: int) -> Window:
        bins = tuple((FIRST_BIN + int(b), int(arm.latency[t, b])) for b in np.flatnonzero(arm.latency[t]))
        return Window(
            "s", split, role, role.value, None, int(arm.requests[t]), int(arm.failed[t]), latency=Histogram(bins)
        )

    spec = JudgeSpec(checks)
    state = judge.start(spec)
    for t in range(EARLIER):
        state = judge.observe(spec, state, [window(Role.STABLE, "before", one.stable, t)])
    length = len(one.candidate.requests) // len(STAGES)
    for t in range(len(one.candidate.requests)):
        number, inside = divmod(t, length)
        if inside == 0:
            stage = Stage(Weights(round(STAGES[number] * TOTAL)), observe_s=1.0)
            state = judge.enter(spec, state, stage, f"stage {number}", sticky=False)
        arms = ((Role.CANDIDATE, one.candidate, t), (Role.STABLE, one.stable, t + EARLIER))
        state = judge.observe(spec, state, [window(role, f"stage {number}", arm, at) for role, arm, at in arms])
        yield [mixture.log_value(running, LASTING) for running in state.against]


def test_candidates_at_every_rollback_margin_are_rolled_back_less_often_than_the_bound() -> None:
    (failed,) = false_rollbacks(Plan(releases=2_000, intervals=40), np.random.default_rng(7), (0.01,))
    assert upper_limit(int(failed), 2_000) <= 0.01


def test_candidates_at_every_margin_of_real_latencies_and_failures_are_rolled_back_less_often_than_the_bound() -> None:
    """Request by request, whole days: no latency check may count again what the margin of errors allows."""
    edge = (errors(points(0.005), points(0.01)), latency(0.99, NO_MARGIN, 1.5))
    change = Change(errors=0.005)
    seen = [tables(release(np.random.default_rng(seed), change), edge) for seed in range(120)]
    failed = int((first_fail(evidence(seen, edge), 0.01) >= 0).sum())
    assert upper_limit(failed, 120) <= 0.07


def test_releases_judged_side_by_side_are_judged_as_one_by_one() -> None:
    checks = (errors(ratio(1.2), ratio(2)), latency(0.5, 1.05, 1.1), latency(0.99, 1.1, 1.2))
    for one_of in (checks, checks[1:]):
        one = release(np.random.default_rng(5), Change(more_errors=2.0, tail=1.2), intervals=120)
        together = evidence([tables(one, one_of)], one_of)[0]
        assert together == pytest.approx(np.array(list(judged_alone(one, one_of))), abs=1e-9)


def test_three_percent_more_latency_is_promoted_where_ten_are_too_many() -> None:
    """At the margins that hold where a release file says nothing: 1.10x at p50, 1.20x at p99."""
    course = Course(replace(HEALTHY, slower=1.03), HEALTHY, rate=100, stages=((0.2, 900),), until_pass=True)
    verdicts = [judged(JudgeSpec(CHECKS), course, np.random.default_rng(seed)) for seed in range(3)]
    assert all(verdict.passed and not verdict.failed for verdict in verdicts)


def test_the_bound_holds_for_intervals_with_hardly_any_candidate_request() -> None:
    plan = Plan(releases=2_000, intervals=60, requests=4.0, errors=0.02, margin=0.02, exceed=(0.5, 0.1))
    (failed,) = false_rollbacks(plan, np.random.default_rng(8), (0.05,))
    assert upper_limit(int(failed), 2_000) <= 0.05


def test_candidates_at_the_promote_margins_pass_a_stage_less_often_than_the_bound() -> None:
    passes = false_promotions(Plan(releases=1_000, intervals=40, margin=0.01), np.random.default_rng(9), beta=0.05)
    assert upper_limit(int(passes.max()), 1_000) <= 0.065
    assert passes.mean() / 1_000 <= 0.05


def test_scores_at_the_margin_are_neither_failed_nor_passed_more_often_than_the_bounds() -> None:
    plan = ScorePlan(releases=1_000, intervals=30)
    (failed,) = false_verdicts_on_scores(plan, np.random.default_rng(11), Side.WORSE, 0.05)
    assert upper_limit(int(failed), 1_000) <= 0.05
    passed = false_verdicts_on_scores(plan, np.random.default_rng(12), Side.WITHIN, 0.05)
    assert upper_limit(int(passed.max()), 1_000) <= 0.065


def test_streams_and_scores_at_every_margin_through_the_judge_are_rolled_back_less_often_than_the_bound() -> None:
    """Next to no margin for times, a day for all of them, and a score that is worse by exactly its margin."""
    checks = (ttft(0.9, NO_MARGIN, 1.5), tpot(0.5, NO_MARGIN, 1.5), score("helpful", -0.03, -0.1))
    edge = JudgeSpec(checks, false_rollback=0.2)
    stable = Arm(streams=True, score=0.75)
    course = Course(replace(stable, score=0.72), stable, rate=40, stages=((0.2, 25), (0.5, 25)), earlier=8, day=True)
    failed = sum(judged(edge, course, np.random.default_rng(seed)).failed for seed in range(50))
    assert upper_limit(failed, 50) <= 0.2


def test_a_worse_pace_and_a_worse_score_are_found_and_equal_ones_promoted() -> None:
    spec = JudgeSpec((*STREAM_CHECKS, score("helpful", -0.01, -0.05)))
    stable = Arm(errors=0.001, streams=True, score=0.8)
    for candidate, guilty in (
        (replace(stable, pace=1.6), "tpot p95"),
        (replace(stable, first=1.6), "ttft p95"),
        (replace(stable, score=0.7), "helpful"),
        (stable, None),
    ):
        course = Course(candidate, stable, rate=100, stages=((0.5, 600),), earlier=20, until_pass=True)
        found = judged(spec, course, np.random.default_rng(1))
        assert [verdict.check for verdict in found.verdicts if verdict.ruling is Ruling.FAIL] == [guilty] * (
            guilty is not None
        )
        assert found.passed == (guilty is None)


def test_many_mixtures_side_by_side_are_what_the_judge_computes_one_by_one() -> None:
    rng = np.random.default_rng(3)
    tables = [(rng.integers(1, 9, 5), rng.integers(1, 90, 5)) for _ in range(30)]
    many = Many(5, conditional.WORSE, LASTING)
    single = [mixture.begin(conditional.WORSE, LASTING) for _ in range(5)]
    for number, (n_c, n_p) in enumerate(tables):
        if number == 10:
            many.stage_begins()
            single = [mixture.stage_begins(one, conditional.WORSE, LASTING) for one in single]
        log_e = conditional.log_e(n_c, n_p, n_c // 2, n_p // 3, conditional.WORSE.effects)
        many.follow(log_e, np.ones(5, dtype=bool))
        single = [mixture.follow(one, conditional.WORSE, LASTING, row) for one, row in zip(single, log_e, strict=True)]
    assert many.log_value() == pytest.approx([mixture.log_value(one, LASTING) for one in single])


def test_equal_revisions_never_fail_through_a_day_and_a_ramp() -> None:
    course = Course(HEALTHY, HEALTHY, rate=60, stages=RAMP, earlier=20, day=True)
    verdicts = [judged(USUAL, course, np.random.default_rng(seed)) for seed in range(15)]
    assert not any(verdict.failed for verdict in verdicts)


def test_equal_revisions_without_latency_margins_to_speak_of_hardly_ever_fail() -> None:
    """Next to no margin, so that the candidate stands at the edge; a real reference, real histograms, heavy tails."""
    edge = JudgeSpec((latency(0.5, NO_MARGIN, 1.5), latency(0.9, NO_MARGIN, 1.5)), false_rollback=0.2)
    course = Course(Arm(), Arm(), rate=40, stages=((0.2, 30), (0.5, 30)), earlier=10, day=True)
    failed = sum(judged(edge, course, np.random.default_rng(seed)).failed for seed in range(60))
    assert upper_limit(failed, 60) <= 0.2


def test_the_truth_is_inside_the_interval_at_the_end() -> None:
    course = Course(Arm(errors=0.05, slower=1.3), Arm(errors=0.01), rate=100, stages=((0.2, 80),), earlier=20)
    spec = JudgeSpec((errors(points(0.5), points(0.6)), latency(0.5, 3.0, 4.0), latency(0.9, 3.0, 4.0)))
    missed = 0
    for seed in range(20):
        share, median, tail = judged(spec, course, np.random.default_rng(seed)).verdicts
        assert share.effect_low is not None
        assert share.effect_high is not None
        missed += not (share.effect_low < 0.04 < share.effect_high)
        for ratios in (median, tail):
            assert ratios.effect_low is not None
            assert ratios.effect_high is not None
            missed += not (ratios.effect_low < 1.31 and ratios.effect_high > 1.29)
    assert missed <= 3


@pytest.mark.parametrize("seed", range(20))
def test_a_candidate_that_fails_every_request_is_found_within_ten_answers(seed: int) -> None:
    verdict = judged(USUAL, Course(Arm(errors=1.0), HEALTHY), np.random.default_rng(seed))
    assert verdict.failed
    assert verdict.candidate_n <= 10


@pytest.mark.parametrize(
    ("candidate", "requests"),
    [
        (Arm(errors=0.025), 1_600),
        (Arm(errors=0.105), 200),
        (Arm(errors=0.005, tail_slower=2.0), 2_500),
        (Arm(errors=0.005, slower=2.0), 80),
    ],
)
def test_regressions_are_found_after_this_many_candidate_requests(candidate: Arm, requests: int) -> None:
    course = Course(candidate, HEALTHY, rate=200, stages=((0.05, 400),), earlier=10)
    verdicts = [judged(USUAL, course, np.random.default_rng(seed)) for seed in range(5)]
    assert all(verdict.failed for verdict in verdicts)
    assert np.median([verdict.candidate_n for verdict in verdicts]) <= requests


def test_a_regression_that_begins_late_is_found_too() -> None:
    course = Course(Arm(errors=0.3), HEALTHY, rate=100, stages=((0.05, 200), (0.2, 100)), earlier=10, onset=230)
    verdict = judged(USUAL, course, np.random.default_rng(1))
    assert verdict.failed
    assert verdict.candidate_n < 30 * 20 + 100


@pytest.mark.parametrize(
    ("check", "at_least", "at_most"),
    [
        (errors(points(0.02), points(0.01)), 300, 400),
        (errors(points(0.04), points(0.02)), 150, 200),
        (errors(points(0.4), points(0.2)), 10, 25),
        (latency(0.5, 2.0, 2.0), 5, 25),
        (latency(0.9, 1.5, 1.5), 30, 110),
    ],
)
def test_equal_revisions_without_errors_pass_after_this_many_candidate_requests(check, at_least, at_most) -> None:
    course = Course(Arm(), Arm(), stages=((0.05, 600),), until_pass=True)
    verdicts = [judged(JudgeSpec((check,)), course, np.random.default_rng(seed)) for seed in range(9)]
    assert all(verdict.passed for verdict in verdicts)
    assert at_least <= np.median([verdict.candidate_n for verdict in verdicts]) <= at_most


def test_a_ratio_of_errors_can_be_judged_too() -> None:
    spec = JudgeSpec((errors(ratio(1.5), ratio(3.0)),))
    worse = judged(spec, Course(Arm(errors=0.2), Arm(errors=0.02), rate=50), np.random.default_rng(0))
    equal = Course(Arm(errors=0.02), Arm(errors=0.02), rate=200, stages=((0.2, 300),), until_pass=True)
    same = judged(spec, equal, np.random.default_rng(0))
    assert worse.verdicts[0].ruling is Ruling.FAIL
    assert worse.verdicts[0].sentence.startswith("errors ")
    assert same.verdicts[0].ruling is Ruling.PASS
