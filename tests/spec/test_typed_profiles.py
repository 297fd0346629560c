"""Profiles as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.engine import Profile, ProfileShape
from graylift.spec.profiles import profiles_from_texts, texts_from_profiles


def test_two_inputs_are_one_profile_and_a_repeated_input_begins_the_next() -> None:
    texts = ("ids=1x8,8x128,32x512", "mask=1x8,8x128,32x512", "ids=1x1,1x1,1x8", "mask=1x1,1x1,1x8")
    first, second = profiles_from_texts(texts)
    assert [shape.input for shape in first.shapes] == ["ids", "mask"]
    assert second.shapes[0] == ProfileShape("ids", (1, 1), (1, 1), (1, 8))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["ids"], "NAME=MIN,OPT,MAX"),
        (["ids=1x8,8x128"], "NAME=MIN,OPT,MAX"),
        (["ids=1x8,8,32x512"], "different numbers of dimensions"),
        (["ids=2x8,1x128,32x512"], "dimension 0 of 'ids' must ascend"),
        (["ids=0x8,1x128,32x512"], "at least 1"),
        (["ids=1,1,1", "mask=1,1,1", "ids=2,2,2"], "profile 2 has no shapes for mask"),
    ],
)
def test_what_is_no_profile_is_refused_with_the_cure(texts: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        profiles_from_texts(texts)


sizes = st.lists(st.integers(1, 10**6), min_size=3, max_size=3).map(sorted)
shapes = st.lists(sizes, min_size=1, max_size=4).map(lambda dims: tuple(zip(*dims, strict=True)))


@given(st.lists(st.tuples(shapes, shapes), max_size=4))
def test_profiles_survive_being_written_and_read(pairs: list[tuple[tuple[tuple[int, ...], ...], ...]]) -> None:
    profiles = tuple(
        Profile(tuple(ProfileShape(name, *shape) for name, shape in zip(("a", "b=c"), pair, strict=True)))
        for pair in pairs
    )
    assert profiles_from_texts(texts_from_profiles(profiles)) == profiles
