"""The client's side of the protocol: what it writes the server reads, and the other way round."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graylift.errors import ProtocolError
from graylift.protocols.asking import body_from_inputs, outputs_from_body
from graylift.protocols.datatypes import DTYPES, Tensor
from graylift.protocols.open_inference import body_from_outputs, request_from_body

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    elements = st.binary(max_size=5) if dtype.kind == "O" else hnp.from_dtype(dtype)
    return draw(hnp.arrays(dtype, draw(shapes), elements=elements, fill=st.nothing()))


named = st.dictionaries(st.text(min_size=1, max_size=8), tensors(), min_size=1, max_size=3)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f")
        for name in one
    )


@given(named, named)
def test_a_question_is_read_and_its_answer_read_back_whatever_the_tensors(inputs, outputs) -> None:
    body = body_from_inputs(inputs)
    request = request_from_body(body.data, body.json_length)
    assert same(inputs, dict(request.inputs))
    assert request.binary
    answer = body_from_outputs(request, outputs, model="m", version="1")
    assert same(outputs, outputs_from_body(answer.data, answer.json_length))


def test_an_answer_in_json_is_read_with_null_for_what_json_cannot_write() -> None:
    numbers = {"name": "y", "datatype": "FP32", "shape": [2], "data": [1.5, None]}
    texts = {"name": "t", "datatype": "BYTES", "shape": [1], "data": ["é"]}
    outputs = outputs_from_body(json.dumps({"outputs": [numbers, texts]}).encode(), None)
    assert outputs["y"][0] == 1.5
    assert np.isnan(outputs["y"][1])
    assert outputs["t"].tolist() == ["é".encode()]


@pytest.mark.parametrize(
    "document",
    [
        [], {}, {"outputs": [1]}, {"outputs": [{"name": "y"}]},
        {"outputs": [{"name": "y", "datatype": "FP33", "shape": [1], "data": [1]}]},
        {"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1]}]},
        {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]},
    ],
)  # fmt: skip
def test_what_is_no_answer_is_a_protocol_error(document: object) -> None:
    with pytest.raises(ProtocolError):
        outputs_from_body(json.dumps(document).encode(), None)


@given(st.binary(max_size=60), st.none() | st.integers(0, 80))
def test_any_bytes_give_outputs_or_a_protocol_error(data: bytes, length: int | None) -> None:
    with pytest.raises(ProtocolError):
        outputs_from_body(data, length)
