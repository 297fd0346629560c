"""The judge's promises at full size: `python benchmarks/judge/simulate.py [--releases 10000]`, ten minutes on one core.

Boundary releases stand exactly at every margin, with a day's rhythm, a traffic ramp and stages 1-5-20-50 %, and a look
every interval. Brackets are exact 95 % limits (Clopper and Pearson). Detection and promotion run through the judge.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from judged_releases import (
    STAGES,
    Course,
    Plan,
    ScorePlan,
    false_promotions,
    false_rollbacks,
    false_verdicts_on_scores,
    judged,
    shown,
)
from judged_traffic import USUAL, Arm, errors, latency, points, score

from graylift.analysis.betting import Side
from graylift.domain.spec import JudgeSpec
from graylift.spec.defaults import CHECKS, STREAM_CHECKS

BATCH = 1_000
BOUNDS = (0.01, 0.05)
HEALTHY = Arm(errors=0.005)
STREAMING = Arm(errors=0.005, streams=True, score=0.8)
STREAMS = JudgeSpec((*STREAM_CHECKS, score("helpful", -0.01, -0.02)))
"""Beside the defaults, a score that a fifth of the answers get."""
RAMP = tuple((share, 60) for share in STAGES)


def boundary(releases: int) -> None:
    batches = range(max(1, releases // BATCH))
    few = Plan(BATCH, requests=4.0, errors=0.02, margin=0.02, exceed=(0.5, 0.1))
    for name, plan in (("200 requests an interval", Plan(BATCH)), ("4 requests an interval", few)):
        failed = sum(false_rollbacks(plan, np.random.default_rng(seed), BOUNDS) for seed in batches)
        for bound, events in zip(BOUNDS, np.asarray(failed), strict=True):
            trials = len(batches) * BATCH
            print(
                f"false rollback at every margin, {name}, bound {bound:.0%}: {shown(int(events), trials)}", flush=True
            )
    passes = sum(false_promotions(Plan(BATCH, margin=0.01), np.random.default_rng(seed), 0.05) for seed in batches)
    for share, row in zip(STAGES, np.asarray(passes), strict=True):
        for name, events in zip(("errors", "p50", "p99"), row, strict=True):
            print(f"false promotion at {share:.0%}, {name}, bound 5%: {shown(int(events), len(batches) * BATCH)}")


def boundary_of_scores(releases: int) -> None:
    batches = range(max(1, releases // BATCH))
    for name, plan in (("40 scores an interval", ScorePlan(BATCH)), ("2", ScorePlan(BATCH, scores=2.0, margin=0.05))):
        for bound in BOUNDS:
            seen = sum(
                false_verdicts_on_scores(plan, np.random.default_rng(seed), Side.WORSE, bound) for seed in batches
            )
            (failed,) = np.asarray(seen).tolist()
            trials = len(batches) * BATCH
            print(
                f"false rollback, a score at its margin, {name}, bound {bound:.0%}: {shown(failed, trials)}", flush=True
            )
    seen = sum(
        false_verdicts_on_scores(ScorePlan(BATCH), np.random.default_rng(seed), Side.WITHIN, 0.05) for seed in batches
    )
    for share, events in zip(STAGES, np.asarray(seen).tolist(), strict=True):
        print(f"false promotion at {share:.0%}, a score, bound 5%: {shown(events, len(batches) * BATCH)}", flush=True)


def close(releases: int) -> None:
    """A candidate that is 3 % slower, at the margins that hold where a release file says nothing."""
    course = Course(replace(HEALTHY, slower=1.03), HEALTHY, rate=100, stages=((0.2, 1_500),), until_pass=True)
    verdicts = [judged(JudgeSpec(CHECKS), course, np.random.default_rng(seed)) for seed in range(releases)]
    passed = sorted(verdict.candidate_n for verdict in verdicts if verdict.passed)
    failed = sum(verdict.failed for verdict in verdicts)
    print(
        f"3 % slower at a rollback margin of 1.10x (p50) and 1.20x (p99): {len(passed)} of {releases} pass, {failed} "
        f"fail; after {passed[len(passed) // 2]:,} candidate requests (median)",
        flush=True,
    )


def equal(releases: int) -> None:
    course = Course(HEALTHY, HEALTHY, rate=100, stages=RAMP, earlier=20, day=True)
    verdicts = [judged(USUAL, course, np.random.default_rng(seed)) for seed in range(releases)]
    failed = sum(verdict.failed for verdict in verdicts)
    print(f"equal revisions through the judge, a day and a ramp, FAIL: {shown(failed, releases)}", flush=True)
    for number, (check, truth) in enumerate(zip(USUAL.checks, (0.0, 1.0, 1.0), strict=True)):
        effects = [verdict.verdicts[number] for verdict in verdicts]
        missed = sum(
            (v.effect_low is not None and v.effect_low >= truth)
            or (v.effect_high is not None and v.effect_high <= truth)
            for v in effects
        )
        print(f"  {check.name}: the 95 % interval misses the truth at the end: {shown(missed, releases)}", flush=True)


def detection(releases: int) -> None:
    print(f"detection at 5 %, 100 requests an interval, {releases} releases: median candidate requests (range), power")
    rows = {
        "all fail": Arm(errors=1.0),
        "errors +10pp": Arm(errors=0.105),
        "errors +2pp": Arm(errors=0.025),
        "p99 x2": Arm(errors=0.005, tail_slower=2.0),
        "all latency x1.5": Arm(errors=0.005, slower=1.5),
        "all latency x2": Arm(errors=0.005, slower=2.0),
        "ttft x1.5": replace(STREAMING, first=1.5),
        "tpot x2": replace(STREAMING, pace=2.0),
        "score -0.05": replace(STREAMING, score=0.75),
        "score -0.1": replace(STREAMING, score=0.7),
    }
    for name, arm in rows.items():
        spec, stable = (STREAMS, STREAMING) if arm.streams else (USUAL, HEALTHY)
        course = Course(arm, stable, rate=100, stages=((0.05, 600),), earlier=20)
        verdicts = [judged(spec, course, np.random.default_rng(seed)) for seed in range(releases)]
        found = sorted(verdict.candidate_n if verdict.failed else np.inf for verdict in verdicts)
        power = np.isfinite(found).mean()
        print(f"  {name:18} {found[releases // 2]:>7,.0f} ({found[0]:,.0f}..{found[-1]:,.0f}) {power:.0%}", flush=True)


def promotion(releases: int) -> None:
    print(f"equal revisions without errors at 5 %, {releases} releases: median candidate requests until PASS (range)")
    rows = {
        "errors within 1pp": errors(points(0.02), points(0.01)),
        "errors within 2pp": errors(points(0.04), points(0.02)),
        "errors within 20pp": errors(points(0.4), points(0.2)),
        "p50 within 2x": latency(0.5, 2.0, 2.0),
        "p50 within 1.5x": latency(0.5, 1.5, 1.5),
        "p50 within 1.2x": latency(0.5, 1.2, 1.2),
        "p90 within 1.5x": latency(0.9, 1.5, 1.5),
        "p99 within 2x": latency(0.99, 2.0, 2.0),
    }
    for name, check in rows.items():
        course = Course(Arm(), Arm(), stages=((0.05, 3_000),), until_pass=True)
        verdicts = [judged(JudgeSpec((check,)), course, np.random.default_rng(seed)) for seed in range(releases)]
        needed = sorted(verdict.candidate_n if verdict.passed else np.inf for verdict in verdicts)
        print(f"  {name:18} {needed[releases // 2]:>7,.0f} ({needed[0]:,.0f}..{needed[-1]:,.0f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--releases", type=int, default=10_000, help="boundary releases")
    size = parser.parse_args().releases
    detection(max(5, size // 500))
    promotion(max(5, size // 500))
    close(max(5, size // 500))
    equal(max(10, size // 50))
    boundary(size)
    boundary_of_scores(size)


if __name__ == "__main__":
    main()
