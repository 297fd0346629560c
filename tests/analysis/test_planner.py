"""The plan against the judge itself: what it says of time and of bad answers is what simulated releases then take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from judged_releases import Course, judged
from judged_traffic import SCORE_SD, SCORED, USUAL, Arm, errors, latencies, latency, points, score, tpot, ttft

from graylift.analysis import planner
from graylift.analysis.traffic import Scores, Times, Traffic
from graylift.domain.spec import Check, JudgeSpec, Metric, Stage
from graylift.domain.weights import Weights

FACTOR = 2.0
RELEASES = 15
SECONDS = latencies(np.random.default_rng(0), 1_000_000)
TIMES = Times(tuple((q, float(np.quantile(SECONDS, q))) for q in (0.1, 0.5, 0.9, 0.97, 0.99, 0.999)))
TRAFFIC = Traffic(100.0, 0.005, TIMES, ttft=TIMES, tpot=TIMES, scores=Scores(0.8, SCORE_SD, share=SCORED))
HEALTHY = Arm(errors=TRAFFIC.errors)
STREAMING = replace(HEALTHY, streams=True)
SCORED_ARM = replace(HEALTHY, score=TRAFFIC.scores.mean)


def healthy(check: Check) -> Arm:
    """An arm as good as stable that shows what the check is about."""
    if check.metric is Metric.SCORE:
        return SCORED_ARM
    return STREAMING if check.metric in (Metric.TTFT, Metric.TPOT) else HEALTHY


def plan_of(spec: JudgeSpec, *stages: Stage, traffic: Traffic = TRAFFIC) -> tuple[planner.StagePlan, ...]:
    return planner.plan(spec, stages, traffic, np.random.default_rng(1))


@pytest.mark.parametrize(
    ("check", "share"),
    [
        (errors(points(0.02), points(0.03)), 0.05),
        (errors(points(0.02), points(0.02)), 0.2),
        (latency(0.5, 1.2, 1.3), 0.05),
        (latency(0.9, 1.2, 1.5), 0.2),
        (latency(0.99, 1.5, 2.0), 0.2),
        (ttft(0.9, 1.2, 1.5), 0.2),
        (score("helpful", -0.03, -0.05), 0.2),
    ],
)
def test_a_good_candidate_passes_about_when_the_plan_says(check: Check, share: float) -> None:
    spec = JudgeSpec((check,))
    planned = planner.passing(spec, check, check.promote_if_within, share, TRAFFIC, np.random.default_rng(1))
    assert planned.candidate_n is not None
    arm = healthy(check)
    course = Course(arm, arm, rate=TRAFFIC.rate, stages=((share, 3_000),), until_pass=True)
    ends = [judged(spec, course, np.random.default_rng(seed)) for seed in range(RELEASES)]
    needed = sorted(end.candidate_n if end.passed else np.inf for end in ends)
    likely = needed[round(planner.LIKELY * RELEASES) - 1]
    assert likely / FACTOR <= planned.candidate_n <= likely * FACTOR


@pytest.mark.parametrize(
    "check",
    [
        errors(points(0.005), points(0.01)),
        latency(0.5, 1.1, 1.3),
        latency(0.99, 1.2, 1.5),
        tpot(0.5, 1.1, 1.3),
        score("helpful", -0.03, -0.05),
    ],
)
def test_a_regression_is_found_about_when_the_plan_says_and_as_dearly(check: Check) -> None:
    spec = JudgeSpec((check,))
    (stage,) = plan_of(spec, Stage(Weights(2_000), observe_s=120.0))
    (caught,) = stage.catching
    by, stable = caught.worse.value, healthy(check)
    arm = {
        Metric.ERRORS: replace(stable, errors=0.005 + by),
        Metric.LATENCY: replace(stable, slower=by),
        Metric.TPOT: replace(stable, pace=by),
        Metric.SCORE: replace(stable, score=TRAFFIC.scores.mean + by),
    }[check.metric]
    course = Course(arm, stable, rate=TRAFFIC.rate, stages=((0.2, 1_500),))
    ends = [judged(spec, course, np.random.default_rng(seed)) for seed in range(RELEASES)]
    needed = sorted(end.candidate_n if end.failed else np.inf for end in ends)
    likely = needed[round(planner.LIKELY * RELEASES) - 1]
    assert likely / FACTOR <= caught.candidate_n <= likely * FACTOR
    assert (caught.bad is None) == (check.metric is Metric.SCORE)
    if check.metric is Metric.ERRORS:
        assert caught.bad == pytest.approx(caught.candidate_n * arm.errors, abs=1)


def test_less_traffic_takes_longer_and_as_many_candidate_requests() -> None:
    (many,) = plan_of(USUAL, Stage(Weights(2_000), observe_s=1.0))
    (few,) = plan_of(USUAL, Stage(Weights(2_000), observe_s=1.0), traffic=replace(TRAFFIC, rate=20.0))
    assert many.seconds is not None
    assert few.seconds is not None
    assert few.seconds > 3 * many.seconds
    assert many.candidate_n is not None
    assert few.candidate_n == pytest.approx(many.candidate_n, rel=0.5)


def test_a_stage_lasts_at_least_as_long_and_has_as_many_requests_as_the_file_asks() -> None:
    (observed,) = plan_of(USUAL, Stage(Weights(5_000), observe_s=50_000.0))
    assert observed.seconds == 50_000.0
    (counted,) = plan_of(USUAL, Stage(Weights(5_000), observe_s=1.0, min_requests=500_000))
    assert counted.candidate_n == pytest.approx(500_000, abs=1)


def test_the_watch_compares_nothing_and_is_not_planned() -> None:
    assert len(plan_of(USUAL, Stage(Weights(5_000), 1.0), Stage(Weights(10_000), 1.0))) == 1


def test_the_latency_law_goes_through_the_quantiles_it_was_given() -> None:
    for q, seconds in TIMES.quantiles:
        assert TIMES.quantile(q) == pytest.approx(seconds)
        assert TIMES.share_from(seconds) == pytest.approx(1 - q, abs=1e-9)
    lone = Times(((0.5, 0.1),))
    assert lone.quantile(0.99) == pytest.approx(0.1 * np.exp(0.5 * 2.3263), rel=1e-3)
