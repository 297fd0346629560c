"""Whole releases, simulated: many at once on counts alone, and one by one through the judge itself.

On counts, thousands of releases run side by side through the judge's own kernels and priors; what a latency reference
does is left out (kernels are valid at any), so the shares that exceed it follow the day. Through the judge, all is in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from judged_traffic import Arm, window
from numpy.typing import NDArray

from graylift.analysis import betting, conditional, judge, scoring
from graylift.analysis.betting import Side
from graylift.analysis.mixture import LASTING, ONE_STAGE, Grid, Starts, late_share
from graylift.domain.judgement import Judgement
from graylift.domain.spec import JudgeSpec, Stage
from graylift.domain.weights import Role, Weights

STAGES = (0.01, 0.05, 0.2, 0.5)


class Many:
    """One mixture of each of many releases; the arithmetic of `graylift.analysis.mixture`."""

    def __init__(self, releases: int, grid: Grid, starts: Starts) -> None:
        self._grid, self._starts = grid, starts
        self._stages = 0
        self._steps = np.zeros(releases, dtype=int)
        self._late: list[float] = []
        self._parts = np.tile(grid.log_weights + math.log(starts.first), (releases, 1))

    def stage_begins(self) -> None:
        self._stages += 1
        fresh = self._starts.stages / (self._stages * (self._stages + 1))
        self._parts = np.logaddexp(self._parts, self._grid.log_weights + math.log(fresh))

    def follow(self, log_e: NDArray[np.float64], compared: NDArray[np.bool_]) -> None:
        """One interval; releases where nothing can be compared stand still."""
        self._late += [late_share(step) for step in range(len(self._late), int(self._steps.max()) + 1)]
        fresh = np.log(self._starts.anytime * np.array(self._late)[self._steps])[:, None]
        grown = np.logaddexp(self._parts, self._grid.log_weights + fresh) + log_e
        self._parts = np.where(compared[:, None], grown, self._parts)
        self._steps += compared

    def log_value(self) -> NDArray[np.float64]:
        rest = self._starts.stages / (self._stages + 1) + self._starts.anytime / (1 + np.log1p(self._steps / 60))
        return np.logaddexp(np.logaddexp.reduce(self._parts, axis=1), np.log(rest))


@dataclass(frozen=True, slots=True)
class Plan:
    """Releases at the edge of every margin.

    requests: per interval on average, both arms; intervals: per stage
    errors:   stable's share of failures; margin: the candidate's is higher by this, in points
    exceed:   for each latency check, stable's share beyond its reference; the candidate's beyond its own is the same
    day:      a day moves traffic by 40 %, errors by 50 %, exceeding shares by 70 %, and traffic doubles on the way
    """

    releases: int
    intervals: int = 100
    requests: float = 200.0
    errors: float = 0.005
    margin: float = 0.005
    exceed: tuple[float, ...] = (0.5, 0.01)
    day: bool = True


@dataclass(frozen=True, slots=True)
class Interval:
    """One interval of many releases: requests, and (candidate, stable) events of errors and of each latency."""

    n_c: NDArray[np.int64]
    n_p: NDArray[np.int64]
    events: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]


def intervals(plan: Plan, rng: np.random.Generator):
    """(stage number, whether it begins, interval), in order."""
    total = plan.intervals * len(STAGES)
    phase = rng.uniform(0, 2 * math.pi, plan.releases)
    for t in range(total):
        stage, inside = divmod(t, plan.intervals)
        wave = np.sin(2 * math.pi * t / total + phase) if plan.day else np.zeros(plan.releases)
        n = rng.poisson(plan.requests * (1 + 0.4 * wave) * (0.67 + 0.67 * t / total if plan.day else 1.0))
        n_c = rng.binomial(n, STAGES[stage])
        base = plan.errors * (1 + 0.5 * wave)
        shares = [(base + plan.margin, base)]
        shares += [(p, p) for p in (np.clip(share * (1 + 0.7 * wave), 0, 0.95) for share in plan.exceed)]
        events = tuple((rng.binomial(n_c, c), rng.binomial(n - n_c, p)) for c, p in shares)
        yield stage, inside == 0, Interval(n_c, n - n_c, events)


def false_rollbacks(plan: Plan, rng: np.random.Generator, bounds: tuple[float, ...]) -> NDArray[np.int64]:
    """How many releases that are exactly at every rollback margin are ever FAIL, for each bound on it."""
    checks = 1 + len(plan.exceed)
    running = [Many(plan.releases, betting.WORSE, LASTING)]
    running += [Many(plan.releases, conditional.WORSE, LASTING) for _ in plan.exceed]
    needed = -np.log(np.asarray(bounds))[:, None]
    failed = np.zeros((len(bounds), plan.releases), dtype=bool)
    guess = Guess(plan.releases)
    for stage, begins, interval in intervals(plan, rng):
        if begins and stage:
            for many in running:
                many.stage_begins()
        follow(running, interval, guess, plan.margin, Side.WORSE)
        total = np.logaddexp.reduce([many.log_value() for many in running], axis=0) - math.log(checks)
        failed |= total >= needed
    return failed.sum(axis=1)


def false_promotions(plan: Plan, rng: np.random.Generator, beta: float) -> NDArray[np.int64]:
    """How many releases that are exactly at every promote margin ever PASS a check: shape (stages, checks)."""
    passes = np.zeros((len(STAGES), 1 + len(plan.exceed)), dtype=int)
    guess = Guess(plan.releases)
    running: list[Many] = []
    passed = np.zeros((passes.shape[1], plan.releases), dtype=bool)
    for stage, begins, interval in intervals(plan, rng):
        if begins:
            running = [Many(plan.releases, betting.WITHIN, ONE_STAGE)]
            running += [Many(plan.releases, conditional.WITHIN, ONE_STAGE) for _ in plan.exceed]
            passed[:] = False
        follow(running, interval, guess, plan.margin, Side.WITHIN)
        passed |= np.array([many.log_value() >= -math.log(beta) for many in running])
        passes[stage] = passed.sum(axis=1)
    return passes


class Guess:
    """Stable's share of failures in earlier intervals, of each release."""

    def __init__(self, releases: int) -> None:
        self._failed = np.full(releases, 0.1)
        self._requests = np.full(releases, 10.0)

    def share(self) -> NDArray[np.float64]:
        return self._failed / self._requests

    def learn(self, interval: Interval) -> None:
        self._failed = self._failed * 0.98 + interval.events[0][1]
        self._requests = self._requests * 0.98 + interval.n_p


def follow(running: list[Many], interval: Interval, guess: Guess, margin: float, side: Side) -> None:
    """One interval through the judge's kernels: errors first, then each latency."""
    compared = (interval.n_c > 0) & (interval.n_p > 0)
    grids = (betting.WORSE, conditional.WORSE) if side is Side.WORSE else (betting.WITHIN, conditional.WITHIN)
    one = np.ones(len(interval.n_c))
    bets = betting.log_e(
        interval.n_c,
        interval.n_p,
        *interval.events[0],
        side=side,
        guess=guess.share(),
        rho=one,
        delta=margin * one,
        effects=grids[0].effects,
    )
    running[0].follow(bets, compared)
    for many, (x_c, x_p) in zip(running[1:], interval.events[1:], strict=True):
        many.follow(conditional.log_e(interval.n_c, interval.n_p, x_c, x_p, grids[1].effects), compared)
    guess.learn(interval)


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """Releases whose candidate's mean score is worse than stable's by exactly the margin, at every moment of the day.

    scores: per interval on average, both arms; intervals: per stage. Half to two thirds of stable's are the best there
    is, the others anywhere; some of the candidate's are the worst instead.
    """

    releases: int
    intervals: int = 100
    scores: float = 40.0
    margin: float = 0.02


def score_intervals(plan: ScorePlan, rng: np.random.Generator):
    """(stage number, whether it begins, the candidate's and stable's scores at each knot, more is worse), in order."""
    phase = rng.uniform(0, 2 * math.pi, plan.releases)
    anywhere = np.full(len(scoring.KNOTS), 1 / len(scoring.KNOTS))
    for t in range(plan.intervals * len(STAGES)):
        stage, inside = divmod(t, plan.intervals)
        right = (0.58 + 0.08 * np.sin(2 * math.pi * t / (plan.intervals * len(STAGES)) + phase))[:, None]
        law = right * (scoring.KNOTS == 0) + (1 - right) * anywhere
        part = plan.margin / (1 - law @ scoring.KNOTS)[:, None]
        n = rng.poisson(plan.scores, plan.releases)
        n_c = rng.binomial(n, STAGES[stage])
        candidate = rng.multinomial(n_c, law * (1 - part) + part * (scoring.KNOTS == 1))
        yield stage, inside == 0, candidate.astype(float), rng.multinomial(n - n_c, law).astype(float)


def false_verdicts_on_scores(plan: ScorePlan, rng: np.random.Generator, side: Side, bound: float) -> NDArray[np.int64]:
    """How many releases are ever FAIL (one number), or ever PASS (one for each stage)."""
    grid, starts = (scoring.WORSE, LASTING) if side is Side.WORSE else (scoring.WITHIN, ONE_STAGE)
    running = Many(plan.releases, grid, starts)
    found = np.zeros((len(STAGES), plan.releases), dtype=bool)
    total, count = np.full(plan.releases, 0.5), np.ones(plan.releases)
    for stage, begins, candidate, stable in score_intervals(plan, rng):
        if begins and stage and side is Side.WORSE:
            running.stage_begins()
        elif begins:
            running = Many(plan.releases, grid, starts)
        log_e = scoring.log_e(
            candidate, stable, side=side, guess=total / count, delta=plan.margin, effects=grid.effects
        )
        running.follow(log_e, (candidate.sum(axis=1) > 0) & (stable.sum(axis=1) > 0))
        total, count = total * 0.98 + stable @ scoring.KNOTS, count * 0.98 + stable.sum(axis=1)
        found[stage] |= running.log_value() >= -math.log(bound)
    return found.any(axis=0).sum(keepdims=True) if side is Side.WORSE else found.sum(axis=1)


@dataclass(frozen=True, slots=True)
class Course:
    """One release through the judge.

    rate:     requests per interval, both arms
    stages:   (candidate's share, intervals) of each
    earlier:  intervals of stable alone before the first stage
    onset:    interval from which the candidate is `candidate`; before, it is as stable
    until_pass: stop where all checks PASS
    """

    candidate: Arm
    stable: Arm
    rate: float = 20.0
    stages: tuple[tuple[float, int], ...] = ((0.05, 200),)
    earlier: int = 60
    onset: int = 0
    day: bool = False
    until_pass: bool = False


def judged(spec: JudgeSpec, course: Course, rng: np.random.Generator) -> Judgement:
    """The last judgement, a look every interval: of the first FAIL or PASS (if asked for), or at the end."""
    state = judge.start(spec)
    phase = rng.uniform(0, 2 * math.pi)
    total = sum(count for _, count in course.stages)

    def day(t: int) -> tuple[float, tuple[float, float]]:
        wave = math.sin(2 * math.pi * t / total + phase) if course.day else 0.0
        return course.rate * (1 + 0.4 * wave), (math.exp(0.2 * wave), 1 + 0.5 * wave)

    for t in range(-course.earlier, 0):
        rate, now = day(t)
        state = judge.observe(
            spec, state, [window(rng, Role.STABLE, "before", int(rng.poisson(rate)), course.stable, day=now)]
        )
    t = 0
    for number, (share, count) in enumerate(course.stages):
        stage = Stage(Weights(round(share * 10_000)), observe_s=float(count))
        state = judge.enter(spec, state, stage, f"stage {number}", sticky=False)
        for _ in range(count):
            rate, now = day(t)
            n = int(rng.poisson(rate))
            n_c = int(rng.binomial(n, share))
            candidate = course.candidate if t >= course.onset else course.stable
            state = judge.observe(
                spec,
                state,
                [
                    window(rng, Role.CANDIDATE, f"stage {number}", n_c, candidate, day=now),
                    window(rng, Role.STABLE, f"stage {number}", n - n_c, course.stable, day=now),
                ],
            )
            t += 1
            # FAIL stays in the state from the interval that found it; only PASS must be looked for.
            if state.found or (course.until_pass and judge.judge(spec, state).passed):
                return judge.judge(spec, state)
    return judge.judge(spec, state)


def upper_limit(events: int, trials: int, confidence: float = 0.975) -> float:
    """Clopper and Pearson's exact upper limit of a probability, by bisection."""
    low, high = events / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(events, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def shown(events: int, trials: int) -> str:
    low, high = exact_limits(events, trials)
    return f"{events} of {trials:,} = {events / trials:.2%} [{low:.2%}, {high:.2%}]"


def exact_limits(events: int, trials: int) -> tuple[float, float]:
    """Exact 95 % limits (Clopper and Pearson)."""
    low = 1 - upper_limit(trials - events, trials) if events else 0.0
    return low, upper_limit(events, trials) if events < trials else 1.0


def _at_most(events: int, trials: int, p: float) -> float:
    def term(k: int) -> float:
        choose = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        return math.exp(choose + k * math.log(p) + (trials - k) * math.log1p(-p))

    return sum(term(k) for k in range(events + 1)) if p < 1 else float(events == trials)
