"""OpenAI's API as values: what is understood, what is refused and where, and what answers look like."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graylift.errors import ProtocolError
from graylift.protocols import openai
from graylift.protocols.language import Finish, Message, Sampling, Usage
from graylift.protocols.openai import Heading

HEADING = Heading("chatcmpl-1", "assistant", 1_700_000_000, "fp_1")


def chat(**changes: object) -> bytes:
    """A right request with changes; a change to `...` takes the field out."""
    document: dict[str, object] = {"model": "assistant", "messages": [{"role": "user", "content": "hi"}], **changes}
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def refusal_of(body: bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        openai.chat_request_from_body(body)
    return caught.value


def test_a_chat_says_who_said_what_and_how_to_answer() -> None:
    request = openai.chat_request_from_body(
        chat(
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            ],
            max_completion_tokens=7,
            max_tokens=9,
            temperature=0,
            top_p=0.5,
            seed=-1,
            stop="\n",
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert request.messages == (Message("system", "Be brief."), Message("user", "ab"))
    assert request.sampling == Sampling(7, 0.0, 0.5, 2**63 - 1, ("\n",))
    assert (request.model, request.stream, request.usage) == ("assistant", True, True)


def test_what_would_not_change_the_answer_is_passed_over() -> None:
    plain = openai.chat_request_from_body(chat())
    odd = chat(
        user="u", metadata={"a": "b"}, store=True, tools=[], n=1, logprobs=False, response_format={"type": "text"}
    )
    assert openai.chat_request_from_body(odd) == plain


REFUSED = [
    ({"messages": ...}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"role": "tool", "content": "4"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content[0]"),
    ({"model": ...}, "model"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"temperature": 2.1}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"presence_penalty": "much"}, "presence_penalty"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"n": 2}, "n"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"logit_bias": {"1": 5}}, "logit_bias"),
    ({"logprobs": True}, "logprobs"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
]


@pytest.mark.parametrize(("changes", "param"), REFUSED, ids=[str(changes)[:40] for changes, _ in REFUSED])
def test_what_is_wrong_or_cannot_be_done_is_refused_with_its_field(changes: dict[str, object], param: str) -> None:
    refusal = refusal_of(chat(**changes))
    assert (refusal.status, refusal.param) == (400, param)
    assert str(refusal).startswith(f"{param}: ")


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"messages": "\xff"}', b"[" * 100_000])
def test_what_is_no_object_of_json_is_refused(body: bytes) -> None:
    assert refusal_of(body).status == 400


def test_the_words_of_users_never_appear_in_a_refusal() -> None:
    secret = "my password is tulip"
    for changes in ({"messages": [secret]}, {"temperature": secret}, {"stop": [secret * 99]}, {"n": secret}):
        assert "tulip" not in str(refusal_of(chat(**changes)))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["model", "messages", "role", "content", "stop", "n"]), inner)
        ),
    )
)
def test_any_json_is_a_request_or_a_refusal(value: object) -> None:
    body = json.dumps(value).encode()
    for read in (openai.chat_request_from_body, openai.completion_request_from_body):
        with contextlib.suppress(ProtocolError):
            read(body)


def test_a_completion_takes_one_text_or_one_list_of_tokens() -> None:
    def prompt(value: object) -> object:
        body = json.dumps({"model": "m", "prompt": value}).encode()
        return openai.completion_request_from_body(body).prompt

    assert (prompt("a"), prompt(["a"]), prompt([1, 2]), prompt([[1, 2]])) == ("a", "a", (1, 2), (1, 2))
    for wrong in ("", [], ["a", "b"], [-1], [1.5], None, {}):
        with pytest.raises(ProtocolError, match="prompt"):
            prompt(wrong)


def test_a_stream_begins_with_who_speaks_and_ends_with_why_it_ended() -> None:
    first, chunk = openai.chat_chunks(HEADING, usage=False)
    events: list[dict[str, Any]] = [json.loads(data) for data in (first, chunk("Hi", None), chunk("", Finish.LENGTH))]
    assert [event["choices"][0]["delta"] for event in events] == [
        {"role": "assistant", "content": ""},
        {"content": "Hi"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, "length"]
    assert all(event["object"] == "chat.completion.chunk" and "usage" not in event for event in events)


def test_usage_comes_once_before_the_end_of_a_stream_that_asked_for_it() -> None:
    _, chunk = openai.chat_chunks(HEADING, usage=True)
    assert json.loads(chunk("Hi", None))["usage"] is None
    last = json.loads(openai.usage_chunk(HEADING, "chat.completion.chunk", Usage(3, 4)))
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 7)


def test_an_error_has_the_form_that_clients_read() -> None:
    document = json.loads(openai.error_document("too long", 400, "messages", "context_length_exceeded"))
    assert document == {
        "error": {
            "message": "too long",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        }
    }
