"""How close two tensors are, for any numbers at all: what is told is a number, and what is equal is close."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graylift.protocols.closeness import MOST, TIE, closeness, merged
from graylift.protocols.datatypes import Tensor

FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    dtype, shape = draw(FLOATS), draw(SHAPES)
    return draw(hnp.arrays(dtype, shape)), draw(hnp.arrays(dtype, shape))


@given(pairs())
def test_any_floats_at_all_give_numbers_within_their_bounds(pair: tuple[Tensor, Tensor]) -> None:
    reference, given_ = pair
    close = closeness(reference, given_, len(reference))
    assert 0 <= close.mean_error <= close.max_error * (1 + 1e-12) <= MOST * (1 + 1e-12)
    assert -1 <= close.cosine <= 1
    assert 0 <= close.agreeing <= close.rows
    assert 0 <= close.broken <= reference.size
    assert close.samples == len(reference)


@given(FLOATS.flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)))
def test_what_is_equal_is_close_whatever_it_is(tensor: Tensor) -> None:
    close = closeness(tensor, tensor.copy(), len(tensor))
    assert (close.max_error, close.mean_error, close.broken) == (0.0, 0.0, 0)
    assert close.cosine == pytest.approx(1.0)
    assert close.agreeing == close.rows or np.isnan(tensor).any()


@given(hnp.arrays(np.float64, SHAPES, elements=st.floats(-1e3, 1e3)), st.floats(1e-3, 1e3))
def test_the_scale_of_an_output_does_not_matter(tensor: Tensor, factor: float) -> None:
    reference = tensor + 1.0  # somewhere not zero
    given_ = reference * 1.01
    once, scaled = (closeness(reference * f, given_ * f, 1) for f in (1.0, factor))
    assert scaled.max_error == pytest.approx(once.max_error, abs=1e-9)
    assert scaled.agreeing == once.agreeing


@given(st.integers(0, 5), st.integers(0, 3), st.floats(0.02, 100.0))
def test_one_element_that_is_off_is_found_and_measured(row: int, column: int, off: float) -> None:
    reference = np.tile(np.float64([1.0, -4.0, 2.0, 0.5]), (6, 1))
    given_ = reference.copy()
    given_[row, column] += off
    close = closeness(reference, given_, 6)
    assert close.max_error == pytest.approx(off / 4.0)
    assert close.mean_error == pytest.approx(off / 4.0 / 24)


def test_each_sample_has_a_scale_of_its_own() -> None:
    reference = np.float32([[1000.0, 0.0], [1.0, 0.0]])
    given_ = np.float32([[1000.0, 0.0], [1.0, 0.5]])
    assert closeness(reference, given_, 2).max_error == pytest.approx(0.5)
    assert closeness(reference, given_, 1).max_error == pytest.approx(0.0005)


def test_where_the_reference_is_zero_the_plain_difference_counts() -> None:
    assert closeness(np.zeros((1, 3)), np.float64([[0.0, 0.25, 0.0]]), 1).max_error == 0.25
    assert closeness(np.zeros((1, 3)), np.zeros((1, 3)), 1).cosine == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_counted_only_where_the_reference_is_a_number(bad: float) -> None:
    reference = np.float32([[1.0, 2.0, math.nan, -math.inf]])
    close = closeness(reference, np.float32([[1.0, bad, bad, bad]]), 1)
    assert close.broken == 1
    assert close.max_error == 0.0


def test_a_row_with_nan_agrees_with_nothing() -> None:
    reference = np.float32([[1.0, 2.0], [3.0, 1.0]])
    close = closeness(reference, np.float32([[1.0, 2.0], [3.0, math.nan]]), 2)
    assert (close.agreeing, close.rows) == (1, 2)


def test_a_masked_choice_of_minus_infinity_is_no_harm() -> None:
    reference = np.float32([[-math.inf, 1.0, 2.0]])
    assert closeness(reference, reference, 1).agreement == 1.0


def test_a_choice_that_is_a_tie_agrees_and_one_beyond_it_does_not() -> None:
    reference = np.float64([[10.0, 10.0 - 10.0 * TIE * 0.9, 10.0 - 10.0 * TIE * 1.1]])
    assert closeness(reference, np.float64([[0.0, 1.0, 0.0]]), 1).agreement == 1.0
    assert closeness(reference, np.float64([[0.0, 0.0, 1.0]]), 1).agreement == 0.0


def test_maps_and_single_numbers_choose_nothing() -> None:
    assert closeness(np.ones((1, 1, 8, 8)), np.ones((1, 1, 8, 8)), 1).agreement is None
    assert closeness(np.ones((5, 1)), np.ones((5, 1)), 5).agreement is None
    assert closeness(np.float32(2.0), np.float32(2.0), 1).agreement is None


def test_labels_and_texts_agree_element_by_element() -> None:
    assert closeness(np.int64([1, 2, 3]), np.int64([1, 2, 4]), 3).agreement == pytest.approx(2 / 3)
    texts = np.array([b"cat", b"dog"], object)
    assert closeness(texts, np.array([b"cat", b"cow"], object), 2).agreement == 0.5


def test_another_shape_is_no_comparison() -> None:
    with pytest.raises(ValueError, match=r"shape \[2, 3\] instead of \[3, 2\]"):
        closeness(np.ones((3, 2)), np.ones((2, 3)), 3)


@given(st.lists(pairs(), min_size=1, max_size=4))
def test_batches_add_up(batches: list[tuple[Tensor, Tensor]]) -> None:
    parts = [closeness(r, g, len(r)) for r, g in batches]
    whole = merged(parts)
    assert whole.samples == sum(part.samples for part in parts)
    assert whole.max_error == max(part.max_error for part in parts)
    assert whole.cosine == min(part.cosine for part in parts)
    assert min(p.mean_error for p in parts) * (1 - 1e-9) <= whole.mean_error
    assert whole.mean_error <= max(p.mean_error for p in parts) * (1 + 1e-9)
