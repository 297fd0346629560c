"""The interval of a ratio: where it lies, how often it holds the truth, and when nothing is claimed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.checks.ratios import (
    FEWEST_PAIRS,
    Ratio,
    Standing,
    at_least,
    at_most,
    quantile_ratio,
    rate_ratio,
    requests_for,
)
from graylift.domain.histogram import BASE, Histogram, bin_of, histogram_from_counts, merged

durations = st.floats(1e-4, 10.0)
blocks = st.lists(durations, min_size=1, max_size=20).map(
    lambda values: histogram_from_counts(Counter(map(bin_of, values)))
)
pairs_of_blocks = st.lists(st.tuples(blocks, blocks), min_size=FEWEST_PAIRS, max_size=20)


def histogram_of(values: list[float]) -> Histogram:
    return histogram_from_counts(Counter(bin_of(value) for value in values))


def shifted(histogram: Histogram, bins: int) -> Histogram:
    return Histogram(tuple((number + bins, count) for number, count in histogram.bins))


def drawn_pairs(seed: int, ratio: float, *, pairs: int = 20, requests: int = 10, mood: float = 0.3):
    """Blocks with a mood of their own that both sides of a pair share, and each side's own small one."""
    chance = np.random.default_rng(seed)
    for _ in range(pairs):
        shared = chance.normal(0, mood)
        stable, candidate = (
            0.01 * np.exp(shared + chance.normal(0, 0.05) + chance.normal(0, 0.3, requests)) for _ in range(2)
        )
        yield histogram_of(stable.tolist()), histogram_of((ratio * candidate).tolist())


@given(pairs_of_blocks, st.integers(0, 2**32))
def test_the_figures_are_those_of_all_blocks_together_and_the_interval_has_two_ends(pairs, seed: int) -> None:
    ratio = quantile_ratio(pairs, 0.5, 0.95, seed)
    if ratio is None:
        assert min(merged(pair[side] for pair in pairs).count for side in (0, 1)) < requests_for(0.5)
        return
    assert ratio.stable == merged(pair[0] for pair in pairs).quantile(0.5)
    assert ratio.candidate == merged(pair[1] for pair in pairs).quantile(0.5)
    assert 0 < ratio.low < ratio.high


@given(pairs_of_blocks, st.integers(-50, 50))
def test_a_candidate_that_is_slower_by_a_factor_in_every_request_moves_the_interval_by_it(pairs, bins: int) -> None:
    same = [(stable, stable) for stable, _ in pairs]
    slower = [(stable, shifted(stable, bins)) for stable, _ in pairs]
    of_same, of_slower = (quantile_ratio(p, 0.5, 0.95, 0) for p in (same, slower))
    if of_same is None or of_slower is None:
        assert of_same is of_slower
        return
    assert of_slower.low == pytest.approx(of_same.low * BASE**bins)
    assert of_slower.high == pytest.approx(of_same.high * BASE**bins)
    # Equal blocks differ by nothing but the width of a bin, however they are drawn.
    assert (of_same.low, of_same.high) == pytest.approx((1 / BASE, BASE))


@given(pairs_of_blocks, st.integers(0, 2**32))
def test_more_confidence_never_narrows_the_interval(pairs, seed: int) -> None:
    less, more = (quantile_ratio(pairs, 0.5, confidence, seed) for confidence in (0.8, 0.98))
    if less is not None and more is not None:
        assert more.low <= less.low
        assert less.high <= more.high


@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says(ratio: float) -> None:
    found = [quantile_ratio(list(drawn_pairs(seed, ratio)), 0.5, 0.95, seed) for seed in range(300)]
    held = sum(one is not None and one.low <= ratio <= one.high for one in found)
    # 285 of 300 would be 95 %; 275 is what 95 % gives at least 99.5 times in 100.
    assert held >= 275


def test_what_hits_both_sides_of_a_pair_cancels() -> None:
    widths = []
    for mood in (0.0, 1.0):
        ratio = quantile_ratio(list(drawn_pairs(1, 1.0, mood=mood, requests=40)), 0.5, 0.95, 1)
        assert ratio is not None
        widths.append(np.log(ratio.high / ratio.low))
    assert widths[1] < 4 * widths[0]  # moods of e**±1 would alone be worth far more


def test_too_few_pairs_or_requests_claim_nothing() -> None:
    block = histogram_of([0.01] * 10)
    assert quantile_ratio([(block, block)] * (FEWEST_PAIRS - 1), 0.5, 0.95, 0) is None
    assert quantile_ratio([(block, block)] * FEWEST_PAIRS, 0.5, 0.95, 0) is not None
    assert (requests_for(0.5), requests_for(0.9), requests_for(0.99)) == (10, 50, 500)
    assert quantile_ratio([(block, block)] * 49, 0.99, 0.95, 0) is None
    assert quantile_ratio([(block, block)] * 50, 0.99, 0.95, 0) is not None


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=FEWEST_PAIRS, max_size=20))
def test_a_rate_is_answers_over_seconds(counts) -> None:
    pairs = [((stable, 0.5), (candidate, 0.5)) for stable, candidate in counts]
    ratio = rate_ratio(pairs, 0.95, 0)
    assert ratio is not None
    assert ratio.stable == pytest.approx(2 * np.mean([stable for stable, _ in counts]))
    assert ratio.low <= ratio.high
    assert min(c / s for s, c in counts) <= ratio.high
    assert ratio.low <= max(c / s for s, c in counts)


def test_a_side_that_answered_nothing_has_no_rate() -> None:
    assert rate_ratio([((10, 0.5), (0, 0.5))] * FEWEST_PAIRS, 0.95, 0) is None
    assert rate_ratio([((10, 0.5), (10, 0.5))] * (FEWEST_PAIRS - 1), 0.95, 0) is None


def test_a_limit_is_judged_by_the_whole_interval() -> None:
    ratio = Ratio(1.0, 1.2, low=1.1, high=1.3)
    assert [at_most(ratio, limit) for limit in (1.3, 1.2, 1.1, 1.0)] == [
        Standing.WITHIN, Standing.OPEN, Standing.OPEN, Standing.BEYOND,
    ]  # fmt: skip
    assert [at_least(ratio, limit) for limit in (1.0, 1.1, 1.2, 1.4)] == [
        Standing.WITHIN, Standing.WITHIN, Standing.OPEN, Standing.BEYOND,
    ]  # fmt: skip
