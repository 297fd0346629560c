"""Quantities as people write them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.spec import Margin, MarginKind
from graylift.spec.units import margin_from_text, rate_from_text, seconds_from_text, share_from_text


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 99_999), st.integers(0, 99_999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int, millis: int) -> None:
    parts = [(hours, "h"), (minutes, "m"), (seconds, "s"), (millis, "ms")]
    text = "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"
    assert round(seconds_from_text(text) * 1000) == ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis


@given(st.decimals(0, 100, places=4))
def test_a_percentage_is_read_back_exactly(percent: Decimal) -> None:
    share = share_from_text(f"{percent}%")
    assert round(Decimal(share) * 100, 4) == percent


@given(st.decimals(Decimal("1.0001"), 1000, places=4))
def test_a_ratio_is_read_back_exactly(ratio: Decimal) -> None:
    margin = margin_from_text(f"{ratio}x")
    assert margin.kind is MarginKind.RATIO
    assert round(Decimal(margin.value), 4) == ratio


@given(st.decimals(Decimal("0.0001"), 100, places=4))
def test_percentage_points_are_read_back_exactly(points: Decimal) -> None:
    margin = margin_from_text(f"{points}pp")
    assert margin.kind is MarginKind.POINTS
    assert round(Decimal(margin.value) * 100, 4) == points


@given(st.text(max_size=12), st.sampled_from([seconds_from_text, share_from_text, margin_from_text, rate_from_text]))
def test_any_other_text_is_refused_with_a_cure(text: str, convert: Callable[[str], object]) -> None:
    try:
        convert(text)
    except ValueError as exc:
        refused_with = str(exc)
    else:
        refused_with = "write "
    assert refused_with.startswith("write ")


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("10s", 10.0), ("10m", 600.0), ("1h", 3600.0), ("1h30m", 5400.0)]
)
def test_durations_read_as_people_mean_them(text: str, seconds: float) -> None:
    assert seconds_from_text(text) == seconds


def test_margins_read_as_people_mean_them() -> None:
    assert margin_from_text("1.10x") == margin_from_text("1.1x") == Margin(MarginKind.RATIO, 1.1)
    assert margin_from_text("0.5pp") == Margin(MarginKind.POINTS, 0.005)
    assert share_from_text("1%") == 0.01
    assert (rate_from_text("50/s"), rate_from_text("30/m"), rate_from_text("0.25/s")) == (50.0, 0.5, 0.25)


@pytest.mark.parametrize("text", ["", "10", "1:30", "-1s", "1m1h", "1.5h", "1d", "10 s", "١s", "s", "9999999h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write whole numbers with a unit"):
        seconds_from_text(text)


@pytest.mark.parametrize("text", ["1x", "0.9x", "0pp", "101pp", "10%", "1.1", "x", "01.1x", "nanx", "1e3x", "1.1X"])
def test_what_is_no_margin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        margin_from_text(text)
