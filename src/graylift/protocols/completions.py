"""What a client of the OpenAI protocol was told, whole: an answer or a stream of events as texts, tool calls, vectors.

It reads what is to be compared or scored, after the fact and in one piece; how an answer is written, or read while it
still comes, is not its business. Called by `drift`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from graylift.errors import ProtocolError

EVENTS = "text/event-stream"
_END = b"[DONE]"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is the text that the model wrote, which may be no JSON."""

    name: str
    arguments: str

    @property
    def value(self) -> object:
        """The arguments as values. ValueError if they are no JSON."""
        return orjson.loads(self.arguments)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers. finish: why the model stopped, None if it never said; refusal: what it said instead."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    finish: str | None
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. ended: did it come to its end as the protocol says it; vectors: of embeddings."""

    choices: tuple[Choice, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()
    ended: bool = True


def completion_from(body: bytes, content_type: str) -> Completion:
    """ProtocolError, which holds nothing of the body, for what is none or says that it failed."""
    try:
        if content_type.startswith(EVENTS):
            return _from_events(body)
        return _from_document(_document(orjson.loads(body)))
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ProtocolError(f"the answer is not one of the OpenAI protocol: {type(exc).__name__}") from exc


def events_of(body: bytes) -> Iterator[bytes]:
    """The data of each event of a stream."""
    for event in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
        if data:
            yield b"\n".join(data)


@dataclass(slots=True)
class _Growing:
    """A choice while its pieces are put together; tool calls by their index."""

    text: list[str] = field(default_factory=list[str])
    refusal: list[str] = field(default_factory=list[str])
    names: dict[int, str] = field(default_factory=dict[int, str])
    arguments: dict[int, list[str]] = field(default_factory=dict[int, "list[str]"])
    finish: str | None = None

    def choice(self) -> Choice:
        return Choice(
            text="".join(self.text),
            tool_calls=tuple(
                ToolCall(self.names.get(index, ""), "".join(parts)) for index, parts in sorted(self.arguments.items())
            ),
            finish=self.finish,
            refusal="".join(self.refusal) or None,
        )


def _from_events(body: bytes) -> Completion:
    growing: dict[int, _Growing] = {}
    ended = False
    for data in events_of(body):
        if data == _END:
            ended = True
            break
        for piece in cast("list[dict[str, Any]]", _document(orjson.loads(data)).get("choices") or []):
            _grow(growing.setdefault(int(piece.get("index", 0)), _Growing()), piece)
    choices = tuple(one.choice() for _, one in sorted(growing.items()))
    return Completion(choices, ended=ended and bool(choices) and all(one.finish is not None for one in choices))


def _grow(one: _Growing, piece: dict[str, Any]) -> None:
    delta: dict[str, Any] = piece.get("delta") or {}
    one.text.append(delta.get("content") or piece.get("text") or "")
    one.refusal.append(delta.get("refusal") or "")
    calls: list[dict[str, Any]] = delta.get("tool_calls") or []
    for position, call in enumerate(calls):
        index = int(call.get("index", position))
        function: dict[str, Any] = call.get("function") or {}
        if function.get("name"):
            one.names[index] = function["name"]
        one.arguments.setdefault(index, []).append(function.get("arguments") or "")
    one.finish = piece.get("finish_reason") or one.finish


def _from_document(document: dict[str, Any]) -> Completion:
    if "data" in document:
        return Completion(vectors=tuple(tuple(map(float, entry["embedding"])) for entry in document["data"]))
    return Completion(tuple(_choice(entry) for entry in document["choices"]))


def _choice(entry: dict[str, Any]) -> Choice:
    message: dict[str, Any] = entry.get("message") or {}
    calls: list[dict[str, Any]] = message.get("tool_calls") or []
    functions: list[dict[str, Any]] = [call["function"] for call in calls]
    return Choice(
        text=message.get("content") or entry.get("text") or "",
        tool_calls=tuple(ToolCall(str(call["name"]), str(call.get("arguments") or "")) for call in functions),
        finish=entry.get("finish_reason"),
        refusal=message.get("refusal"),
    )


def _document(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError("the answer is not one of the OpenAI protocol: no object")
    document = cast("dict[str, Any]", value)
    if "error" in document:
        raise ProtocolError("an error inside the answer")
    return document
