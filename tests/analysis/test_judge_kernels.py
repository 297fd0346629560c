"""Each kernel's promise, by enumeration of all outcomes: at most 1 on average wherever its null holds."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from judged_traffic import errors, latency, points

from graylift.analysis import betting, conditional, evidence, mixture, scoring, share, sickness
from graylift.analysis.betting import Side
from graylift.analysis.evidence import Known
from graylift.analysis.mixture import LASTING, ONE_STAGE, Grid
from graylift.analysis.sample import Sample, Stratum
from graylift.domain.histogram import Histogram
from graylift.domain.scores import ScoreCounts, scores_from_counts, step_of
from graylift.domain.spec import Check

SMALL = [(1, 1), (1, 19), (2, 3), (3, 1), (5, 5), (4, 12), (12, 4)]
ROUNDING = 1 + 1e-9


def binomial(n: int, x: int, p: float) -> float:
    return math.comb(n, x) * p**x * (1 - p) ** (n - x)


def table_probabilities(n_c: int, n_p: int, k: int, odds: float) -> dict[int, float]:
    terms = {x: math.comb(n_c, x) * math.comb(n_p, k - x) * odds**x for x in range(max(0, k - n_p), min(k, n_c) + 1)}
    return {x: term / sum(terms.values()) for x, term in terms.items()}


@pytest.mark.parametrize(("n_c", "n_p"), SMALL)
def test_conditional_evidence_is_exactly_one_on_average_when_the_arms_are_equal(n_c: int, n_p: int) -> None:
    effects = conditional.WORSE.effects + conditional.WITHIN.effects
    for k in range(n_c + n_p + 1):
        mean = sum(
            p * np.exp(conditional.log_e(n_c, n_p, x, k - x, effects))
            for x, p in table_probabilities(n_c, n_p, k, 1.0).items()
        )
        assert mean == pytest.approx(np.ones(len(effects)))


@pytest.mark.parametrize(("n_c", "n_p"), SMALL)
@pytest.mark.parametrize("odds", [0.05, 0.5, 0.9])
def test_conditional_evidence_is_at_most_one_on_average_inside_its_null(n_c: int, n_p: int, odds: float) -> None:
    for grid, true_odds in ((conditional.WORSE, odds), (conditional.WITHIN, 1 / odds)):
        for k in range(n_c + n_p + 1):
            mean = sum(
                p * np.exp(conditional.log_e(n_c, n_p, x, k - x, grid.effects))
                for x, p in table_probabilities(n_c, n_p, k, true_odds).items()
            )
            assert np.all(mean <= ROUNDING)


@pytest.mark.parametrize(
    ("n_c", "n_p", "x_c", "x_p"),
    [(1, 19, 1, 0), (50, 300, 7, 20), (200, 150, 100, 149), (130, 900, 130, 0), (7, 9, 0, 0)],
)
def test_conditional_evidence_equals_the_formula_in_exact_arithmetic(n_c: int, n_p: int, x_c: int, x_p: int) -> None:
    def log_z(psi: Fraction) -> float:
        k = x_c + x_p
        total = sum(math.comb(n_c, j) * math.comb(n_p, k - j) * psi**j for j in range(max(0, k - n_p), min(k, n_c) + 1))
        return math.log(total.numerator) - math.log(total.denominator)

    for psi in conditional.WORSE.effects + conditional.WITHIN.effects:
        exact = x_c * math.log(psi) + log_z(Fraction(1)) - log_z(Fraction(psi))
        assert conditional.log_e(n_c, n_p, x_c, x_p, [psi])[0] == pytest.approx(exact, abs=1e-9)


def test_many_tables_at_once_are_judged_as_one_by_one() -> None:
    tables = np.array([(1, 19, 1, 0), (50, 300, 7, 20), (0, 5, 0, 2), (2000, 8000, 1100, 3900)])
    together = conditional.log_e(*tables.T, conditional.WORSE.effects)
    alone = [conditional.log_e(*table, conditional.WORSE.effects) for table in tables]
    assert together == pytest.approx(np.array(alone), abs=1e-9)


def test_huge_tables_are_cut_so_that_evidence_can_only_get_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    table = (30_000, 40_000, 15_300, 20_000)
    effects = conditional.WORSE.effects + conditional.WITHIN.effects
    cut = {}
    for widest in (50, 200, 2048, 40_000):
        monkeypatch.setattr(conditional, "WIDEST", widest)
        cut[widest] = conditional.log_e(*table, effects)
    whole = cut[40_000]
    assert np.all(cut[50] <= whole + 1e-6)
    assert np.all(cut[200] <= whole + 1e-6)
    assert cut[2048] == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize(("n_c", "n_p"), SMALL)
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(("rho", "delta"), [(1.0, 0.005), (1.0, 0.2), (1.5, 0.0), (1.0, -0.1)])
@pytest.mark.parametrize("guess", [0.0001, 0.02, 0.6])
def test_bets_are_at_most_one_on_average_at_the_margin_and_inside(
    n_c: int, n_p: int, side: Side, rho: float, delta: float, guess: float
) -> None:
    grid = betting.WORSE if side is Side.WORSE else betting.WITHIN
    for stable, further in itertools.product((0.0, 0.01, 0.3, 0.6), (0.0, 0.05, 0.4)):
        candidate = rho * stable + delta - side.value * further
        if not 0 <= candidate <= 1:
            continue
        mean = sum(
            binomial(n_c, x_c, candidate)
            * binomial(n_p, x_p, stable)
            * np.exp(
                betting.log_e(n_c, n_p, x_c, x_p, side=side, guess=guess, rho=rho, delta=delta, effects=grid.effects)
            )
            for x_c in range(n_c + 1)
            for x_p in range(n_p + 1)
        )
        assert np.all(mean <= ROUNDING), (stable, candidate)


SCORES = (0.0, 0.012, 0.5, 0.987, 1.0)
LAWS = ((0.2, 0.2, 0.2, 0.2, 0.2), (0.0, 0.5, 0.5, 0.0, 0.0), (0.3, 0.0, 0.0, 0.0, 0.7), (0.0, 0.0, 0.1, 0.8, 0.1))
MEANS = [sum(score * p for score, p in zip(SCORES, law, strict=True)) for law in LAWS]


def moved(law: tuple[float, ...], mean: float) -> tuple[float, ...]:
    """The law with part of it at 0 or at 1 instead, so that it has that mean."""
    before = sum(score * p for score, p in zip(SCORES, law, strict=True))
    end = 1.0 if mean > before else 0.0
    part = (mean - before) / (end - before) if mean != before else 0.0
    return tuple(p * (1 - part) + part * (score == end) for score, p in zip(SCORES, law, strict=True))


def draws(n: int, law: tuple[float, ...]) -> list[tuple[float, ScoreCounts]]:
    """Every multiset of n scores, with its probability."""
    found: list[tuple[float, ScoreCounts]] = []
    for drawn in itertools.combinations_with_replacement(range(len(SCORES)), n):
        counts = Counter(drawn)
        orders = math.factorial(n) / math.prod(map(math.factorial, counts.values()))
        steps = Counter({step_of(SCORES[index]): times for index, times in counts.items()})
        found.append((orders * math.prod(law[index] for index in drawn), scores_from_counts(steps)))
    return [(p, scores) for p, scores in found if p > 0]


@pytest.mark.parametrize(("n_c", "n_p"), [(1, 1), (1, 4), (3, 2), (2, 3)])
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("lower_is_worse", [True, False])
@pytest.mark.parametrize("delta", [0.01, 0.2])
def test_bets_on_scores_are_at_most_one_on_average_at_the_margin_and_inside(
    n_c: int, n_p: int, side: Side, lower_is_worse: bool, delta: float
) -> None:
    grid = scoring.WORSE if side is Side.WORSE else scoring.WITHIN
    checked = 0
    for (law, mean), further, guess in itertools.product(
        zip(LAWS, MEANS, strict=True), (0.0, 0.05), (0.001, 0.3, 0.97)
    ):
        worse = delta - side.value * further
        candidate = mean - worse if lower_is_worse else mean + worse
        if not 0 <= candidate <= 1:
            continue
        average = sum(
            p_c
            * p_p
            * np.exp(
                scoring.log_e(
                    scoring.spread(ours, lower_is_worse=lower_is_worse),
                    scoring.spread(theirs, lower_is_worse=lower_is_worse),
                    side=side,
                    guess=guess,
                    delta=delta,
                    effects=grid.effects,
                )
            )
            for p_c, ours in draws(n_c, moved(law, candidate))
            for p_p, theirs in draws(n_p, law)
        )
        assert np.all(average <= ROUNDING), (mean, candidate, average)
        checked += 1
    assert checked


@pytest.mark.parametrize("side", Side)
def test_scores_between_two_knots_are_never_more_evidence_than_they_are(side: Side) -> None:
    """Against the product of all factors, score by score; on the knots themselves it is that product."""
    rng = np.random.default_rng(0)
    for on_knots in (True, False):
        ours, theirs = (rng.choice(scoring.KNOTS, 40) if on_knots else rng.uniform(0, 1, 40).round(3) for _ in range(2))
        counted = [
            scoring.spread(scores_from_counts(Counter(map(step_of, scores.tolist()))), lower_is_worse=False)
            for scores in (ours, theirs)
        ]
        told = scoring.log_e(*counted, side=side, guess=0.4, delta=0.05, effects=scoring.WORSE.effects)
        bet = betting.stakes(40, 40, side=side, guess=0.4, rho=1.0, delta=0.05, effects=scoring.WORSE.effects)
        exact = np.log1p(bet.lam * (ours[:, None] - bet.q)).sum(axis=0)
        exact += np.log1p(-bet.lam * bet.tilt * (theirs[:, None] - bet.m)).sum(axis=0)
        if on_knots:
            assert told == pytest.approx(exact)
        else:
            assert np.all(told < exact)
            assert told == pytest.approx(exact, abs=0.2)


@pytest.mark.parametrize("side", Side)
def test_scores_of_0_and_1_are_the_bets_on_failures(side: Side) -> None:
    scores = [
        scoring.spread(ScoreCounts(((0, good), (1_000, bad))), lower_is_worse=False) for good, bad in ((7, 3), (18, 2))
    ]
    told = scoring.log_e(*scores, side=side, guess=0.1, delta=0.02, effects=(0.1, 0.5))
    assert told == pytest.approx(
        betting.log_e(10, 20, 3, 2, side=side, guess=0.1, rho=1.0, delta=0.02, effects=(0.1, 0.5))
    )


@pytest.mark.parametrize("side", Side)
def test_an_arm_without_requests_is_no_evidence(side: Side) -> None:
    for n_c, n_p, x_c, x_p in ((0, 9, 0, 4), (9, 0, 9, 0), (0, 0, 0, 0)):
        bets = betting.log_e(n_c, n_p, x_c, x_p, side=side, guess=0.01, rho=1.0, delta=0.01, effects=(0.1, 0.9))
        tables = conditional.log_e(n_c, n_p, x_c, x_p, (0.1, 10.0))
        assert bets == pytest.approx([0, 0])
        scored = [scoring.spread(ScoreCounts(((500, n),) if n else ()), lower_is_worse=True) for n in (n_c, n_p)]
        assert scoring.log_e(*scored, side=side, guess=0.3, delta=0.01, effects=(0.1, 0.9)) == pytest.approx([0, 0])
        assert tables == pytest.approx([0, 0])


@pytest.mark.parametrize("starts", [LASTING, ONE_STAGE])
def test_a_mixture_over_effects_and_late_starts_is_exactly_one_on_average(starts: mixture.Starts) -> None:
    """All sequences of five tosses of a coin, with a stage that begins before the third."""
    grid = Grid(effects=(0.3, 0.9), weights=(0.4, 0.6))
    mean = 0.0
    for tosses in itertools.product((0, 1), repeat=5):
        running = mixture.begin(grid, starts)
        for number, heads in enumerate(tosses):
            if number == 2 and starts.stages:
                running = mixture.stage_begins(running, grid, starts)
            tilt = np.asarray(grid.effects) * (1 if heads else -1)
            running = mixture.follow(running, grid, starts, np.log1p(tilt))
        mean += math.exp(mixture.log_value(running, starts)) / 2**5
    assert mean == pytest.approx(1.0)


def test_a_mixture_never_spends_more_than_its_prior_and_never_overflows() -> None:
    assert sum(mixture.late_share(step) for step in range(20_000)) < 1
    for starts in (LASTING, ONE_STAGE):
        assert starts.first + starts.stages + starts.anytime == pytest.approx(1.0)
    grid = conditional.WORSE
    assert sum(grid.weights) == pytest.approx(1.0)
    running = mixture.begin(grid, LASTING)
    for _ in range(200):
        running = mixture.follow(running, grid, LASTING, np.full(len(grid.effects), 1e4))
    assert mixture.log_value(running, LASTING) == pytest.approx(2e6, rel=1e-3)
    for _ in range(400):
        running = mixture.follow(running, grid, LASTING, np.full(len(grid.effects), -1e4))
    assert math.log(0.01) < mixture.log_value(running, LASTING) < 0


def test_every_grid_spends_its_whole_prior_once() -> None:
    for grid in (betting.WORSE, betting.WITHIN, conditional.WORSE, conditional.WITHIN, sickness.EFFECTS):
        assert sum(grid.weights) == pytest.approx(1.0)
        assert len(grid.weights) == len(grid.effects)


@pytest.mark.parametrize("p", [0.01, 0.05, 0.5])
def test_split_evidence_is_exactly_one_on_average_under_the_configured_split(p: float) -> None:
    for total in (1, 7, 30):
        mean = sum(binomial(total, x, p) * math.exp(share.log_value(x, total, p)) for x in range(total + 1))
        assert mean == pytest.approx(1.0)


@pytest.mark.parametrize("p", [0.0, 0.05, 0.1])
def test_sickness_evidence_is_at_most_one_on_average_for_a_tolerable_candidate(p: float) -> None:
    mean = sum(binomial(12, x, p) * np.exp(sickness.log_e(12, x, 0.1)) for x in range(13))
    assert np.all(mean <= ROUNDING)


KINDS = ("failed", "slow", "fast")
P50 = latency(0.5, 1.2, 1.2)


def arm_of(kinds: tuple[str, ...]) -> Sample:
    """Requests of an arm: fast ones in bin 0, slow ones far beyond any margin."""
    bins = ((0, kinds.count("fast")), (500, kinds.count("slow")))
    answered = Histogram(tuple((number, count) for number, count in bins if count))
    return Sample(len(kinds), kinds.count("failed"), latency=answered)


def mean_latency_evidence(
    checks: tuple[Check, ...], side: Side, failing: tuple[float, float], slow: tuple[float, float]
):
    """Of the last check, over all outcomes of 2 candidate and 3 stable requests.

    failing, slow: candidate's and stable's share of requests that fail, and of answers that are slow
    """

    def chance(kinds: tuple[str, ...], failing: float, slow: float) -> float:
        of = {"failed": failing, "slow": (1 - failing) * slow, "fast": (1 - failing) * (1 - slow)}
        return math.prod(of[kind] for kind in kinds)

    margins = tuple(check.rollback_if_worse for check in checks)
    pasts = (Known(0.1, 100),) * len(checks)
    mean = 0.0
    for candidate in itertools.product(KINDS, repeat=2):
        for stable in itertools.product(KINDS, repeat=3):
            log_e = evidence.log_e(checks, margins, side, pasts, Stratum(arm_of(candidate), arm_of(stable)))[-1]
            assert log_e is not None
            mean = mean + chance(candidate, failing[0], slow[0]) * chance(stable, failing[1], slow[1]) * np.exp(log_e)
    return mean


@pytest.mark.parametrize("failing", [(0.0, 0.0), (0.4, 0.1), (0.1, 0.4), (0.9, 0.0)])
@pytest.mark.parametrize("slow", [(0.3, 0.3), (0.1, 0.6)])
def test_beside_a_check_on_errors_a_latency_is_not_found_worse_for_what_fails(failing, slow) -> None:
    checks = (errors(points(0.5), points(0.6)), P50)
    assert np.all(mean_latency_evidence(checks, Side.WORSE, failing, slow) <= ROUNDING)


@pytest.mark.parametrize(
    ("failing", "slow"), [((0.0, 0.0), (0.3, 0.3)), ((0.1, 0.2), (0.2, 0.1)), ((0.2, 0.2), (0.0, 0.5))]
)
def test_alone_a_latency_counts_what_fails_as_slow(failing, slow) -> None:
    """The candidate's share of slow or failed requests is at most stable's."""
    assert np.all(mean_latency_evidence((P50,), Side.WORSE, failing, slow) <= ROUNDING)


@pytest.mark.parametrize(
    ("failing", "slow"), [((0.0, 0.0), (0.3, 0.3)), ((0.3, 0.0), (0.0, 0.3)), ((0.6, 0.1), (0.0, 0.4))]
)
def test_no_candidate_is_shown_to_be_fast_by_failing(failing, slow) -> None:
    """The candidate's share of slow or failed requests is at least stable's."""
    checks = (errors(points(0.5), points(0.6)), P50)
    assert np.all(mean_latency_evidence(checks, Side.WITHIN, failing, slow) <= ROUNDING)


@pytest.mark.parametrize("stable_share", [0.0, 0.04, 0.3])
def test_sickness_evidence_is_exactly_one_at_what_is_tolerable_of_each_stable(stable_share: float) -> None:
    q = sickness.tolerable_share(stable_share)
    mean = sum(binomial(9, x, q) * np.exp(sickness.log_e(9, x, q)) for x in range(10))
    assert mean == pytest.approx(np.ones(len(sickness.EFFECTS.effects)))


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_split_evidence_over_several_looks_is_exactly_one_on_average(p: float) -> None:
    """Request by request, as the counts of a stage grow: a martingale, so looking at it often is harmless."""
    for total, x in ((4, 1), (20, 7)):
        now = math.exp(share.log_value(x, total, p))
        next_one = p * math.exp(share.log_value(x + 1, total + 1, p)) + (1 - p) * math.exp(
            share.log_value(x, total + 1, p)
        )
        assert next_one == pytest.approx(now)
