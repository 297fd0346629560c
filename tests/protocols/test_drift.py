"""How far one answer is from another: what agrees, in what the others differ, and what cannot be compared at all."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.shadow import Answer
from graylift.domain.spec import ServingProtocol, Tolerance
from graylift.protocols.drift import TRUNCATED, compare, failure_of, told

TENSORS, TEXTS = ServingProtocol.OPEN_INFERENCE, ServingProtocol.OPENAI


def outputs(*rows: list[float | None], name: str = "y", datatype: str = "FP32") -> Answer:
    flat = [value for row in rows for value in row]
    output = {"name": name, "datatype": datatype, "shape": [len(rows), len(rows[0])], "data": flat}
    return Answer(200, (), json.dumps({"outputs": [output]}).encode(), 0.01)


def binary(values: list[float]) -> Answer:
    blob = np.array(values, dtype="<f4").tobytes()
    parameters = {"binary_data_size": len(blob)}
    output = {"name": "y", "datatype": "FP32", "shape": [1, len(values)], "parameters": parameters}
    head = json.dumps({"outputs": [output]}).encode()
    return Answer(200, (("inference-header-content-length", str(len(head))),), head + blob, 0.01)


def chat(text: str | None, finish: str | None = "stop", **message: Any) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return Answer(200, (("content-type", "application/json"),), json.dumps({"choices": [choice]}).encode(), 0.01)


def stream(*words: str, finish: str | None = "stop", end: bool = True) -> Answer:
    pieces = [{"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in words]
    pieces.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    body = "".join(f"data: {json.dumps(piece)}\r\n\r\n" for piece in pieces) + ("data: [DONE]\n\n" if end else "")
    return Answer(200, (("content-type", "text/event-stream; charset=utf-8"),), body.encode(), 0.01)


def calling(name: str, arguments: str) -> Answer:
    call = {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return chat(None, "tool_calls", tool_calls=[call])


@pytest.mark.parametrize(
    ("stable", "candidate", "differs"),
    [
        (outputs([0.9, 0.1]), outputs([0.9, 0.1]), None),
        (outputs([0.9, 0.1]), outputs([0.6, 0.4]), None),  # other numbers, the same choice
        (outputs([0.9, 0.1]), outputs([0.1, 0.9]), "choice of y"),
        (outputs([0.9, 0.1], [0.9, 0.1]), outputs([0.9, 0.1], [0.1, 0.9]), "choice of y"),
        (outputs([100.0]), outputs([100.9]), None),
        (outputs([100.0]), outputs([102.0]), "numbers of y"),
        (outputs([1, 2], datatype="INT64"), outputs([1, 2], datatype="INT64"), None),
        (outputs([1, 2], datatype="INT64"), outputs([1, 3], datatype="INT64"), "values of y"),
        (outputs([1.0]), outputs([1.0], name="z"), "outputs"),
        (outputs([1.0]), outputs([1.0, 1.0]), "shape of y"),
        (outputs([1.0, 2.0]), outputs([None, 2.0]), "y is no number"),
        (binary([0.9, 0.1]), outputs([0.8, 0.1]), None),
    ],
)
def test_tensors_agree_if_they_are_close_or_choose_alike(
    stable: Answer, candidate: Answer, differs: str | None
) -> None:
    found = compare(TENSORS, stable, candidate, Tolerance())
    assert found is not None
    assert found.differs == differs
    assert 0 <= found.drift <= 1


@pytest.mark.parametrize(
    ("stable", "candidate", "differs"),
    [
        (chat("the sky is blue"), chat("the  sky is\nblue"), None),
        (chat("the sky is blue"), stream("the sky", " is", " blue"), None),
        (chat("the sky is blue"), chat("the sky is grey"), "words"),
        (chat("a b"), chat("b a"), "words"),
        (chat("a b c"), chat("a b", "length"), "finish reason"),
        (chat("Sure."), chat("I'm sorry, but no."), "refusal"),
        (chat("Sure."), chat(None, refusal="No."), "refusal"),
        (chat('{"a": 1}'), chat('{"a": '), "JSON validity"),
        (chat('{"a": 1}'), chat('{"a": 2}'), "words"),
        (calling("f", '{"x": 1, "y": 2}'), calling("f", '{"y":2,"x":1}'), None),
        (calling("f", '{"x": 1}'), calling("g", '{"x": 1}'), "tool calls"),
        (calling("f", '{"x": 1}'), calling("f", '{"x": 2}'), "tool call arguments"),
        (calling("f", '{"x": 1}'), calling("f", '{"x": '), "tool call validity"),
    ],
)
def test_texts_agree_word_by_word_and_what_is_called_by_its_values(
    stable: Answer, candidate: Answer, differs: str | None
) -> None:
    found = compare(TEXTS, stable, candidate, Tolerance())
    assert found is not None
    assert found.differs == differs


def test_the_first_other_word_and_the_ratio_of_lengths_are_told() -> None:
    found = compare(TEXTS, chat("one two three four"), chat("one two five six seven eight"), Tolerance())
    assert found is not None
    assert found.detail == "the first other word is number 3 of 4"
    assert found.length_ratio == 1.5
    assert found.drift == pytest.approx(1 - 2 * 2 / 10)


def test_a_tolerance_lets_some_words_differ_in_any_order() -> None:
    stable, candidate = chat("a b c d"), chat("b a c x")
    found = compare(TEXTS, stable, candidate, Tolerance(max_text_drift=0.25))
    assert found is not None
    assert found.agrees
    found = compare(TEXTS, stable, candidate, Tolerance(max_text_drift=0.2))
    assert found is not None
    assert not found.agrees


def test_embeddings_are_compared_as_tensors() -> None:
    def embedding(*values: float) -> Answer:
        return Answer(200, (), json.dumps({"data": [{"embedding": values}]}).encode(), 0.01)

    found = compare(TEXTS, embedding(1.0, 0.0), embedding(0.0, 1.0), Tolerance())
    assert found is not None
    assert found.differs == "choice of embedding"


def test_a_stream_of_status_200_that_was_cut_or_holds_an_error_is_a_failure() -> None:
    assert failure_of(TEXTS, stream("a", "b")) is None
    assert failure_of(TEXTS, stream("a", "b", end=False)) == TRUNCATED
    assert failure_of(TEXTS, stream("a", "b", finish=None)) == TRUNCATED
    broken = Answer(200, (("content-type", "text/event-stream"),), b'data: {"error": {"message": "secret"}}\n\n', 0.1)
    assert failure_of(TEXTS, broken) == "an error inside the answer"
    assert failure_of(TENSORS, Answer(503, (), b"", 0.1)) == "HTTP 503"


def test_compressed_answers_are_read_and_what_is_not_readable_is_not_compared() -> None:
    plain = outputs([0.9, 0.1])
    packed = Answer(200, (("content-encoding", "gzip"),), gzip.compress(plain.body or b""), 0.01)
    found = compare(TENSORS, packed, plain, Tolerance())
    assert found is not None
    assert found.agrees
    for body in (None, b"\x00"):
        unreadable = Answer(200, (("content-encoding", "gzip" if body else "identity"),), body, 0.01)
        assert compare(TENSORS, plain, unreadable, Tolerance()) is None
    assert compare(TENSORS, Answer(200, (), b"no JSON", 0.01), plain, Tolerance()) is None
    found = compare(TENSORS, plain, Answer(200, (), b"no JSON", 0.01), Tolerance())
    assert found is not None
    assert found.differs == "unreadable answer"


@given(
    st.binary(max_size=200),
    st.sampled_from([TENSORS, TEXTS]),
    st.sampled_from(["application/json", "text/event-stream"]),
)
def test_whatever_a_server_sends_is_compared_or_not_but_never_an_error(
    body: bytes, protocol: ServingProtocol, content_type: str
) -> None:
    odd = Answer(200, (("content-type", content_type),), body, 0.01)
    good = outputs([1.0]) if protocol is TENSORS else chat("fine")
    failure_of(protocol, odd)
    told(protocol, odd)
    for stable, candidate in ((odd, good), (good, odd)):
        found = compare(protocol, stable, candidate, Tolerance())
        assert found is None or 0 <= found.drift <= 1


def test_no_body_of_an_answer_is_in_its_representation() -> None:
    assert "secret" not in repr(chat("secret"))
