"""Records become windows that add up, in intervals that lose and double nothing."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.evidence import AttemptRecord, Outcome, RequestRecord, ScoreRecord, Window
from graylift.domain.scores import STEPS, step_of
from graylift.domain.weights import Role
from graylift.metrics.intervals import Interval, Intervals, recut
from graylift.metrics.reports import Gap, InForce, reports
from graylift.metrics.windows import UNEXPLAINED, WindowSums, explained, summed

seconds = st.floats(min_value=0, max_value=100, allow_nan=False)


@st.composite
def request_records(draw: st.DrawFn) -> RequestRecord:
    outcome = draw(st.sampled_from(Outcome))
    retried = draw(st.booleans())
    failed = outcome is Outcome.FAILED
    return RequestRecord(
        ended_s=draw(st.floats(min_value=1000, max_value=1010)),
        service=draw(st.sampled_from(["a", "b"])),
        split=draw(st.sampled_from(["a-1/0", "a-1/1"])),
        arm=draw(st.sampled_from(Role)),
        revision_id=draw(st.sampled_from(["a.v1.0", "a.v2.0"])),
        answered_by="a.v1.0",
        label=draw(st.sampled_from([None, "x-tenant=internal"])),
        attempts=2 if retried else 1,
        status=500 if failed and not retried else 200,
        outcome=outcome,
        reason="HTTP 500" if failed and not retried else None,
        ttfb_s=draw(st.none() | seconds),
        duration_s=draw(seconds),
        request_bytes=draw(st.integers(0, 1000)),
        response_bytes=draw(st.integers(0, 1000)),
        ttft_s=draw(st.none() | seconds),
        tpot_s=draw(st.none() | seconds),
        input_tokens=draw(st.none() | st.integers(0, 1000)),
        output_tokens=draw(st.none() | st.integers(0, 1000)),
    )


score_records = st.builds(
    ScoreRecord,
    ended_s=st.floats(min_value=1000, max_value=1010),
    service=st.sampled_from(["a", "b"]),
    split=st.just("a-1/0"),
    arm=st.sampled_from(Role),
    revision_id=st.sampled_from(["a.v1.0", "a.v2.0"]),
    label=st.none(),
    name=st.sampled_from(["helpful", "valid-json"]),
    value=st.floats(min_value=0, max_value=1),
)
attempt_records = st.builds(
    AttemptRecord,
    ended_s=st.floats(min_value=1000, max_value=1010),
    revision_id=st.sampled_from(["a.v1.0", "a.v2.0"]),
    status=st.just(500),
    reason=st.sampled_from(["HTTP 500", "connection reset"]),
)
records = st.lists(request_records() | score_records | attempt_records, max_size=60)


def windows_of(batch: list[RequestRecord | ScoreRecord | AttemptRecord]) -> tuple[Window, ...]:
    sums = WindowSums()
    for record in batch:
        sums.add(record)
    return sums.windows()


def record(**changes: object) -> RequestRecord:
    values: dict[str, object] = {
        "ended_s": 1000.5,
        "service": "a",
        "split": "a-1/0",
        "arm": Role.STABLE,
        "revision_id": "a.v1.0",
        "answered_by": "a.v1.0",
        "label": None,
        "attempts": 1,
        "status": 200,
        "outcome": Outcome.OK,
        "reason": None,
        "ttfb_s": 0.001,
        "duration_s": 0.002,
        "request_bytes": 10,
        "response_bytes": 20,
    }
    return RequestRecord(**(values | changes))  # type: ignore[arg-type]


@given(records, st.integers(0, 60))
def test_any_batching_of_the_records_gives_the_same_windows(
    batch: list[RequestRecord | ScoreRecord | AttemptRecord], cut: int
) -> None:
    halves = windows_of(batch[:cut]) + windows_of(batch[cut:])
    assert summed(halves) == windows_of(batch)
    assert summed(reversed(halves)) == windows_of(batch)


@given(records)
def test_each_request_is_counted_once_under_its_outcome(
    batch: list[RequestRecord | ScoreRecord | AttemptRecord],
) -> None:
    windows = windows_of(batch)
    outcomes = Counter(one.outcome for one in batch if isinstance(one, RequestRecord))
    assert sum(w.requests for w in windows) == outcomes[Outcome.OK] + outcomes[Outcome.FAILED]
    assert sum(w.failed for w in windows) == outcomes[Outcome.FAILED]
    assert sum(w.abandoned for w in windows) == outcomes[Outcome.ABANDONED]
    assert sum(w.latency.count for w in windows) == outcomes[Outcome.OK]
    assert all(w.unanswered <= w.failed <= w.requests for w in windows)
    scores = Counter(one.name for one in batch if isinstance(one, ScoreRecord))
    assert sum((Counter({name: found.count}) for w in windows for name, found in w.scores), Counter()) == scores


@given(records)
def test_every_failure_of_a_closed_interval_has_one_reason(
    batch: list[RequestRecord | ScoreRecord | AttemptRecord],
) -> None:
    sums = WindowSums()
    for one in batch:
        sums.add(one)
    for window in explained(sums.windows(), sums.attempts):
        assert sum(count for _, count in window.reasons) == window.failed


def test_streams_are_timed_and_their_tokens_summed_where_the_answer_is_whole() -> None:
    whole = record(ttft_s=0.25, tpot_s=0.02, input_tokens=7, output_tokens=11)
    alone = record(ttft_s=0.3, input_tokens=5, output_tokens=1)
    broken = record(outcome=Outcome.FAILED, reason="stream broke", ttft_s=0.2, tpot_s=0.1, output_tokens=3)
    (window,) = windows_of([whole, alone, broken])
    assert (window.ttft.count, window.tpot.count) == (2, 1)
    assert window.ttft.quantile(0.5) == pytest.approx(0.25, rel=0.01)
    assert window.tpot.quantile(0.5) == pytest.approx(0.02, rel=0.01)
    assert (window.input_tokens, window.output_tokens) == (12, 12)


@pytest.mark.parametrize("impossible", [{"ttft_s": -0.1}, {"tpot_s": math.nan}, {"ttfb_s": -1.0}])
def test_a_record_with_one_impossible_number_counts_nowhere(impossible: dict[str, float]) -> None:
    sums = WindowSums()
    with pytest.raises(ValueError, match="a duration is a number of seconds from 0 on"):
        sums.add(record(**impossible))
    sums.add(record())
    assert sums.windows() == windows_of([record()])


def score(value: float, name: str = "helpful") -> ScoreRecord:
    return ScoreRecord(1000.5, "a", "a-1/0", Role.STABLE, "a.v1.0", None, name, value)


def test_scores_are_counted_by_name_to_a_thousandth_beside_the_requests() -> None:
    (window,) = windows_of([record(), score(0.25), score(0.7504), score(1.0, "valid-json")])
    assert window.requests == 1
    helpful, valid = window.scores
    assert helpful[0] == "helpful"
    assert helpful[1].steps == ((250, 1), (750, 1))
    assert helpful[1].mean == 0.5
    assert (valid[0], valid[1].mean) == ("valid-json", 1.0)


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_what_is_no_score_is_refused_and_counts_nowhere(value: float) -> None:
    sums = WindowSums()
    with pytest.raises(ValueError, match="a score is a number from 0 to 1"):
        sums.add(score(value))
    assert all(not window.scores for window in sums.windows())


@given(st.floats(min_value=0, max_value=1))
def test_a_score_is_counted_at_most_half_a_step_from_where_it_is(value: float) -> None:
    assert abs(step_of(value) / STEPS - value) <= 0.5 / STEPS + 1e-12


def test_a_failure_hidden_by_a_retry_takes_its_reason_from_the_attempt() -> None:
    hidden = record(outcome=Outcome.FAILED, attempts=2, revision_id="a.v2.0", arm=Role.CANDIDATE)
    visible = record(outcome=Outcome.FAILED, status=503, reason="HTTP 503", revision_id="a.v2.0", arm=Role.CANDIDATE)
    sums = WindowSums()
    for one in (
        AttemptRecord(1000.4, "a.v2.0", 503, "HTTP 503"),
        AttemptRecord(1000.4, "a.v2.0", 0, "connection reset"),
        hidden,
        visible,
    ):
        sums.add(one)
    (window,) = explained(sums.windows(), sums.attempts)
    assert window.reasons == (("HTTP 503", 1), ("connection reset", 1))
    assert (window.failed, window.unanswered) == (2, 1)


def test_a_hidden_failure_without_an_attempt_line_says_so() -> None:
    (window,) = explained(windows_of([record(outcome=Outcome.FAILED, attempts=2)]), Counter())
    assert window.reasons == ((UNEXPLAINED, 1),)


@given(
    st.lists(
        st.tuples(request_records(), st.none() | st.floats(min_value=1000, max_value=1012)),
        max_size=60,
    )
)
def test_no_order_of_records_and_closings_loses_or_doubles_a_request(
    steps: list[tuple[RequestRecord, float | None]],
) -> None:
    intervals = Intervals(1.0, first=1000)
    closed: list[Interval] = []
    for one, now in steps:
        intervals.add(one)
        if now is not None:
            closed += intervals.close(now)
    closed += intervals.close(2000.0)
    numbers = [interval.number for interval in closed]
    assert numbers == sorted(set(numbers))
    counted = sum(w.requests + w.abandoned for interval in closed for w in interval.windows)
    assert counted == len(steps)


@given(records, st.integers(0, 60), st.floats(min_value=1000, max_value=1012))
def test_open_intervals_that_are_kept_and_given_back_change_nothing(
    batch: list[RequestRecord | ScoreRecord | AttemptRecord], cut: int, now: float
) -> None:
    through = Intervals(1.0, first=1000)
    for one in batch[:cut]:
        through.add(one)
    through.add_unreadable(3)
    early = through.close(now)
    restarted = Intervals(1.0, first=through.first, kept=through.open_intervals())
    for one in batch[cut:]:
        through.add(one)
        restarted.add(one)
    assert early + through.close(2000.0) == early + restarted.close(2000.0)


def test_an_attempt_explains_a_failure_that_ends_in_the_next_interval_but_no_later_one() -> None:
    intervals = Intervals(1.0, first=1000)
    intervals.add(AttemptRecord(1000.99, "a.v1.0", 500, "HTTP 500"))
    intervals.add(AttemptRecord(1000.99, "a.v1.0", 500, "HTTP 500"))
    intervals.add(record(ended_s=1001.01, outcome=Outcome.FAILED, attempts=2))
    intervals.add(record(ended_s=1002.01, outcome=Outcome.FAILED, attempts=2))
    closed = intervals.close(1010.0)
    assert [window.reasons for interval in closed for window in interval.windows] == [
        (("HTTP 500", 1),),
        ((UNEXPLAINED, 1),),
    ]


@given(
    st.lists(request_records(), max_size=20),
    st.floats(min_value=1000, max_value=1012),
    st.sampled_from([0.1, 0.25, 0.3, 1.0, 2.0]),
    st.sampled_from([0.1, 0.25, 0.3, 1.0, 2.0]),
)
def test_intervals_may_change_their_length_without_losing_a_request_or_reporting_a_time_twice(
    batch: list[RequestRecord], now: float, length_s: float, new_length_s: float
) -> None:
    before = Intervals(length_s, first=math.floor(1000 / length_s))
    for one in batch:
        before.add(one)
    closed = [*before.close(now)]
    first, kept = recut(before.open_intervals(), before.first, length_s, new_length_s)
    assert first * new_length_s >= before.first * length_s - 1e-6
    closed += Intervals(new_length_s, first, kept=kept).close(2000.0)
    assert sum(w.requests + w.abandoned for interval in closed for w in interval.windows) == len(batch)


def test_an_interval_is_closed_only_after_its_grace() -> None:
    intervals = Intervals(1.0, first=1000, grace_s=0.3)
    intervals.add(record(ended_s=1000.9))
    assert intervals.close(1001.2) == ()
    (interval,) = intervals.close(1001.31)
    assert interval.number == 1000
    assert intervals.first == 1001


def test_a_record_that_comes_too_late_is_counted_in_the_oldest_open_interval() -> None:
    intervals = Intervals(1.0, first=1000)
    intervals.close(1002.5)
    intervals.add(record(ended_s=1000.5))
    (interval,) = intervals.close(1010.0)
    assert (interval.number, interval.windows[0].requests) == (1002, 1)


@given(
    st.sets(st.integers(100, 160)),
    st.lists(st.tuples(seconds, st.none() | seconds), max_size=3),
    st.lists(st.integers(100, 160), max_size=3, unique=True),
)
def test_reports_cover_every_interval_once_and_carry_every_window(
    busy: set[int], gaps: list[tuple[float, float | None]], changes: list[int]
) -> None:
    filled = [Interval(number, windows_of([record()])) for number in sorted(busy)]
    bounds = [100, *sorted(changes)]
    in_force = [
        InForce(version, float(start), None if version == len(bounds) - 1 else bounds[version + 1])
        for version, start in enumerate(bounds)
    ]
    made = reports(
        gateway="g",
        sequence=7,
        numbers=range(100, 161),
        intervals=filled,
        length_s=1.0,
        in_force=in_force,
        gaps=[Gap(100 + start, "why", None if until is None else 100 + until) for start, until in gaps],
    )
    assert [one.sequence for one in made] == list(range(7, 7 + len(made)))
    assert made[0].start_s == 100
    assert all(a.start_s + a.length_s == b.start_s for a, b in pairwise(made))
    assert math.isclose(sum(one.length_s for one in made), 61)
    assert [int(one.start_s) for one in made if one.windows] == sorted(busy)
    assert all(one.length_s == 1.0 for one in made if one.windows)


def test_a_night_without_traffic_is_one_report() -> None:
    (report,) = reports(
        gateway="g",
        sequence=1,
        numbers=range(36_000),
        intervals=(),
        length_s=1.0,
        in_force=[InForce(4, 0.0)],
        gaps=(),
    )
    assert (report.length_s, report.table_version, report.gap) == (36_000.0, 4, None)


def test_an_interval_in_which_the_table_changed_or_envoy_was_away_says_so() -> None:
    made = reports(
        gateway="g",
        sequence=1,
        numbers=range(10, 14),
        intervals=(),
        length_s=1.0,
        in_force=[InForce(1, 5.0, 11.2), InForce(2, 11.21)],
        gaps=[Gap(12.5, "Envoy ended by itself", 12.9)],
    )
    assert [(one.start_s, one.table_version, one.gap) for one in made] == [
        (10.0, 1, None),
        (11.0, None, None),
        (12.0, 2, "Envoy ended by itself"),
        (13.0, 2, None),
    ]
