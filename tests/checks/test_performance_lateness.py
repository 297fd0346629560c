"""What a load generator that was itself late leaves of a measurement."""

from __future__ import annotations

from collections import Counter

from graylift.bench.report import LoadReport, RevisionReport
from graylift.checks.performance import Measured, why_late
from graylift.checks.ratios import FEWEST_PAIRS
from graylift.domain.histogram import bin_of, histogram_from_counts


def a_report(lag_s: float, latency_s: float = 0.01) -> LoadReport:
    latency = histogram_from_counts(Counter({bin_of(latency_s): 4}))
    return LoadReport(
        rate_per_s=40.0, elapsed_s=0.1, scheduled=4, shed=0, abandoned=0, not_due=0, errors=(),
        revisions=(RevisionReport("v1", ((200, 4),), latency, 0, 0.0),),
        lag=histogram_from_counts(Counter({bin_of(lag_s): 4})),
    )  # fmt: skip


PROMPT, STALLED = a_report(0.001), a_report(0.2)


def test_pairs_in_which_the_generator_stalled_are_left_out_and_the_others_count() -> None:
    measured = Measured([(PROMPT, PROMPT)] * FEWEST_PAIRS + [(PROMPT, STALLED), (STALLED, PROMPT)])
    assert measured.timely == [(PROMPT, PROMPT)] * FEWEST_PAIRS
    assert why_late(measured, "v1") is None


def test_too_few_pairs_without_a_stall_tell_nothing() -> None:
    measured = Measured([(PROMPT, PROMPT)] * (FEWEST_PAIRS - 1) + [(STALLED, PROMPT)] * 5)
    why = why_late(measured, "v1")
    assert why is not None
    assert f"stalled for more than 50 ms in 5 of {FEWEST_PAIRS + 4} pairs" in why


def test_a_delay_that_may_be_half_of_the_latency_tells_nothing() -> None:
    late = a_report(0.006)
    why = why_late(Measured([(late, late)] * FEWEST_PAIRS), "v1")
    assert why is not None
    assert "late by 5.9" in why or "late by 6" in why
