from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.bench.report import LAG_LIMIT_S, LoadReport
from graylift.bench.schedule import LARGEST_SCHEDULE, Arrivals, due_times
from graylift.domain.histogram import EMPTY, Histogram, bin_of

rates = st.floats(0.1, 500)
durations = st.floats(0.01, 20)


@given(rates, durations, st.sampled_from(Arrivals), st.integers(0, 2**32))
def test_due_times_ascend_within_the_duration_and_repeat_for_one_seed(
    rate: float, duration: float, arrivals: Arrivals, seed: int
) -> None:
    due = due_times(rate, duration, arrivals, seed)
    assert np.all(np.diff(due) >= 0)
    assert np.all((due >= 0) & (due < duration))
    assert np.array_equal(due, due_times(rate, duration, arrivals, seed))


@given(rates, durations)
def test_constant_arrivals_have_equal_gaps(rate: float, duration: float) -> None:
    due = due_times(rate, duration, Arrivals.CONSTANT, 0)
    assert due[0] == 0
    assert np.allclose(np.diff(due), 1 / rate)


def test_poisson_gaps_vary_as_much_as_they_last() -> None:
    gaps = np.diff(due_times(100, 500, Arrivals.POISSON, seed=1))
    assert np.mean(gaps) == pytest.approx(0.01, rel=0.03)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize(
    ("rate", "duration"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1), (1, float("inf")), (LARGEST_SCHEDULE, 2)]
)
def test_a_load_without_end_or_without_requests_is_refused(rate: float, duration: float) -> None:
    with pytest.raises(ValueError, match="a load needs"):
        due_times(rate, duration, Arrivals.POISSON, 0)


@pytest.mark.parametrize(
    ("lag", "believed"),
    [(EMPTY, True), (Histogram(((bin_of(0.001), 99),)), True), (Histogram(((bin_of(2 * LAG_LIMIT_S), 5),)), False)],
)
def test_a_generator_that_was_late_says_so(lag: Histogram, believed: bool) -> None:
    report = LoadReport(1.0, 1.0, lag.count, 0, 0, 0, (), (), lag)
    assert report.on_schedule is believed
