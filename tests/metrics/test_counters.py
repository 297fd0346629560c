"""Readings of counters cut into intervals: nothing counted twice, nothing below zero, whatever happens in between."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.evidence import IntervalReport
from graylift.domain.sources import PrometheusHistogram, WantedArm, WantedMetric
from graylift.domain.tally import Tally, tallied
from graylift.domain.weights import Role
from graylift.metrics.counters import FEWEST_PATIENCE_S, Cutter, Reading, Series

LENGTH_S = 30.0


def wanted(since_s: float = 0.0, length_s: float = LENGTH_S) -> WantedMetric:
    origin = PrometheusHistogram("http://p", "h", 0.5, (("v", "{revision}"),), length_s)
    arms = (WantedArm(Role.CANDIDATE, "s.v2.0", "v2"), WantedArm(Role.STABLE, "s.v1.0", "v1"))
    return WantedMetric("s", "queue", origin, "s-1/0", since_s, arms)


@dataclass(frozen=True)
class Life:
    """One process that counts: (epoch second, was it bad?) of its events, and when it is read."""

    events: tuple[tuple[float, bool], ...]
    reads: tuple[float, ...]
    born_s: float = 0.0

    def readings(self) -> list[Reading]:
        return [Reading(at, self.counted(at)) for at in self.reads]

    def counted(self, at_s: float) -> Tally:
        happened = [bad for moment, bad in self.events if self.born_s <= moment <= at_s]
        return Tally(sum(happened), len(happened))


def series_of(*lives: tuple[str, Life]) -> Series:
    series = Series()
    for name, life in lives:
        for reading in life.readings():
            series.add(name, reading)
    return series


def summed(reports: list[IntervalReport], role: Role) -> Tally:
    return tallied(window.external[0][1] for r in reports for window in r.windows if window.arm is role)


MOMENTS = st.floats(0.5, 599.5, allow_nan=False).map(lambda value: round(value, 2))
EVENTS = st.lists(st.tuples(MOMENTS, st.booleans()), max_size=60).map(tuple)
# Every series is read at least once in each interval, at moments of its own.
READS = st.lists(st.floats(0.01, 29.99), min_size=20, max_size=20).map(
    lambda offsets: tuple(round(30 * number + offset, 2) for number, offset in enumerate(offsets))
)


@given(st.data())
def test_the_same_readings_give_the_same_windows_in_whatever_portions_they_come(data: st.DataObject) -> None:
    lives = {role: Life(data.draw(EVENTS), data.draw(READS)) for role in Role}
    every = [(role, reading) for role, life in lives.items() for reading in life.readings()]
    once = Cutter(wanted())
    at_once = once.cut({role: series_of(("", life)) for role, life in lives.items()}, 600.0)

    chance = data.draw(st.randoms(use_true_random=False))
    arms = {role: Series() for role in lives}
    bit_by_bit = Cutter(wanted())
    reports: list[IntervalReport] = []
    for now in sorted({at for life in lives.values() for at in life.reads if chance.random() < 0.5} | {600.0}):
        portion = [(role, reading) for role, reading in every if reading.at_s <= now]
        chance.shuffle(portion)
        for role, reading in (*portion, *portion[: chance.randint(0, 5)]):
            arms[role].add("", reading)
        reports += bit_by_bit.cut(arms, now)
    assert tuple(reports) == at_once
    assert not any(report.gap for report in reports)


@given(st.data())
def test_every_event_between_the_first_and_the_last_reading_is_counted_once(data: st.DataObject) -> None:
    life = Life(data.draw(EVENTS), data.draw(READS))
    reports = list(Cutter(wanted()).cut({role: series_of(("", life)) for role in Role}, 600.0))
    last = max(at for at in life.reads if at <= reports[-1].start_s + LENGTH_S)
    between = life.counted(last).since(life.counted(life.reads[0]))
    assert summed(reports, Role.CANDIDATE) == between


@given(st.data(), st.integers(1, 18))
def test_a_restart_of_the_reader_loses_and_doubles_nothing(data: st.DataObject, stored: int) -> None:
    arms = {role: series_of(("", Life(data.draw(EVENTS), data.draw(READS)))) for role in Role}
    whole = Cutter(wanted()).cut(arms, 600.0)
    first = whole[: min(stored, len(whole))]
    second = Cutter(wanted())
    second.begin(first[-1].sequence)
    assert first + second.cut(arms, 600.0) == whole


@given(st.data())
def test_a_counter_that_begins_anew_is_never_counted_negative_or_twice(data: st.DataObject) -> None:
    events, reads = data.draw(EVENTS), data.draw(READS)
    reborn = sorted(data.draw(st.lists(MOMENTS, max_size=4, unique=True)))
    series = Series()
    for at in reads:
        born = max((moment for moment in reborn if moment <= at), default=0.0)
        series.add("", Reading(at, Life(events, (), born).counted(at)))
    reports = list(Cutter(wanted()).cut(dict.fromkeys(Role, series), 600.0))
    counted = summed(reports, Role.STABLE)
    happened = Life(events, ()).counted(600.0)
    assert 0 <= counted.bad <= happened.bad
    assert 0 <= counted.total - counted.bad <= happened.total - happened.bad


def test_a_reset_is_a_gap_of_its_interval_alone_and_says_so() -> None:
    steady = Life(tuple((float(second), False) for second in range(300)), tuple(range(5, 300, 10)))
    series = Series()
    for at in range(5, 300, 10):
        counted = at if at < 100 else at - 100
        series.add("instance=a", Reading(float(at), Tally(0, counted)))
    reports = Cutter(wanted()).cut({Role.STABLE: series_of(("", steady)), Role.CANDIDATE: series}, 300.0)
    assert [report.gap is None for report in reports] == [True, True, True, False, True, True, True, True, True]
    assert "began anew" in str(reports[3].gap)
    assert "candidate" in str(reports[3].gap)


def test_a_beginning_that_moves_is_a_reset_even_if_counts_rise() -> None:
    series = Series()
    for at, count, started in ((10.0, 1, 1.0), (25.0, 2, 1.0), (40.0, 50, 35.0), (55.0, 60, 35.0), (70.0, 60, 35.0)):
        series.add("", Reading(at, Tally(0, count), started))
    reports = Cutter(wanted()).cut(dict.fromkeys(Role, series), 70.0)
    assert [report.gap is None for report in reports] == [True, False]


def test_a_series_that_is_late_is_waited_for_and_then_missed() -> None:
    on_time = Life((), tuple(range(5, 400, 10)))
    late = Life((), tuple(range(5, 60, 10)))
    arms = {Role.STABLE: series_of(("", on_time)), Role.CANDIDATE: series_of(("instance=a", late))}
    cutter = Cutter(wanted())
    assert [report.gap for report in cutter.cut(arms, 62.0)] == [None]
    assert cutter.cut(arms, 60.0 + cutter.patience_s - 1) == ()
    (second,) = cutter.cut(arms, 60.0 + cutter.patience_s)
    assert second.gap is None  # it was read to 55 s, and so in the interval that ends at 60 s
    (missed,) = cutter.cut(arms, 90.0 + cutter.patience_s)
    assert missed.windows == ()
    assert "instance=a was not read in it" in str(missed.gap)


def test_an_arm_of_which_nothing_is_read_is_a_gap_and_no_evidence() -> None:
    reads = Life((), tuple(range(5, 100, 10)))
    arms = {Role.STABLE: series_of(("", reads)), Role.CANDIDATE: Series()}
    cutter = Cutter(wanted())
    assert cutter.cut(arms, 30.0 + cutter.patience_s - 1) == ()
    (report,) = cutter.cut(arms, 30.0 + cutter.patience_s)
    assert (report.windows, report.gap) == ((), "queue of candidate: nothing was read in it")


def test_nothing_is_cut_before_the_split_was_in_force() -> None:
    life = Life((), tuple(range(5, 300, 10)))
    cutter = Cutter(wanted(since_s=100.0))
    cutter.begin(None)
    reports = cutter.cut({role: series_of(("", life)) for role in Role}, 300.0)
    assert reports[0].start_s == 120.0
    assert all(report.table_version is None for report in reports)
    assert {window.split for report in reports for window in report.windows} == {"s-1/0"}


def test_patience_is_two_intervals_and_never_short() -> None:
    assert Cutter(wanted(length_s=5.0)).patience_s == FEWEST_PATIENCE_S
    assert Cutter(wanted(length_s=60.0)).patience_s == 120.0


@pytest.mark.parametrize(("bad", "total"), [(-1, 3), (4, 3), (0, -1)])
def test_a_tally_that_cannot_be_is_refused(bad: int, total: int) -> None:
    with pytest.raises(ValueError, match="bad ones"):
        Tally(bad, total)


def test_readings_are_forgotten_but_for_the_one_that_differences_need() -> None:
    series = series_of(("a", Life((), tuple(range(5, 100, 10)))), ("b", Life((), (5.0,))))
    series.forget(60.0)
    assert series.read_until_s(0.0) == 95.0  # the one that ended is not waited for any more
    rest = Cutter(wanted())
    rest.begin(60_000)
    assert rest.cut(dict.fromkeys(Role, series), 95.0)[0].gap is None
