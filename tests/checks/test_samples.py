"""Made-up inputs and batches of given ones fit what they are made for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as any_of
from hypothesis import strategies as st

from graylift.checks.samples import MOST_GIVEN, given, largest, made_up, points_of
from graylift.domain.engine import Interface, Profile, ProfileShape, TensorSpec
from graylift.domain.spec import TensorName
from graylift.engine.runner import check_inputs
from graylift.protocols.datatypes import DTYPES

Y = (TensorSpec("y", "FP32", (-1,)),)
DIMS = st.lists(st.sampled_from([-1, 1, 3]), max_size=3).map(tuple)
SPECS = st.builds(
    TensorSpec,
    st.sampled_from(["x", "ids", "attention_mask", "position_ids", "token_type_ids", "state"]),
    st.sampled_from(sorted(DTYPES)),
    DIMS,
)
INTERFACES = st.lists(SPECS, min_size=1, max_size=3, unique_by=lambda spec: spec.name).map(
    lambda specs: Interface(tuple(specs), Y)
)


@any_of(INTERFACES, st.sampled_from([1, 2, 1000]))
def test_made_up_inputs_fit_any_interface_and_are_the_same_each_time(interface: Interface, vocabulary: int) -> None:
    for point in points_of(interface, ()):
        case = made_up(interface, point, vocabulary)
        check_inputs(interface, case)
        again = made_up(interface, point, vocabulary)
        assert all(np.array_equal(case[name], again[name]) for name in case)
        assert not any(tensor.dtype.kind == "f" and np.isnan(tensor).any() for tensor in case.values())
        ends = largest(interface, point, vocabulary)
        check_inputs(interface, ends)
        for name, tensor in case.items():
            if tensor.dtype.kind in "iu" and name in ("x", "ids", "state"):
                assert ((tensor >= 0) & (tensor < vocabulary)).all()
                assert (tensor <= ends[name]).all()


def test_another_draw_gives_other_inputs() -> None:
    interface = Interface((TensorSpec("x", "FP32", (2, 3)),), Y)
    (point,) = points_of(interface, ())
    assert not np.array_equal(made_up(interface, point, 1, 0)["x"], made_up(interface, point, 1, 1)["x"])


def test_masks_are_ones_and_positions_count() -> None:
    interface = Interface(
        (TensorSpec("attention_mask", "INT64", (-1, -1)), TensorSpec("position_ids", "INT64", (-1, -1))), Y
    )
    case = made_up(interface, points_of(interface, ())[1], 1000)
    assert case["attention_mask"].min() == 1
    assert case["position_ids"].tolist() == [list(range(64))] * 2


def test_the_corners_of_every_profile_are_points_and_equal_ones_are_one() -> None:
    interface = Interface((TensorSpec("ids", "INT64", (-1, -1)), TensorSpec("flag", "BOOL", (1,))), Y)
    profiles = (
        Profile((ProfileShape("ids", (1, 8), (8, 16), (8, 16)),)),
        Profile((ProfileShape("ids", (1, 8), (1, 9), (1, 10)),)),
    )
    points = points_of(interface, profiles)
    assert [(point.label, point.shapes["ids"]) for point in points] == [
        ("profile 1 min", (1, 8)),
        ("profile 2 opt", (1, 9)),
        ("profile 2 max", (1, 10)),
        ("profile 1 opt", (8, 16)),
    ]
    assert all(point.promised and point.shapes["flag"] == (1,) for point in points)


@any_of(count=st.integers(1, 600), low=st.integers(1, 3), more=st.integers(0, 12))
def test_given_samples_come_in_batches_that_the_engine_takes_the_first_one_small(
    count: int, low: int, more: int
) -> None:
    interface = Interface((TensorSpec("own", "INT64", (-1, 2)),), Y)
    profile = Profile((ProfileShape("own", (low, 2), (low, 2), (low + more, 2)),))
    arrays = {"x": np.arange(count * 2).reshape(count, 2)}
    if count < low:
        with pytest.raises(ValueError, match="takes at least"):
            given(arrays, interface, (TensorName("x", "own"),), (profile,), "samples")
        return
    batches = [case["own"] for case in given(arrays, interface, (TensorName("x", "own"),), (profile,), "samples")]
    assert all(low <= len(batch) <= low + more for batch in batches)
    assert len(batches[0]) == low
    taken = np.concatenate(batches)[:, 0]
    assert len(taken) > min(count, MOST_GIVEN) - low
    assert (np.diff(taken) > 0).all(), "each sample once, in order"


def test_an_input_without_samples_of_the_same_number_is_named() -> None:
    interface = Interface((TensorSpec("a", "FP32", (-1,)), TensorSpec("b", "FP32", (-1,))), Y)
    arrays = {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)}
    with pytest.raises(
        ValueError, match="the same number of samples for each input, at least 1, not 2 of 'a', 3 of 'b'"
    ):
        given(arrays, interface, (), (), "samples.npz")


def test_texts_may_be_given_as_numpy_saves_them() -> None:
    interface = Interface((TensorSpec("text", "BYTES", (-1,)),), Y)
    (one, rest) = given({"text": np.array(["añb", "c", "d"])}, interface, (), (), "samples.npz")
    assert one["text"].tolist() == ["añb".encode()]
    assert rest["text"].tolist() == [b"c", b"d"]
