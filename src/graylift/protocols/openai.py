"""OpenAI's API, as far as a model that writes text speaks it: bodies into requests, answers into bodies.

Whatever bytes come in, the result is a request or a ProtocolError with what was expected, what came, and the field
(`param`); prompts never appear in it. What would change the answer and cannot be done here is refused (tools, several
choices, JSON mode, log-probabilities, images, logit biases); what would not is passed over, as the servers in use do
(`user`, `metadata`, `store`, fields nobody knows). It must not know which model is served, nor how bytes travel. Called
by `serve/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson

from graylift.errors import ProtocolError
from graylift.protocols.language import Finish, Message, Sampling, Usage
from graylift.protocols.tensors import kind_of

COMPLETION_TOKENS = 16
"""max_tokens of a completion that names none, as OpenAI's."""

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_MOST_STOPS = 4
_LONGEST_STOP = 200
_NOT_DONE = {
    "tools": "this model calls no tools; send the request without them",
    "functions": "this model calls no functions; send the request without them",
    "logit_bias": "biases are not applied here; send the request without them",
    "audio": "this model writes text alone",
    "suffix": "this model writes no text into the middle of another; send the request without it",
    "echo": "the prompt is not repeated here; send false",
    "logprobs": "log-probabilities are not given here; send the request without them",
    "top_logprobs": "log-probabilities are not given here; send the request without them",
    "prediction": "no predicted output is used here; send the request without it",
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """POST /v1/chat/completions. stream: piece by piece; usage: with the number of tokens at a stream's end"""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    stream: bool
    usage: bool


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """POST /v1/completions. prompt: text, or tokens of this model"""

    model: str
    prompt: str | tuple[int, ...]
    sampling: Sampling
    stream: bool
    usage: bool


@dataclass(frozen=True, slots=True)
class Heading:
    """What all pieces of one answer carry. created_s: epoch seconds; fingerprint: of what wrote it"""

    id: str
    model: str
    created_s: int
    fingerprint: str


# ---- reading


def chat_request_from_body(body: bytes) -> ChatRequest:
    """ProtocolError, and nothing else, for anything that is not a request."""
    document = _document(body)
    messages = tuple(_messages(document.get("messages")))
    stream, usage = _streaming(document)
    limit = "max_completion_tokens" if document.get("max_completion_tokens") is not None else "max_tokens"
    return ChatRequest(_model(document), messages, _sampling(document, limit, None), stream, usage)


def completion_request_from_body(body: bytes) -> CompletionRequest:
    """As above."""
    document = _document(body)
    if document.get("best_of") not in (None, 1):
        raise _refusal("best_of", "only one answer is written; send 1, or the request without it")
    stream, usage = _streaming(document)
    sampling = _sampling(document, "max_tokens", COMPLETION_TOKENS)
    return CompletionRequest(_model(document), _prompt(document.get("prompt")), sampling, stream, usage)


def _document(body: bytes) -> Mapping[str, object]:
    if not body:
        raise ProtocolError("the body is empty; expected a JSON object")
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise ProtocolError(f"the request is not JSON: {exc.msg} (line {exc.lineno}, column {exc.colno})") from exc
    if not isinstance(value, dict):
        raise ProtocolError(f"expected a JSON object, got {kind_of(value)}")
    document = cast("dict[str, object]", value)
    for name, cure in _NOT_DONE.items():
        if document.get(name) not in (None, False, 0, [], {}, ""):
            # A client that carries tools along and forbids their use gets what it asks for.
            if name in ("tools", "functions") and document.get("tool_choice") == "none":
                continue
            raise _refusal(name, cure)
    if document.get("n") not in (None, 1):
        raise _refusal("n", "only one answer is written to a request; send 1, and the request again for another")
    wanted = document.get("response_format")
    if wanted is not None and (not isinstance(wanted, dict) or cast("dict[str, object]", wanted).get("type") != "text"):
        raise _refusal("response_format", 'this model promises no form but text; send {"type": "text"}')
    return document


def _model(document: Mapping[str, object]) -> str:
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise _refusal("model", f"expected the name of a model, got {kind_of(model)}; GET /v1/models lists them")
    return model


def _messages(value: object) -> Sequence[Message]:
    if not isinstance(value, list) or not value:
        raise _refusal("messages", f"expected a list of at least one message, got {kind_of(cast('object', value))}")
    messages: list[Message] = []
    for number, entry in enumerate(cast("list[object]", value)):
        where = f"messages[{number}]"
        if not isinstance(entry, dict):
            raise _refusal(where, f"expected an object with role and content, got {kind_of(entry)}")
        message = cast("dict[str, object]", entry)
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            given = repr(role[:20]) if isinstance(role, str) else kind_of(role)
            raise _refusal(f"{where}.role", f"expected one of {', '.join(_ROLES)}, got {given}")
        messages.append(Message(_ROLES[role], _content(message.get("content"), f"{where}.content")))
    return messages


def _content(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise _refusal(where, f"expected a text or a list of parts, got {kind_of(cast('object', value))}")
    texts: list[str] = []
    for number, entry in enumerate(cast("list[object]", value)):
        part = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        text = part.get("text")
        if part.get("type") != "text" or not isinstance(text, str):
            raise _refusal(f"{where}[{number}]", 'this model reads text alone; expected {"type": "text", "text": ...}')
        texts.append(text)
    return "".join(texts)


def _prompt(value: object) -> str | tuple[int, ...]:
    if isinstance(value, str):
        if not value:
            raise _refusal("prompt", "the prompt is empty")
        return value
    if isinstance(value, list) and value:
        entries = cast("list[object]", value)
        if all(type(entry) is int and 0 <= entry < 2**31 for entry in entries):
            return tuple(cast("list[int]", entries))
        if len(entries) == 1 and not isinstance(entries[0], int):
            return _prompt(entries[0])
        raise _refusal("prompt", "expected one text or one list of tokens; send several prompts one by one")
    raise _refusal("prompt", f"expected a text or a list of tokens, got {kind_of(cast('object', value))}")


def _sampling(document: Mapping[str, object], limit: str, default_tokens: int | None) -> Sampling:
    return Sampling(
        max_tokens=_integer(document, limit, 1, 2**31 - 1, default_tokens),
        temperature=_number(document, "temperature", 0.0, 2.0, 1.0),
        # 0 is the same as the likeliest token alone.
        top_p=max(_number(document, "top_p", 0.0, 1.0, 1.0), 1e-9),
        seed=_seed(document),
        stop=_stop(document.get("stop")),
        presence_penalty=_number(document, "presence_penalty", -2.0, 2.0, 0.0),
        frequency_penalty=_number(document, "frequency_penalty", -2.0, 2.0, 0.0),
    )


def _streaming(document: Mapping[str, object]) -> tuple[bool, bool]:
    stream = document.get("stream")
    if stream not in (None, True, False):
        raise _refusal("stream", f"expected true or false, got {kind_of(stream)}")
    options = document.get("stream_options")
    if options is None:
        return bool(stream), False
    if not isinstance(options, dict):
        raise _refusal("stream_options", f"expected an object, got {kind_of(options)}")
    if not stream:
        raise _refusal("stream_options", "it has a meaning only with stream: true")
    usage = cast("dict[str, object]", options).get("include_usage")
    if usage not in (None, True, False):
        raise _refusal("stream_options.include_usage", f"expected true or false, got {kind_of(usage)}")
    return True, bool(usage)


def _integer(document: Mapping[str, object], name: str, low: int, high: int, default: int | None) -> int | None:
    value = document.get(name)
    if value is None:
        return default
    if type(value) is not int or not low <= value <= high:
        raise _refusal(name, f"expected a whole number from {low} to {high}, got {_shown(value)}")
    return value


def _number(document: Mapping[str, object], name: str, low: float, high: float, default: float) -> float:
    value = document.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise _refusal(name, f"expected a number from {low:g} to {high:g}, got {_shown(value)}")
    return float(value)


def _seed(document: Mapping[str, object]) -> int | None:
    seed = _integer(document, "seed", -(2**63), 2**63 - 1, None)
    return None if seed is None else seed % 2**63


def _stop(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in cast("list[object]", texts)):
        raise _refusal("stop", f"expected a text or a list of texts, got {kind_of(value)}")
    stops = tuple(cast("list[str]", texts))
    if len(stops) > _MOST_STOPS or any(not 0 < len(text) <= _LONGEST_STOP for text in stops):
        raise _refusal("stop", f"expected up to {_MOST_STOPS} texts of 1 to {_LONGEST_STOP} characters")
    return stops


def _shown(value: object) -> str:
    """Numbers are no secrets; all else is told by its kind."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return f"{value:.12g}"
    return kind_of(value)


def _refusal(param: str, sentence: str) -> ProtocolError:
    return ProtocolError(f"{param}: {sentence}", param=param)


# ---- writing


def chat_answer(heading: Heading, text: str, finish: Finish, usage: Usage) -> bytes:
    """The whole answer to a chat request that is no stream."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish.value}
    return orjson.dumps({**_head(heading, "chat.completion"), "choices": [choice], "usage": _usage(usage)})


def completion_answer(heading: Heading, text: str, finish: Finish, usage: Usage) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish.value}
    return orjson.dumps({**_head(heading, "text_completion"), "choices": [choice], "usage": _usage(usage)})


Chunk = Callable[[str, Finish | None], bytes]
"""(text, finish) -> the data of one event of a stream."""


def chat_chunks(heading: Heading, *, usage: bool) -> tuple[bytes, Chunk]:
    """The data of a stream's first event, which says who speaks, and what makes those after it."""
    head = {**_head(heading, "chat.completion.chunk"), **({"usage": None} if usage else {})}

    def data(delta: Mapping[str, str], finish: Finish | None) -> bytes:
        reason = None if finish is None else finish.value
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return orjson.dumps({**head, "choices": [choice]})

    first = data({"role": "assistant", "content": ""}, None)
    return first, lambda text, finish: data({"content": text} if text or finish is None else {}, finish)


def completion_chunks(heading: Heading, *, usage: bool) -> Chunk:
    head = {**_head(heading, "text_completion"), **({"usage": None} if usage else {})}

    def data(text: str, finish: Finish | None) -> bytes:
        reason = None if finish is None else finish.value
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        return orjson.dumps({**head, "choices": [choice]})

    return data


def usage_chunk(heading: Heading, kind: str, usage: Usage) -> bytes:
    """The data of the event before the end, if the client asked for it."""
    return orjson.dumps({**_head(heading, kind), "choices": list[object](), "usage": _usage(usage)})


def models_document(model: str, created_s: int, context_length: int) -> bytes:
    """Document of GET /v1/models."""
    return orjson.dumps({"object": "list", "data": [_model_entry(model, created_s, context_length)]})


def model_document(model: str, created_s: int, context_length: int) -> bytes:
    """Document of GET /v1/models/MODEL."""
    return orjson.dumps(_model_entry(model, created_s, context_length))


def error_document(message: str, status: int, param: str | None = None, code: str | None = None) -> bytes:
    """Document of every answer that is an error."""
    kind = "invalid_request_error" if status < 500 else "service_unavailable" if status == 503 else "server_error"
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def _head(heading: Heading, kind: str) -> dict[str, Any]:
    return {
        "id": heading.id,
        "object": kind,
        "created": heading.created_s,
        "model": heading.model,
        "system_fingerprint": heading.fingerprint,
    }


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.answer,
        "total_tokens": usage.prompt + usage.answer,
    }


def _model_entry(model: str, created_s: int, context_length: int) -> dict[str, Any]:
    return {
        "id": model,
        "object": "model",
        "created": created_s,
        "owned_by": "graylift",
        "max_model_len": context_length,
    }
