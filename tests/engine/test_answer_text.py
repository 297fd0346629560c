"""From tokens to text that may be shown: whole characters, and nothing of a text that ends the answer."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from graylift.engine.answer_text import AnswerText


def decode(tokens: Sequence[int]) -> str:
    """A model whose tokens are bytes."""
    return bytes(tokens).decode(errors="replace")


def shown(text: str, sizes: Sequence[int], stop: Sequence[str] = ()) -> tuple[list[str], bool]:
    """What is shown after each step, the last one at the end."""
    answer, data, pieces = AnswerText(decode, stop), text.encode(), list[str]()
    for size in sizes:
        pieces.append(answer.add(data[:size]))
        data = data[size:]
    pieces += [answer.add(data), answer.end()]
    return pieces, answer.stopped


@given(st.text(max_size=30), st.lists(st.integers(0, 5), max_size=30))
def test_the_pieces_are_the_text_and_no_character_is_ever_broken(text: str, sizes: list[int]) -> None:
    pieces, _ = shown(text, sizes)
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece or "\ufffd" in text for piece in pieces)


@given(st.text("abx", max_size=20), st.lists(st.integers(0, 3), max_size=20), st.text("abx", min_size=1, max_size=3))
def test_nothing_from_a_stop_text_on_is_ever_shown(text: str, sizes: list[int], stop: str) -> None:
    pieces, stopped = shown(text, sizes, (stop,))
    before, found, _ = text.partition(stop)
    assert "".join(pieces) == before
    assert stopped == bool(found)


def test_of_several_stop_texts_the_first_in_the_text_counts() -> None:
    assert shown("one two three", [1] * 13, ("three", "two"))[0][-1] == ""
    assert "".join(shown("one two three", [1] * 13, ("three", "two"))[0]) == "one "


def test_bytes_that_are_no_text_are_shown_as_such_and_hold_nothing_back_for_ever() -> None:
    answer = AnswerText(decode)
    told = "".join(answer.add([token]) for token in b"\xff\xff\xff\xff\xffab")
    assert told.endswith("ab")
    assert "\ufffd" in told
