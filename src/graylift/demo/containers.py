"""Freight container numbers (ISO 6346): drawing them with noise, reading a model's answer, and telling a right one.

Four letters, six digits and a check digit: a wrong reading gives itself away ten times out of eleven, without labels.
Knows no HTTP and no model runtime. Called by the container number scenario.
"""

from __future__ import annotations

import string
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from graylift.demo.lettering import draw

HEIGHT, WIDTH = 48, 256
"""Pixels of an image, as the recognition models take it."""

_LETTER_VALUES: Mapping[str, int] = dict(
    zip(string.ascii_uppercase, (value for value in range(10, 39) if value % 11), strict=True)
)
"""A is 10, and so on, without the multiples of 11."""


def check_digit(prefix: str) -> int | None:
    """The check digit of four letters and six digits; None if they are not, or where the standard advises against the
    number because its remainder is 10."""
    if len(prefix) != 10 or not (set(prefix[:4]) <= _LETTER_VALUES.keys() and set(prefix[4:]) <= set(string.digits)):
        return None
    values = [_LETTER_VALUES[c] for c in prefix[:4]] + [int(c) for c in prefix[4:]]
    remainder = sum(value << place for place, value in enumerate(values)) % 11
    return None if remainder == 10 else remainder


def is_valid(number: str) -> bool:
    """Is it a container number whose check digit is right?"""
    digit = check_digit(number[:10])
    return digit is not None and number[10:] == str(digit)


def draw_number(chance: np.random.Generator) -> str:
    """A valid container number (category U: freight container)."""
    while True:
        owner = "".join(chance.choice(list(string.ascii_uppercase), 3))
        serial = "".join(chance.choice(list(string.digits), 6))
        digit = check_digit(f"{owner}U{serial}")
        if digit is not None:
            return f"{owner}U{serial}{digit}"


def render(number: str, chance: np.random.Generator) -> NDArray[np.float32]:
    """float32[3, 48, 256] in [-1, 1]: the number as a camera at a gate may see it: light on a dark coloured wall,
    not quite upright, not quite sharp, with noise."""
    ink = draw(
        f"{number[:4]} {number[4:10]} {number[10:]}",
        (HEIGHT, WIDTH),
        capital=chance.uniform(22, 26),
        stroke=chance.uniform(2.6, 3.6),
        slant=chance.uniform(-0.08, 0.08),
        offset=(chance.uniform(-2, 2), chance.uniform(-3, 3)),
    )
    for _ in range(int(chance.integers(0, 3))):
        ink = _blurred(ink)
    wall, paint = chance.uniform(20, 110, 3), chance.uniform(190, 255)
    image = wall[:, None, None] * (1 - ink) + paint * ink
    image += chance.normal(0, chance.uniform(5, 45), image.shape)
    return (np.clip(image, 0, 255) / 127.5 - 1).astype(np.float32)


def _blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each pixel mixed with its neighbours, 1:2:1 in both directions."""
    for axis in (0, 1):
        image = (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
    return image


def alphabet_from_metadata(characters: str) -> tuple[str, ...]:
    """What each class of the model means: the blank, the characters of its `character` entry (one a line), a space."""
    return ("", *characters.splitlines(), " ")


def read(probabilities: NDArray[np.float32], alphabet: tuple[str, ...]) -> str:
    """The text of float32[steps, classes]: the likeliest class of each step, repetitions and blanks dropped
    (connectionist temporal classification, best path), spaces taken out."""
    best = probabilities.argmax(axis=1)
    kept = best[np.concatenate(([True], best[1:] != best[:-1]))]
    return "".join(alphabet[int(index)] for index in kept).replace(" ", "")
