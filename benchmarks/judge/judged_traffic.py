"""Synthetic traffic for judging the judge: windows of both arms of one interval, from a seeded generator.

Latency is lognormal (sigma 0.5) with a Pareto tail of 1.5 % (index 1.4), errors are independent draws. A day moves the
latency and errors of both arms alike, and their scores. Times of streams are drawn as latencies are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graylift.domain.evidence import Window
from graylift.domain.histogram import BASE, Histogram
from graylift.domain.scores import STEPS, ScoreCounts
from graylift.domain.spec import Check, JudgeSpec, Margin, MarginKind, Metric
from graylift.domain.weights import Role

MEDIAN_S = 0.08
SIGMA = 0.5
TAIL = 0.015
TAIL_INDEX = 1.4
P98_S = 0.23
SCORED = 0.2
SCORE_SD = 0.2


@dataclass(frozen=True, slots=True)
class Arm:
    """How an arm answers.

    slower: all latencies times this; tail_slower: those beyond its p98 times this
    first, pace: if it streams, its times to first token and per token times this
    score: the mean of the scores that SCORED of its answers get, None if none do
    """

    errors: float = 0.0
    slower: float = 1.0
    tail_slower: float = 1.0
    streams: bool = False
    first: float = 1.0
    pace: float = 1.0
    score: float | None = None


def points(value: float) -> Margin:
    return Margin(MarginKind.POINTS, value)


def ratio(value: float) -> Margin:
    return Margin(MarginKind.RATIO, value)


def errors(rollback: Margin, promote: Margin) -> Check:
    return Check(Metric.ERRORS, None, rollback, promote)


def latency(quantile: float, rollback: float, promote: float) -> Check:
    return Check(Metric.LATENCY, quantile, ratio(rollback), ratio(promote))


def ttft(quantile: float, rollback: float, promote: float) -> Check:
    return Check(Metric.TTFT, quantile, ratio(rollback), ratio(promote))


def tpot(quantile: float, rollback: float, promote: float) -> Check:
    return Check(Metric.TPOT, quantile, ratio(rollback), ratio(promote))


def score(name: str, rollback: float, promote: float) -> Check:
    """Signed margins: below 0 where lower is worse."""
    return Check(Metric.SCORE, None, Margin(MarginKind.SCORE, rollback), Margin(MarginKind.SCORE, promote), score=name)


USUAL = JudgeSpec((errors(points(0.005), points(0.01)), latency(0.5, 1.2, 1.5), latency(0.99, 1.2, 1.5)))
"""Three checks at usual margins."""


def latencies(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Seconds."""
    body = rng.lognormal(math.log(MEDIAN_S), SIGMA, count)
    tail = 2.5 * MEDIAN_S * (1 + rng.pareto(TAIL_INDEX, count))
    return np.where(rng.random(count) < TAIL, tail, body)


def histogram(seconds: NDArray[np.float64]) -> Histogram:
    """Binned as the gateway does it, many at a time."""
    numbers, counts = np.unique(np.floor(np.log(seconds) / math.log(BASE)).astype(int), return_counts=True)
    return Histogram(tuple(zip(numbers.tolist(), counts.tolist(), strict=True)))


def window(
    rng: np.random.Generator, role: Role, split: str, requests: int, arm: Arm, *, day: tuple[float, float] = (1.0, 1.0)
) -> Window:
    """One arm in one interval. day: what it does to latency and to the share of failures."""
    slower, more_errors = day
    failed = int(rng.binomial(requests, min(1.0, arm.errors * more_errors)))
    seconds = latencies(rng, requests - failed)
    seconds = np.where(seconds > P98_S, seconds * arm.tail_slower, seconds) * arm.slower * slower
    drawn = Window("s", split, role, role.value, None, requests=requests, failed=failed, latency=histogram(seconds))
    if arm.streams:
        first, pace = (histogram(latencies(rng, requests - failed) * by * slower) for by in (arm.first, arm.pace))
        drawn = replace(drawn, ttft=first, tpot=pace)
    if arm.score is not None:
        drawn = replace(drawn, scores=scored(rng, requests - failed, arm.score + 0.05 * (more_errors - 1)))
    return drawn


def scored(rng: np.random.Generator, answers: int, mean: float) -> tuple[tuple[str, ScoreCounts], ...]:
    """Scores called `helpful` of some of the answers, by a beta law."""
    weight = mean * (1 - mean) / SCORE_SD**2 - 1
    values = rng.beta(mean * weight, (1 - mean) * weight, rng.binomial(answers, SCORED))
    steps, counts = np.unique(np.rint(values * STEPS).astype(int), return_counts=True)
    found = ScoreCounts(tuple(zip(steps.tolist(), counts.tolist(), strict=True)))
    return (("helpful", found),) if found.steps else ()
