"""Two decoders along one text: the arithmetic, against numbers that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graylift.checks.forced_text import forced, summed
from graylift.protocols.datatypes import Tensor

WORDS = 4


def texts(length: int = 6) -> Tensor:
    return np.arange(2 * length, dtype=np.int64).reshape(2, length) % WORDS


LOGITS = hnp.arrays(np.float32, (2, 6, WORDS))
"""Any floats: NaN and infinity, too."""


@given(LOGITS, LOGITS)
def test_any_logits_give_numbers(reference: Tensor, given_: Tensor) -> None:
    text = forced(texts(), None, reference, given_)
    assert 0 <= text.top1 <= text.positions <= 10
    assert text.positions + text.broken <= 10
    numbers = [text.loss, text.reference_loss, text.divergence]
    numbers += [n for n in (text.perplexity_ratio, text.perplexity, text.mean_divergence) if n is not None]
    assert all(math.isfinite(number) for number in numbers)
    assert text.divergence >= 0


@given(hnp.arrays(np.float32, (2, 6, WORDS), elements=st.floats(-50, 50, width=32)), st.floats(-9, 9))
def test_a_constant_added_to_all_logits_changes_nothing(logits: Tensor, constant: float) -> None:
    text = forced(texts(), None, logits.astype(np.float64), logits + np.float64(constant))
    assert text.perplexity_ratio == pytest.approx(1.0)
    assert text.mean_divergence == pytest.approx(0.0, abs=1e-9)


def test_a_reference_without_an_opinion_has_the_perplexity_of_its_vocabulary() -> None:
    uniform = np.zeros((2, 6, WORDS), np.float32)
    assert forced(texts(), None, uniform, uniform).perplexity == pytest.approx(WORDS)


def test_perplexity_and_divergence_of_two_coins() -> None:
    """p = (3/4, 1/4) and q = (1/2, 1/2); the text is always the first."""
    tokens = np.zeros((1, 3), np.int64)
    p = np.broadcast_to(np.log(np.float64([0.75, 0.25])), (1, 3, 2))
    text = forced(tokens, None, p, np.zeros((1, 3, 2)))
    assert text.positions == 2
    assert text.perplexity == pytest.approx(4 / 3)
    assert text.perplexity_ratio == pytest.approx(1.5)
    assert text.mean_divergence == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_the_last_token_has_no_next_one_and_padding_is_no_text() -> None:
    logits = np.zeros((2, 6, WORDS), np.float32)
    mask = np.int64([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    assert forced(texts(), None, logits, logits).positions == 10
    assert forced(texts(), mask, logits, logits).positions == 5 + 2


def test_tokens_outside_of_the_vocabulary_are_passed_over() -> None:
    tokens = np.int64([[0, 1, 99, -1]])
    logits = np.zeros((1, 4, WORDS), np.float32)
    assert forced(tokens, None, logits, logits).positions == 1


def test_logits_that_are_none_are_counted_apart() -> None:
    good = np.zeros((1, 4, WORDS), np.float32)
    broken = good.copy()
    broken[0, 1, 2] = math.nan
    broken[0, 3] = math.nan  # of the last token, which is asked nothing
    text = forced(np.zeros((1, 4), np.int64), None, good, broken)
    assert (text.positions, text.broken) == (2, 1)


def test_a_word_that_cannot_come_is_no_harm() -> None:
    logits = np.zeros((1, 3, WORDS), np.float32)
    logits[..., 3] = -math.inf
    text = forced(np.zeros((1, 3), np.int64), None, logits, logits)
    assert text.perplexity == pytest.approx(3)
    assert text.broken == 0


def test_texts_add_up() -> None:
    chance = np.random.default_rng(3)
    p, q = chance.standard_normal((2, 2, 6, WORDS))
    whole = forced(texts(), None, p, q)
    parts = summed([forced(texts()[row : row + 1], None, p[row : row + 1], q[row : row + 1]) for row in (0, 1)])
    assert parts.loss == pytest.approx(whole.loss)
    assert (parts.positions, parts.top1) == (whole.positions, whole.top1)
    assert summed([]).perplexity_ratio is None


def test_logits_of_another_text_are_refused() -> None:
    with pytest.raises(ValueError, match="tokens"):
        forced(texts(5), None, np.zeros((2, 6, WORDS)), np.zeros((2, 6, WORDS)))
