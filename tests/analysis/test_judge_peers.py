"""The judges that ours is measured against are fair copies: they find what they must, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from peers import Kayenta, PeekingT, Thresholds, series, shift_interval
from simulated_releases import A_MINUTE, EARLIER, NO_CHANGE, ArmCounts, Change, Release, release

LENGTH = 240
ALL_FAIL = Change(errors=1.0)


def minutes(change: Change, seed: int = 0) -> tuple[ArmCounts, ArmCounts, ArmCounts]:
    """Candidate, all of stable, and the baseline that is as large as the candidate."""
    one: Release = release(np.random.default_rng(seed), change, baseline=True, intervals=LENGTH)
    stable = ArmCounts(*(part[EARLIER:] for part in (one.stable.requests, one.stable.failed, one.stable.latency)))
    assert one.baseline is not None
    return one.candidate.minutes(), stable.minutes(), one.baseline.minutes()


def test_the_shift_between_two_samples_is_that_of_a_textbook() -> None:
    """Permeability of membranes, Hollander and Wolfe (1973), page 69: the estimate is 0.305."""
    x = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
    y = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
    lower, estimate = shift_interval(x, y)
    assert estimate == pytest.approx(0.305, abs=0.02)
    assert lower < 0 < estimate


def test_a_shift_that_is_certain_has_an_interval_above_zero() -> None:
    y = np.random.default_rng(0).normal(10, 1, 60)
    lower, estimate = shift_interval(y + 5, y)
    assert 4 < lower < estimate < 6


@pytest.mark.parametrize("critical", [False, True])
def test_kayenta_stops_a_candidate_that_fails_everything_at_its_first_look(critical: bool) -> None:
    candidate, *controls = minutes(ALL_FAIL)
    for control in controls:
        found = Kayenta(critical).first_fail(series(candidate), series(control))
        assert found == 10 * A_MINUTE - 1


def test_kayenta_lets_an_equal_candidate_pass() -> None:
    candidate, _, baseline = minutes(NO_CHANGE, seed=3)
    assert Kayenta(critical=False).first_fail(series(candidate), series(baseline)) == -1


def test_an_effect_size_that_is_not_reached_is_no_failure_to_kayenta() -> None:
    candidate, stable, _ = minutes(Change(faster_half=1.3, slower_half=1.3))
    assert Kayenta(critical=True).first_fail(series(candidate), series(stable)) >= 0
    assert Kayenta(critical=True, allowed=(9.0,) * 5).first_fail(series(candidate), series(stable)) == -1


def test_failed_checks_of_a_threshold_add_up_and_are_not_forgotten() -> None:
    seen = np.zeros((5, 9))
    seen[0, [0, 3, 8]] = 0.5
    assert Thresholds(0.01, 1.0, failures=3).first_fail(seen) == 9 * A_MINUTE - 1
    assert Thresholds(0.01, 1.0, failures=4).first_fail(seen) == -1


def test_a_test_each_minute_finds_what_is_large() -> None:
    candidate, stable, _ = minutes(Change(errors=0.3))
    assert 0 <= PeekingT().first_fail(candidate, stable) < LENGTH
