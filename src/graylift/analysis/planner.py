"""How many requests, and how long, until the judge will probably have decided: by stage, before anything is released.

Formula. Evidence for one bet j of a check grows by g_j = E[ln E_t(j)] an interval, with standard deviation s_j, and
is complete when it has grown by a_j = ln(1 / bound) - ln(prior of j). Taken as a Brownian motion with that drift and
spread, the time of its first passage has the inverse Gaussian law with mean a_j / g_j and shape (a_j / s_j)^2; told is
its LIKELY quantile, of the quickest bet. g_j and s_j are taken over tables drawn as the traffic would bring them,
through the kernels that the judge itself uses; the balanced bet on failures is linear in its counts, so its mean is
exact.

Source: the growth rate of an e-process (Grunwald, de Heide and Koolen, arXiv 1906.07801), Wald's law of the first
passage; to plan by both is our assembly. Assumes a steady rate, independent requests and the laws of `traffic`;
tests hold it to simulations of the judge within a factor of two. Small n: an interval without candidate requests
says nothing and only takes time. Cost: DRAWS tables a check and stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import assert_never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graylift.analysis import betting, conditional, evidence, scoring
from graylift.analysis.betting import Side
from graylift.analysis.evidence import Known
from graylift.analysis.mixture import LASTING, ONE_STAGE
from graylift.analysis.reference import answers_needed
from graylift.analysis.traffic import Traffic
from graylift.domain.evidence import INTERVAL_S
from graylift.domain.histogram import bin_of, lower_bound
from graylift.domain.scores import STEPS, ScoreCounts
from graylift.domain.spec import Check, JudgeSpec, Margin, MarginKind, Metric, Stage
from graylift.domain.weights import TOTAL

LIKELY = 0.8
"""A plan says when this share of good candidates has passed, or of bad ones has been found."""
DRAWS = 10_000
"""Tables that are drawn for one check; fewer where they are so large that a few hundred tell as much."""
_FEWEST_DRAWS = 200
_REQUESTS_DRAWN = 1_000_000
_SCORE_DRAWS = 1_000
_LAW_DRAWN = 20_000

_NORMAL = NormalDist()
_WORSE_POINTS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
_WORSE_RATIOS = (1.1, 1.2, 1.3, 1.5, 2.0, 3.0, 5.0, 10.0)
_WORSE_SCORES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True, slots=True)
class Passing:
    """When a candidate that is as good as stable has shown to be within `margin`. None: never."""

    check: str
    margin: Margin
    candidate_n: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Catching:
    """The smallest regression of a check that a stage finds while it lasts, and its price.

    worse:  how much worse than stable, in the unit of the check's margins
    bad:    answers that are failures, or slower than the rollback margin lets stable's quantile be; None for a score,
            which calls no single answer bad
    """

    check: str
    worse: Margin
    candidate_n: int
    bad: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class StagePlan:
    """seconds: until everything it asks for is likely there, None if never. lasts_s: the longer of that and `observe`.

    missed: checks of which it finds no regression that was tried
    """

    stage: Stage
    passing: tuple[Passing, ...]
    seconds: float | None
    candidate_n: int | None
    catching: tuple[Catching, ...]
    missed: tuple[str, ...]


def plan(
    spec: JudgeSpec, stages: tuple[Stage, ...], traffic: Traffic, rng: np.random.Generator
) -> tuple[StagePlan, ...]:
    """Of every stage that compares the two arms. `rng`: for the tables that are drawn; the same one, the same plan."""
    return tuple(
        _stage_plan(spec, number, stage, traffic, rng)
        for number, stage in enumerate(stages)
        if stage.weights.candidate and not stage.is_watch
    )


def passing(
    spec: JudgeSpec, check: Check, margin: Margin, share: float, traffic: Traffic, rng: np.random.Generator
) -> Passing:
    """When a candidate as good as stable passes one check at a margin, with that share of the traffic."""
    known = _known(check, traffic)
    drift = _drift(check, margin, Side.WITHIN, known, None, share, traffic, rng)
    grid = evidence.grid_of(check, Side.WITHIN)
    needed = -math.log(spec.false_promotion) - grid.log_weights - math.log(ONE_STAGE.first)
    seconds = _seconds(drift, needed)
    if seconds is None:
        return Passing(check.name, margin, None, None)
    if check.quantile is not None:
        # A young stage shows no slow answers, and stable's quantile takes some answers to be known.
        seconds += 2 * evidence.slowest_s(check, margin, known)
        seconds = max(seconds, answers_needed(check) / (traffic.rate * (1 - share)))
    return Passing(check.name, margin, math.ceil(seconds * traffic.rate * share), seconds)


def _stage_plan(spec: JudgeSpec, number: int, stage: Stage, traffic: Traffic, rng: np.random.Generator) -> StagePlan:
    share = stage.weights.candidate / TOTAL
    own = {margin.check: margin.margin for margin in stage.promote_if_within}
    found = tuple(
        passing(spec, check, own.get(check.name, check.promote_if_within), share, traffic, rng) for check in spec.checks
    )
    times = [one.seconds for one in found if one.seconds is not None]
    seconds = None
    if len(times) == len(found):
        seconds = max(*times, stage.observe_s, stage.min_requests / (traffic.rate * share))
    lasts_s = stage.observe_s if seconds is None else seconds
    caught = {check.name: _catching(spec, check, number, share, traffic, lasts_s, rng) for check in spec.checks}
    return StagePlan(
        stage=stage,
        passing=found,
        seconds=seconds,
        candidate_n=None if seconds is None else math.ceil(seconds * traffic.rate * share),
        catching=tuple(one for one in caught.values() if one is not None),
        missed=tuple(name for name, one in caught.items() if one is None),
    )


def _catching(
    spec: JudgeSpec,
    check: Check,
    number: int,
    share: float,
    traffic: Traffic,
    lasts_s: float,
    rng: np.random.Generator,
) -> Catching | None:
    known = _known(check, traffic)
    # A regression that was there from the first stage on; what a later stage adds is a new beginning of its own.
    begins = LASTING.first if number == 0 else LASTING.stages / (number * (number + 1))
    grid = evidence.grid_of(check, Side.WORSE)
    needed = -math.log(spec.false_rollback) + math.log(len(spec.checks)) - grid.log_weights - math.log(begins)
    for worse in _regressions(check, traffic):
        drift = _drift(check, check.rollback_if_worse, Side.WORSE, known, worse, share, traffic, rng)
        seconds = _seconds(drift, needed)
        if seconds is not None and seconds <= lasts_s:
            requests = max(1, math.ceil(seconds * traffic.rate * share))
            bad = None
            if check.metric is not Metric.SCORE:
                bad_share, _ = _shares(check, check.rollback_if_worse, Side.WORSE, known, traffic, worse=worse)
                bad = max(1, round(requests * bad_share))
            return Catching(check.name, worse, requests, bad, seconds)
    return None


def _regressions(check: Check, traffic: Traffic) -> Iterator[Margin]:
    """Ever larger ones, all beyond the rollback margin."""
    limit = check.rollback_if_worse
    match limit.kind:
        case MarginKind.POINTS:
            worst = 1 - traffic.errors
            yield from (Margin(limit.kind, step) for step in (*_WORSE_POINTS, worst) if limit.value < step <= worst)
        case MarginKind.RATIO:
            yield from (Margin(limit.kind, step) for step in _WORSE_RATIOS if step > limit.value)
        case MarginKind.SCORE:
            lower, mean = evidence.lower_is_worse(check), traffic.scores.mean
            worst = mean if lower else 1 - mean
            steps = (step for step in _WORSE_SCORES if limit.room < step <= worst)
            yield from (Margin(limit.kind, -step if lower else step) for step in steps)
        case _:
            assert_never(limit.kind)


def _known(check: Check, traffic: Traffic) -> Known:
    """Stable's past, once it is known."""
    if check.metric is Metric.SCORE:
        return Known(1 - traffic.scores.mean if evidence.lower_is_worse(check) else traffic.scores.mean)
    if check.quantile is None:
        return Known(traffic.errors)
    slow = traffic.errors + (1 - traffic.errors) * (1 - check.quantile)
    x = bin_of(traffic.times(check.metric).quantile(check.quantile))
    ends = x if check.metric is Metric.LATENCY else bin_of(traffic.latency.quantile(evidence.STREAMS_END))
    return Known(slow, x, ends)


def _shares(
    check: Check, margin: Margin, side: Side, known: Known, traffic: Traffic, *, worse: Margin | None
) -> tuple[float, float]:
    """Of the candidate's and of stable's requests, those that count as an event; worse: None for an equal one."""
    errors = traffic.errors
    if check.quantile is None:
        rho, delta = (1.0, 0.0) if worse is None else evidence.linear(worse)
        return min(1.0, rho * errors + delta), errors
    x = evidence.threshold(known, side) + 1
    slower = 1.0 if worse is None else worse.value
    times = traffic.times(check.metric)
    ours, theirs = (
        times.share_from(lower_bound(x + evidence.bins_of(margin, side)) / slower),
        times.share_from(lower_bound(x)),
    )
    return errors + (1 - errors) * ours, errors + (1 - errors) * theirs


@dataclass(frozen=True, slots=True)
class _Drift:
    """Of each bet: how its logarithm moves in an interval with candidate requests, and how often there is one."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    present: float


def _drift(
    check: Check,
    margin: Margin,
    side: Side,
    known: Known,
    worse: Margin | None,
    share: float,
    traffic: Traffic,
    rng: np.random.Generator,
) -> _Drift:
    """Over intervals that have a request, or a score, of the candidate's. worse: None for one as good as stable."""
    if check.metric is Metric.SCORE:
        return _score_drift(check, margin, side, known, worse, share, traffic, rng)
    shares = _shares(check, margin, side, known, traffic, worse=worse)
    expected_c, expected_p = (traffic.rate * INTERVAL_S * part for part in (share, 1 - share))
    draws = min(DRAWS, max(_FEWEST_DRAWS, round(_REQUESTS_DRAWN / (expected_c + expected_p))))
    n_c, n_p = _positive_poisson(expected_c, draws, rng), rng.poisson(expected_p, draws)
    x_c, x_p = rng.binomial(n_c, shares[0]), rng.binomial(n_p, shares[1])
    effects = evidence.grid_of(check, side).effects
    if check.quantile is None:
        rho, delta = evidence.linear(margin)
        one = np.ones(draws)

        def bets(ours: ArrayLike, theirs: ArrayLike) -> NDArray[np.float64]:
            return betting.log_e(
                n_c,
                n_p,
                ours,
                theirs,
                side=side,
                guess=one * max(known.guess, 1e-4),
                rho=one * rho,
                delta=one * delta,
                effects=effects,
            )

        drawn = bets(x_c, x_p)
        mean = bets(n_c * shares[0], n_p * shares[1]).mean(axis=0)
    else:
        drawn = conditional.log_e(n_c, n_p, x_c, x_p, effects)
        mean = drawn.mean(axis=0)
    return _Drift(mean, drawn.std(axis=0), 1 - math.exp(-expected_c))


def _score_drift(
    check: Check,
    margin: Margin,
    side: Side,
    known: Known,
    worse: Margin | None,
    share: float,
    traffic: Traffic,
    rng: np.random.Generator,
) -> _Drift:
    scored = traffic.rate * traffic.scores.share * INTERVAL_S
    laws = [_at_knots(check, traffic.scores.law(by), rng) for by in (0.0 if worse is None else worse.value, 0.0)]
    n_c = _positive_poisson(scored * share, _SCORE_DRAWS, rng)
    n_p = rng.poisson(scored * (1 - share), _SCORE_DRAWS)
    candidate, stable = (rng.multinomial(n, law).astype(np.float64) for n, law in zip((n_c, n_p), laws, strict=True))
    effects = evidence.grid_of(check, side).effects
    drawn = scoring.log_e(candidate, stable, side=side, guess=known.guess, delta=margin.room, effects=effects)
    return _Drift(drawn.mean(axis=0), drawn.std(axis=0), 1 - math.exp(-scored * share))


def _at_knots(check: Check, law: tuple[float, float], rng: np.random.Generator) -> NDArray[np.float64]:
    """The share of scores of a beta law that counts at each knot."""
    steps, counts = np.unique(np.rint(rng.beta(*law, _LAW_DRAWN) * STEPS).astype(np.int64), return_counts=True)
    drawn = ScoreCounts(tuple(zip(steps.tolist(), counts.tolist(), strict=True)))
    return scoring.spread(drawn, lower_is_worse=evidence.lower_is_worse(check)) / _LAW_DRAWN


def _positive_poisson(mean: float, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draws of a Poisson count that is not 0."""
    if mean > 20:
        return np.maximum(rng.poisson(mean, draws), 1)
    terms = np.exp(-mean + np.arange(1, 80) * math.log(mean) - np.cumsum(np.log(np.arange(1, 80))))
    reached = np.cumsum(terms) / terms.sum()
    return 1 + np.searchsorted(reached, rng.random(draws)).astype(np.int64)


def _seconds(drift: _Drift, needed: NDArray[np.float64]) -> float | None:
    """Until the quickest bet is likely complete; None if none ever is."""
    grows = drift.mean > 1e-9
    if not np.any(grows):
        return None
    mean, spread, nats = drift.mean[grows], drift.spread[grows], needed[grows]
    passages = [_first_passage(*one) for one in zip(mean.tolist(), spread.tolist(), nats.tolist(), strict=True)]
    return max(1.0, min(passages)) / drift.present * INTERVAL_S


def _first_passage(mean: float, spread: float, height: float) -> float:
    """The LIKELY quantile of the steps that a walk takes to rise by `height`."""
    centre, shape = height / mean, (height / max(spread, 1e-12)) ** 2
    low, high = 0.0, 100.0 * centre
    for _ in range(60):
        steps = (low + high) / 2
        root = math.sqrt(shape / steps)
        reached = _NORMAL.cdf(root * (steps / centre - 1))
        beyond = _NORMAL.cdf(-root * (steps / centre + 1))
        if beyond > 0:
            reached += math.exp(2 * shape / centre + math.log(beyond))
        low, high = (steps, high) if reached < LIKELY else (low, steps)
    return high
