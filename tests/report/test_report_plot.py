"""Series and plots: merged exactly, drawn inside their frame, with round ticks."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from report_stories import BEGAN_S, Story

from graylift.domain.evidence import IntervalReport, Window
from graylift.domain.histogram import histogram_from_counts, merged
from graylift.domain.weights import Role
from graylift.report.plot import HEIGHT, WIDTH, Line, Mark, Plot, linear_ticks, log_ticks, svg_from, time_ticks
from graylift.report.series import (
    LEAST_REQUESTS,
    MOST_POINTS,
    Point,
    series_from,
    thickened,
    totals_from,
    windows_of,
)
from graylift.report.words import latency, span

values = st.floats(1e-9, 1e9)


@given(values)
def test_linear_ticks_reach_from_zero_to_the_largest_value(top: float) -> None:
    ticks = linear_ticks(top)
    assert ticks[0] == 0
    assert ticks[-1] >= top * (1 - 1e-6)
    assert 2 <= len(ticks) <= 7


@given(st.lists(values, min_size=1, max_size=5))
def test_log_ticks_enclose_the_values(numbers: list[float]) -> None:
    ticks = log_ticks(numbers)
    assert ticks == sorted(ticks)
    assert len(ticks) >= 2
    assert ticks[0] <= min(numbers) * (1 + 1e-6)
    assert ticks[-1] >= max(numbers) * (1 - 1e-6)


@given(st.floats(1e9, 2e9), st.floats(0, 1e9))
def test_time_ticks_are_few_and_inside(start: float, length: float) -> None:
    ticks = time_ticks(start, start + length)
    assert len(ticks) <= 9
    assert all(start <= at_s <= start + length for at_s, _ in ticks)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=30), st.booleans())
@example([5e-324], False)
@example([0.0, 5e-324, 1.0], True)
def test_a_line_never_leaves_the_picture(heights: list[float | None], logarithmic: bool) -> None:
    points = tuple((float(i), height) for i, height in enumerate(heights))
    marks = tuple(Mark(float(i), "stage", "a mark") for i in range(40))
    svg = fromstring(svg_from(Plot("t", (Line("candidate", points),), marks, 0.0, 29.0, str, logarithmic=logarithmic)))
    for path in svg.findall("path"):
        for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path.get("d", "")):
            assert 0 <= float(x) <= WIDTH
            assert 0 <= float(y) <= HEIGHT


@given(st.integers(0, 100))
def test_the_labels_of_two_marks_never_touch(second: int) -> None:
    marks = (Mark(80.0, "stage", "100 %"), Mark(float(second), "good", "PROMOTED"))
    svg = fromstring(svg_from(Plot("t", (), marks, 0.0, 100.0, str)))
    drawn = [text for text in svg.findall("text") if "mark" in text.get("class", "")]
    places: list[tuple[float, float]] = []
    for text in drawn:
        x, wide = float(text.get("x", "")), sum(8.5 if letter.isupper() else 7.0 for letter in text.text or "")
        places.append((x - wide, x) if text.get("text-anchor") == "end" else (x, x + wide))
    assert drawn
    for (_, end), (begin, _) in pairwise(sorted(places)):
        assert begin >= end


def test_a_gap_breaks_the_line() -> None:
    line = Line("candidate", ((0.0, 1.0), (1.0, 1.0), (2.0, None), (3.0, 1.0), (4.0, 1.0)))
    path = fromstring(svg_from(Plot("t", (line,), (), 0.0, 4.0, str))).find("path")
    assert path is not None
    assert path.get("d", "").count("M") == 2


def window_of(number: int) -> Window:
    latencies = histogram_from_counts(Counter({number % 50: 3}))
    return Window("file-type", "s", Role.STABLE, "", None, 4, 1, latency=latencies, reasons=(("HTTP 500", 1),))


@pytest.mark.parametrize("seconds", [1, 7, 199, 200, 201, 1000, 3601])
def test_merging_into_few_points_loses_nothing(promoted: Story, seconds: int) -> None:
    release = replace(promoted.release, stable=None)
    reports = [
        IntervalReport(gateway, second, BEGAN_S + second, 1.0, 1, (window_of(second),))
        for second in range(seconds)
        for gateway in ("g1", "g2")
    ]
    points = series_from(release, Role.STABLE, reports)
    assert len(points) <= MOST_POINTS
    assert sum(point.totals.requests for point in points if point.totals) == seconds * 8
    whole = merged(window.latency for window in windows_of(release, Role.STABLE, reports))
    assert whole.count == seconds * 6


@given(st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=40), st.lists(st.integers(0, 40), max_size=4))
def test_thick_points_hold_the_same_requests_and_never_cross_a_border(
    requests: list[int | None], borders: list[int]
) -> None:
    fine = [
        Point(float(second), 1.0, None if number is None else totals_from([replace(window_of(1), requests=number)]))
        for second, number in enumerate(requests)
    ]
    thick = thickened(fine, sorted(float(border) for border in borders))
    assert sum(point.length_s for point in thick) == len(fine)
    assert sum(point.totals.requests for point in thick if point.totals) == sum(filter(None, requests))
    for point in thick:
        assert not any(point.start_s < border < point.start_s + point.length_s for border in borders)
    for one, next_one in pairwise(thick):
        if one.totals and next_one.totals and one.totals.requests < LEAST_REQUESTS:
            assert next_one.start_s in borders, "a thin point stands only where a stage had no more"


def test_an_arm_without_requests_differs_from_a_gateway_that_was_away(promoted: Story) -> None:
    release = replace(promoted.release, stable=None)
    reports = [
        IntervalReport("g1", 1, BEGAN_S, 1.0, 1, (window_of(1),)),
        IntervalReport("g1", 2, BEGAN_S + 1, 3.0, 1, ()),
        IntervalReport("g1", 3, BEGAN_S + 6, 1.0, 1, (window_of(1),)),
    ]
    assert [point.rate for point in series_from(release, Role.STABLE, reports)] == [4, 0, 0, 0, None, None, 4]


def test_times_and_lengths_read_well() -> None:
    assert [span(s) for s in (0.4, 42, 60, 3660, 90_000, 7_200)] == [
        "0.4 s",
        "42 s",
        "1 min",
        "1 h 1 min",
        "1 d 1 h",
        "2 h",
    ]
    assert [latency(s) for s in (0.000213, 0.0124, 0.5, 1.534, None)] == [
        "0.213 ms",
        "12.4 ms",
        "500 ms",
        "1.53 s",
        "–",
    ]
