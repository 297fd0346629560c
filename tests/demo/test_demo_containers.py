from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.demo import containers
from graylift.demo.lettering import GLYPHS, draw

seeds = st.integers(0, 2**32)


def test_the_check_digit_is_that_of_published_numbers() -> None:
    assert containers.is_valid("CSQU3054383")
    assert containers.check_digit("MSKU907032") == 3


@given(seeds, st.integers(4, 10), st.sampled_from(string.digits))
def test_one_wrong_digit_always_gives_itself_away(seed: int, place: int, digit: str) -> None:
    number = containers.draw_number(np.random.default_rng(seed))
    assert containers.is_valid(number)
    changed = number[:place] + digit + number[place + 1 :]
    assert containers.is_valid(changed) is (changed == number)


@given(st.text(max_size=13))
def test_what_is_no_container_number_is_not_valid(text: str) -> None:
    if not (len(text) == 11 and text.isascii() and text[:4].isupper() and text[4:].isdigit()):
        assert not containers.is_valid(text)


@pytest.mark.parametrize(
    ("classes", "text"),
    [([0, 1, 1, 0, 1, 2], "AAB"), ([1, 2, 2, 3, 2], "ABB"), ([0, 0, 0], ""), ([3, 1, 3], "A")],
)
def test_repetitions_blanks_and_spaces_are_dropped(classes: list[int], text: str) -> None:
    alphabet = containers.alphabet_from_metadata("A\nB")
    assert alphabet == ("", "A", "B", " ")
    assert containers.read(np.eye(4, dtype=np.float32)[classes], alphabet) == text


def test_every_character_of_a_container_number_can_be_drawn_and_looks_different() -> None:
    assert set(GLYPHS) == set(string.ascii_uppercase + string.digits)
    drawn = {c: draw(c, (48, 48), capital=24, stroke=3, slant=0, offset=(0, 0)) for c in GLYPHS}
    for character, ink in drawn.items():
        assert 0 <= ink.min() <= ink.max() == 1
        others = [np.abs(ink - other).sum() for c, other in drawn.items() if c != character]
        assert min(others) > 10, character


@given(st.floats(-60, 60), st.floats(-60, 60))
def test_lettering_that_leaves_the_image_is_cut_off(right: float, down: float) -> None:
    ink = draw("A1", (48, 64), capital=24, stroke=3, slant=0.1, offset=(right, down))
    assert ink.shape == (48, 64)
    assert np.isfinite(ink).all()


@given(seeds)
def test_an_image_is_what_the_models_take_and_its_number_is_all_on_it(seed: int) -> None:
    chance = np.random.default_rng(seed)
    image = containers.render(containers.draw_number(chance), chance)
    assert image.shape == (3, containers.HEIGHT, containers.WIDTH)
    assert image.dtype == np.float32
    assert -1 <= image.min() < image.max() <= 1
