"""Profiles that are suggested take what was asked, and are fastest where most of it lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.engine.suggestion import Suggestion, counts_from_json, suggest_profiles
from graylift.spec.profiles import checked

SHAPES = st.fixed_dictionaries({"ids": st.tuples(st.integers(1, 64), st.integers(1, 512)), "flag": st.just((1,))})
COUNTS = st.lists(st.tuples(SHAPES, st.integers(1, 1000)), min_size=1, max_size=20)


def texts(suggestions: tuple[Suggestion, ...]) -> list[str]:
    return [f"{s.profile.shapes[-1].min} {s.profile.shapes[-1].opt} {s.profile.shapes[-1].max}" for s in suggestions]


@given(COUNTS, st.integers(1, 4))
def test_every_recorded_request_fits_into_a_profile_and_each_opt_was_asked_for(
    counts: list[tuple[dict[str, tuple[int, ...]], int]], most: int
) -> None:
    suggestions = suggest_profiles(counts, most)
    assert 1 <= len(suggestions) <= most
    assert sum(s.requests for s in suggestions) == sum(count for _, count in counts)
    asked = [shapes for shapes, _ in counts]
    for suggestion in suggestions:
        assert [shape.input for shape in suggestion.profile.shapes] == ["flag", "ids"]
        for shape in suggestion.profile.shapes:
            checked(shape)
        assert {shape.input: shape.opt for shape in suggestion.profile.shapes} in asked
    for shapes in asked:
        assert any(
            all(
                low <= size <= high
                for shape in s.profile.shapes
                for low, size, high in zip(shape.min, shapes[shape.input], shape.max, strict=True)
            )
            for s in suggestions
        )


@given(COUNTS)
def test_more_profiles_never_bring_requests_further_from_their_opt(
    counts: list[tuple[dict[str, tuple[int, ...]], int]],
) -> None:
    def distance(most: int) -> float:
        return sum(s.distance * s.requests for s in suggest_profiles(counts, most))

    assert distance(2) <= distance(1) + 1e-6


def test_one_kind_of_request_is_one_profile_around_its_median() -> None:
    counts = [({"x": (1, 100)}, 10), ({"x": (1, 128)}, 80), ({"x": (1, 150)}, 10)]
    (one,) = suggest_profiles(counts)
    assert texts((one,)) == ["(1, 100) (1, 128) (1, 150)"]
    assert one.requests == 100


def test_two_kinds_far_apart_are_two_profiles() -> None:
    counts = [({"x": (1, 16)}, 500), ({"x": (1, 20)}, 100), ({"x": (32, 512)}, 300), ({"x": (16, 512)}, 200)]
    assert texts(suggest_profiles(counts)) == ["(1, 16) (1, 16) (1, 20)", "(16, 512) (32, 512) (32, 512)"]
    assert len(suggest_profiles(counts, most=1)) == 1


def test_a_few_odd_requests_get_no_profile_of_their_own() -> None:
    counts = [({"x": (8, 128)}, 1000), ({"x": (64, 512)}, 3)]
    assert texts(suggest_profiles(counts)) == ["(8, 128) (8, 128) (64, 512)"]


def test_thousands_of_shapes_are_no_matter() -> None:
    counts = [({"x": (1, size)}, 1) for size in range(1, 5001)]
    suggestions = suggest_profiles(counts)
    assert sum(s.requests for s in suggestions) == 5000


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([], "let the model serve some traffic first"),
        ([({"x": (1, 2)}, 0)], "let the model serve some traffic first"),
        ([({"x": (1, 2)}, 1), ({"y": (1, 2)}, 1)], r"not of one model: x \[1, 2\] and y \[1, 2\]"),
        ([({"x": (1, 2)}, 1), ({"x": (2,)}, 1)], "not of one model"),
        ([({"x": (0, 2)}, 1)], "without elements"),
    ],
)
def test_what_no_profile_can_come_of_is_told(counts: list[tuple[dict[str, tuple[int, ...]], int]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        suggest_profiles(counts)


def test_a_record_is_read_and_anything_else_refused() -> None:
    assert counts_from_json(b'{"shapes": [{"inputs": {"x": [8, 4]}, "count": 3}], "others": 0}') == [({"x": (8, 4)}, 3)]
    for text in (b"", b"[]", b'{"shapes": 1}', b'{"shapes": [{"inputs": {"x": ["a"]}, "count": 3}]}'):
        with pytest.raises(ValueError, match="no record of shapes"):
            counts_from_json(text)
