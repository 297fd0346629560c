"""The Open Inference Protocol: what goes through unchanged, and that nothing but a ProtocolError ever comes out."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graylift.domain.engine import Interface, TensorSpec
from graylift.errors import ProtocolError
from graylift.protocols.datatypes import DTYPES, Tensor
from graylift.protocols.open_inference import (
    InferenceRequest,
    OutputRequest,
    body_from_outputs,
    error_document,
    model_metadata,
    request_from_body,
    server_metadata,
)

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def tensors(draw: st.DrawFn, json_only: bool = False) -> tuple[str, Tensor]:
    datatype = draw(st.sampled_from([name for name in DTYPES if not (json_only and name == "FP16")]))
    if datatype == "BYTES":
        texts = st.text(max_size=5).map(str.encode) if json_only else st.binary(max_size=5)
        return datatype, draw(hnp.arrays(np.object_, draw(shapes), elements=texts, fill=st.nothing()))
    elements = hnp.from_dtype(DTYPES[datatype], allow_nan=False, allow_infinity=False)
    return datatype, draw(hnp.arrays(DTYPES[datatype], draw(shapes), elements=elements))


def blob(datatype: str, tensor: Tensor) -> bytes:
    if datatype != "BYTES":
        return tensor.tobytes()
    return b"".join(len(element).to_bytes(4, "little") + element for element in tensor.ravel())


def plain(datatype: str, tensor: Tensor) -> Any:
    return np.vectorize(bytes.decode, otypes=[object])(tensor).tolist() if datatype == "BYTES" else tensor.tolist()


def body(document: object, tail: bytes = b"") -> tuple[bytes, int]:
    head = json.dumps(document).encode()
    return head + tail, len(head)


def request_or_status(data: bytes, length: int | None) -> InferenceRequest | int:
    try:
        return request_from_body(data, length)
    except ProtocolError as exc:
        return exc.status


def refused(document: object, tail: bytes | None = None) -> str:
    whole, length = body(document, tail or b"")
    with pytest.raises(ProtocolError) as caught:
        request_from_body(whole, None if tail is None else length)
    assert caught.value.status == 400
    return str(caught.value)


def entry(**changes: object) -> dict[str, object]:
    """An input x: FP32[2] with `changes`; None takes a field away."""
    fields = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]} | changes
    return {key: value for key, value in fields.items() if value is not None}


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tolist() == other.tolist()


# ---- properties


@given(st.lists(tensors(), min_size=1, max_size=4), st.integers(0, 9))
def test_binary_tensors_arrive_unchanged_at_any_alignment(given_tensors: list[tuple[str, Tensor]], pad: int) -> None:
    inputs = [
        {"name": f"t{i}", "datatype": datatype, "shape": list(tensor.shape),
         "parameters": {"binary_data_size": len(blob(datatype, tensor))}}
        for i, (datatype, tensor) in enumerate(given_tensors)
    ]  # fmt: skip
    tail = b"".join(blob(*pair) for pair in given_tensors)
    request = request_from_body(*body({"id": "i" * pad, "inputs": inputs}, tail))
    assert request.id == "i" * pad
    for i, (_, tensor) in enumerate(given_tensors):
        assert same(request.inputs[f"t{i}"], tensor)
        assert request.inputs[f"t{i}"].flags.aligned


@given(tensors(json_only=True), st.booleans())
def test_json_tensors_arrive_unchanged_flat_or_nested(pair: tuple[str, Tensor], nested: bool) -> None:
    datatype, tensor = pair
    data = plain(datatype, tensor if nested and tensor.ndim else tensor.ravel())
    document = {"inputs": [{"name": "x", "datatype": datatype, "shape": list(tensor.shape), "data": data}]}
    assert same(request_from_body(body(document)[0], None).inputs["x"], tensor)


@given(st.lists(tensors(), min_size=1, max_size=3), st.booleans())
def test_an_answer_in_binary_reads_back_as_the_outputs(given_tensors: list[tuple[str, Tensor]], named: bool) -> None:
    outputs = {f"t{i}": tensor for i, (_, tensor) in enumerate(given_tensors)}
    wanted = tuple(OutputRequest(name, binary=True) for name in reversed(outputs)) if named else None
    answer = body_from_outputs(InferenceRequest("7", {}, wanted, not named), outputs, model="m", version="v")
    assert answer.json_length is not None
    document = json.loads(answer.data[: answer.json_length])
    assert (document["id"], document["model_name"], document["model_version"]) == ("7", "m", "v")
    assert [o["name"] for o in document["outputs"]] == (list(reversed(outputs)) if named else list(outputs))
    # An answer has the form of a request's inputs, so our own reader reads it.
    again = {"inputs": document["outputs"]}
    assert all(
        same(tensor, outputs[name])
        for name, tensor in request_from_body(*body(again, answer.data[answer.json_length :])).inputs.items()
    )


@given(tensors(json_only=True))
def test_an_answer_in_json_reads_back_as_the_outputs(pair: tuple[str, Tensor]) -> None:
    datatype, tensor = pair
    answer = body_from_outputs(InferenceRequest(None, {}, None, False), {"y": tensor}, model="m", version="v")
    assert answer.json_length is None
    document = json.loads(answer.data)
    assert "id" not in document
    (output,) = document["outputs"]
    assert output["datatype"] == datatype
    assert same(request_from_body(body({"inputs": [output]})[0], None).inputs["y"], tensor)


@given(st.binary(max_size=200), st.none() | st.integers(-5, 250))
@example(b"", None)
@example(b"[" * 100_000, None)
@example(b'{"inputs":[]}', 13)
@example(b'{"id":"\xff"}', None)
def test_any_bytes_are_a_request_or_a_protocol_error(data: bytes, length: int | None) -> None:
    request_or_status(data, length)


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from(["x", *DTYPES, "BF16", 2**63, -(2**63), 2**64, 10**30, 1e39])
)  # fmt: skip
keys = st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size"])
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner), max_leaves=8)
nearly_inputs = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y", ""]) | anything,
        "datatype": st.sampled_from([*DTYPES]) | anything,
        "shape": st.lists(st.integers(-1, 4) | st.sampled_from([2**31, 2**63, 10**25]), max_size=4) | anything,
        "data": st.lists(st.integers(-1, 300) | st.floats(width=16), max_size=6) | anything,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 40) | anything}),
    },
)
nearly_requests = st.fixed_dictionaries(
    {"inputs": st.lists(nearly_inputs, max_size=3) | anything},
    optional={
        "id": st.text(max_size=3) | anything,
        "parameters": st.dictionaries(st.just("binary_data_output"), anything) | anything,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["y", "z"])},
                            optional={"parameters": st.dictionaries(st.just("binary_data"), anything)})) | anything,
    },
)  # fmt: skip


@given(nearly_requests, st.binary(max_size=40), st.booleans())
def test_a_document_that_is_nearly_a_request_is_one_or_is_refused(
    document: dict[str, Any], tail: bytes, in_parts: bool
) -> None:
    head = json.dumps(document).encode()
    request = request_or_status(head + tail if in_parts else head, len(head) if in_parts else None)
    if isinstance(request, InferenceRequest):
        for sent in document["inputs"]:
            tensor = request.inputs[sent["name"]]
            assert list(tensor.shape) == sent["shape"]
            assert tensor.dtype == DTYPES[sent["datatype"]]
    else:
        assert request == 400


# ---- sentences


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": None}, "inputs[0]: name must be a string that is not empty, got nothing"),
        ({"name": ""}, "inputs[0]: name must be a string that is not empty, got an empty string"),
        ({"name": "n" * 2000}, "inputs[0]: name has 2000 characters; at most 1024 are possible"),
        ({"datatype": "BF16"}, "input 'x': datatype is 'BF16'; expected one of BOOL, UINT8"),
        ({"datatype": None}, "input 'x': datatype is nothing; expected one of BOOL, UINT8"),
        ({"shape": None}, "input 'x': shape must be a list of integers, got nothing"),
        ({"shape": [-1]}, "input 'x': shape must be a list of integers from 0 on"),
        ({"shape": [True]}, "input 'x': shape must be a list of integers from 0 on"),
        ({"shape": [3]}, "input 'x': shape [3] has 3 elements, but data has 2"),
        ({"shape": [2**62, 2**62]}, f"has {2**124} elements, but data has 2"),
        ({"shape": [10**12, 0], "data": []}, "shape [1000000000000, 0] is too large for a tensor without elements"),
        ({"shape": [1] * 33}, "input 'x': shape has 33 dimensions; at most 32 are possible"),
        ({"data": None}, "input 'x': expected `data` (a list) or the parameter binary_data_size, got nothing"),
        ({"data": ["1", "2"]}, "input 'x': FP32 takes numbers, but data holds strings"),
        ({"data": [1, None]}, "input 'x': FP32 takes numbers, but data holds null"),
        ({"data": [1, True]}, "input 'x': FP32 takes numbers, but data holds booleans"),
        ({"data": [1, 1e39]}, "input 'x': data holds a number that FP32 cannot represent"),
        ({"datatype": "INT64", "data": [1, 1.5]}, "input 'x': INT64 takes integers, but data holds numbers"),
        ({"datatype": "UINT8", "data": [1, 256]}, "input 'x': data holds a number that UINT8 cannot represent"),
        ({"datatype": "BOOL", "data": [1, 0]}, "input 'x': BOOL takes booleans, but data holds integers"),
        ({"datatype": "FP16"}, "input 'x': FP16 has no JSON form; send it in binary"),
        ({"shape": [2, 2], "data": [[1, 2], [3]]}, "expected lists of 2 at depth 2"),
        ({"shape": [4], "data": [[1, 2], [3, 4]]}, "expected lists of 4 at depth 1"),
        ({"parameters": {"binary_data_size": 8}}, "both `data` and binary_data_size are given"),
        ({"parameters": []}, "input 'x': parameters: expected a JSON object, got an empty list"),
    ],
)
def test_a_wrong_input_is_refused_with_what_was_expected_and_what_came(
    changes: dict[str, object], sentence: str
) -> None:
    assert sentence in refused({"inputs": [entry(**changes)]})


@pytest.mark.parametrize(
    ("changes", "tail", "sentence"),
    [
        ({"parameters": {"binary_data_size": 9}}, b"8 bytes!", "binary_data_size is 9, but 8 bytes are left"),
        ({"parameters": {"binary_data_size": 4}}, b"8 bytes!", "FP32 of shape [2] takes 8 bytes, but binary_data_size"),
        (
            {"parameters": {"binary_data_size": 8}},
            b"9 bytes !",
            "the body has 9 bytes after its JSON head, but the inp",
        ),
        ({"parameters": {"binary_data_size": "8"}}, b"8 bytes!", "must be a number of bytes, got a string"),
        ({"shape": [2**61], "parameters": {"binary_data_size": 8}}, b"8 bytes!", f"takes {2**63} bytes"),
        ({"datatype": "BOOL", "parameters": {"binary_data_size": 2}}, b"\1\2", "BOOL takes bytes of 0 or 1"),
        (
            {"datatype": "BYTES", "parameters": {"binary_data_size": 8}},
            b"\1\0\0\0a\1\0\0",
            "element 1 of 2 reaches bey",
        ),
        ({"datatype": "BYTES", "parameters": {"binary_data_size": 4}}, b"\0\0\0\0", "take at least 8 bytes"),
        ({"datatype": "BYTES", "parameters": {"binary_data_size": 9}}, b"\0\0\0\0\0\0\0\0x", "end after 8 bytes"),
        ({"datatype": "BYTES", "parameters": {"binary_data_size": 8}}, b"\xff\xff\xff\xff\0\0\0\0", "reaches beyond"),
    ],
)
def test_binary_data_that_does_not_match_its_claim_is_refused(
    changes: dict[str, object], tail: bytes, sentence: str
) -> None:
    assert sentence in refused({"inputs": [entry(data=None, **changes)]}, tail)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ([], "the request: expected a JSON object, got an empty list"),
        ({}, "inputs: expected a list of at least one tensor, got nothing"),
        ({"inputs": []}, "inputs: expected a list of at least one tensor, got an empty list"),
        ({"inputs": [1]}, "inputs[0]: expected a JSON object, got a number"),
        ({"inputs": [entry(), entry()]}, "inputs[1]: a second tensor named 'x'"),
        ({"id": 7, "inputs": [entry()]}, "id: expected a string, got a number"),
        ({"inputs": [entry()], "outputs": {}}, "outputs: expected a list, got an object"),
        ({"inputs": [entry()], "outputs": [{"name": "y"}, {"name": "y"}]}, "outputs[1]: 'y' is asked for twice"),
        ({"inputs": [entry()], "parameters": {"binary_data_output": 1}}, "binary_data_output must be true or false"),
        (
            {"inputs": [entry()], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
            "outputs[0]: the parameter classification is not supported",
        ),
    ],
)
def test_a_wrong_document_is_refused_at_its_place(document: object, sentence: str) -> None:
    assert sentence in refused(document)


def test_the_length_of_the_json_head_is_checked_against_the_body() -> None:
    whole, length = body({"inputs": [entry()]})
    with pytest.raises(ProtocolError, match=rf"Length is {length + 1}, but the body has {length} bytes"):
        request_from_body(whole, length + 1)
    with pytest.raises(ProtocolError, match="a raw tensor without a JSON head"):
        request_from_body(whole, 0)


def test_json_that_does_not_parse_is_located_and_not_quoted() -> None:
    with pytest.raises(ProtocolError, match=r"not JSON: .* \(line 2, column 8\)") as caught:
        request_from_body(b'{\n "id": secret}', None)
    assert "secret" not in str(caught.value)


def test_an_outputs_own_wish_goes_before_the_wish_for_all() -> None:
    document = {
        "inputs": [entry()],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}],
    }
    request = request_from_body(body(document)[0], None)
    assert request.outputs == (OutputRequest("a", binary=False), OutputRequest("b", binary=True))
    outputs = {"a": np.float32([1.5]), "b": np.int64([2]), "c": np.int64([3])}
    answer = body_from_outputs(request, outputs, model="m", version="v")
    assert answer.json_length is not None
    head = json.loads(answer.data[: answer.json_length])
    assert head["outputs"] == [
        {"name": "a", "datatype": "FP32", "shape": [1], "data": [1.5]},
        {"name": "b", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}},
    ]
    assert answer.data[answer.json_length :] == np.int64([2]).tobytes()


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (np.float16([1]), "output 'y' is FP16, which has no JSON form; ask for it with binary_data"),
        (np.array([b"\xff"], dtype=object), "output 'y' holds bytes that are not UTF-8"),
    ],
)
def test_an_output_without_a_json_form_is_refused_with_the_cure(tensor: Tensor, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        body_from_outputs(InferenceRequest(None, {}, None, False), {"y": tensor}, model="m", version="v")


def test_numbers_that_json_has_no_word_for_become_null() -> None:
    outputs = {"y": np.float32([math.nan, math.inf, 1])}
    answer = body_from_outputs(InferenceRequest(None, {}, None, False), outputs, model="m", version="v")
    assert json.loads(answer.data)["outputs"][0]["data"] == [None, None, 1.0]


def test_an_output_that_is_not_in_memory_order_is_written_in_its_own() -> None:
    tensor = np.arange(6, dtype=np.int32).reshape(2, 3).T
    for binary in (False, True):
        answer = body_from_outputs(InferenceRequest(None, {}, None, binary), {"y": tensor}, model="m", version="v")
        length = answer.json_length or len(answer.data)
        output = json.loads(answer.data[:length])["outputs"][0]
        values = np.frombuffer(answer.data[length:], "<i4").tolist() if binary else output["data"]
        assert (output["shape"], values) == ([3, 2], [0, 3, 1, 4, 2, 5])


def test_the_metadata_documents_have_the_fields_of_the_specification() -> None:
    interface = Interface((TensorSpec("x", "INT32", (-1, 8)),), (TensorSpec("y", "BYTES", ()),))
    assert json.loads(model_metadata("m", "v2", "onnxruntime", interface)) == {
        "name": "m",
        "versions": ["v2"],
        "platform": "onnxruntime",
        "inputs": [{"name": "x", "datatype": "INT32", "shape": [-1, 8]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": []}],
    }
    assert json.loads(server_metadata("graylift", "1"))["extensions"] == ["binary_tensor_data"]
    assert json.loads(error_document('no "x"')) == {"error": 'no "x"'}
