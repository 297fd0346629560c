"""Odd, wrong and oversized requests, made from a model's own interface and from one request that it is known to answer.

Each case is the bytes to send and what may come back. A case that fits the interface may be answered or refused: which
ids or lengths a model computes only the model knows. Pure. Called by `boundary`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import orjson

from graylift.checks.questions import Inputs
from graylift.checks.samples import Point, made_up
from graylift.domain.engine import Interface, Profile, TensorSpec
from graylift.protocols.asking import body_from_inputs
from graylift.protocols.datatypes import DTYPES, Tensor, datatype_of
from graylift.protocols.open_inference import BINARY_HEADER
from graylift.protocols.tensors import blob_from_tensor

Shapes = Mapping[str, tuple[int, ...]]

_LARGEST = 1 << 20
"""Elements of one input in any case: enough to be far too long, too few to be an attack on the machine itself."""
_LONG_ROW, _LONG_BATCH = 4096, 256
_BEYOND_PROFILE = 8
_HEADER = BINARY_HEADER.decode()


class Expect(Enum):
    """What may come back. Never a 5xx, silence, or (but for `may_close`) the end of the connection.

    SAME:    the answer that this request got before
    ANSWER:  200 with every output
    REFUSAL: a 4xx with a text
    EITHER:  one of the last two
    """

    SAME = "same"
    ANSWER = "answer"
    REFUSAL = "refusal"
    EITHER = "either"


@dataclass(frozen=True, slots=True)
class Case:
    """pieces: sent `pause_s` apart, then, with `half_close`, the sending side is closed.
    may_close: HTTP lets a server close on this without an answer: nobody waits for one, or it never was a request."""

    name: str
    pieces: tuple[bytes, ...]
    expect: Expect
    pause_s: float = 0.0
    half_close: bool = False
    may_close: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """host: as the Host header says it; path: of inference"""

    host: str
    path: str


def reference_case(target: Target, inputs: Inputs) -> Case:
    return Case("reference request", (_binary(target, inputs),), Expect.SAME)


def corpus(target: Target, interface: Interface, profiles: Sequence[Profile], inputs: Inputs) -> tuple[Case, ...]:
    """All cases; `inputs` are those of the reference request."""
    return (
        *_sizes(target, interface, profiles, inputs),
        *_values(target, interface, inputs),
        *_structures(target, interface, inputs),
        *_bodies(target, inputs),
        *_exchanges(target, inputs),
    )


def _sizes(target: Target, interface: Interface, profiles: Sequence[Profile], inputs: Inputs) -> Iterator[Case]:
    given = {name: tensor.shape for name, tensor in inputs.items()}

    def case(name: str, shapes: Shapes, expect: Expect = Expect.EITHER) -> Case:
        # Integers are 0: whatever they stand for, that one exists.
        made = made_up(interface, Point(name, shapes, promised=False), vocabulary=1)
        return Case(name, (_binary(target, made),), expect)

    dynamic = [spec for spec in interface.inputs if -1 in spec.shape]
    if not dynamic:
        return
    if any(spec.shape[0] == -1 for spec in dynamic):
        yield case("empty batch", _scaled(dynamic, given, lambda axis, size: 0 if axis == 0 else size))
    for number, profile in enumerate(profiles, start=1):
        largest = {**given, **{shape.input: shape.max for shape in profile.shapes}}
        name = f"profile {number}" if len(profiles) > 1 else "profile"
        yield case(f"the {name}'s max", largest, Expect.ANSWER)
        yield case(f"one beyond the {name}'s max", _scaled(dynamic, largest, lambda _, size: size + 1))
        far = _scaled(dynamic, largest, lambda _, size: size * _BEYOND_PROFILE)
        yield case(f"far beyond the {name}'s max", _bounded(dynamic, far))
    if not profiles:
        rows = _scaled(dynamic, given, lambda axis, size: 8 if axis == 0 else size)
        yield case("batch of 8", rows)
        batch = _scaled(dynamic, given, lambda axis, size: _LONG_BATCH if axis == 0 else size)
        yield case("very large batch", _bounded(dynamic, batch))
        long = _scaled(dynamic, given, lambda axis, size: size if axis == 0 else _LONG_ROW)
        if long != given:
            yield case("very long", _bounded(dynamic, long))


def _scaled(dynamic: Sequence[TensorSpec], shapes: Shapes, size_of: Callable[[int, int], int]) -> Shapes:
    """Every dynamic dimension of every input, changed by (axis, size)."""
    return {
        **shapes,
        **{
            spec.name: tuple(
                size_of(axis, size) if dim < 0 else size
                for axis, (dim, size) in enumerate(zip(spec.shape, shapes[spec.name], strict=True))
            )
            for spec in dynamic
        },
    }


def _bounded(dynamic: Sequence[TensorSpec], shapes: Shapes) -> Shapes:
    """Halved along the dynamic dimensions until no input is too large. Fixed ones stay: they may be large by design."""
    while any(math.prod(shapes[spec.name]) > _LARGEST for spec in dynamic):
        smaller = _scaled(dynamic, shapes, lambda _, size: max(1, size // 2))
        if smaller == shapes:
            break
        shapes = smaller
    return shapes


def _values(target: Target, interface: Interface, inputs: Inputs) -> Iterator[Case]:
    for spec in interface.inputs:
        for what, value in _odd_values(spec.datatype):
            tensor = np.full(inputs[spec.name].shape, value, DTYPES[spec.datatype])
            if tensor.size:
                yield Case(f"{spec.name} all {what}", (_binary(target, {**inputs, spec.name: tensor}),), Expect.EITHER)
        if spec.datatype == "BOOL":
            body = body_from_inputs(inputs)
            twos = body.data[: body.json_length] + b"".join(
                b"\2" * tensor.size if name == spec.name else blob_from_tensor(tensor)
                for name, tensor in inputs.items()
            )
            if inputs[spec.name].size:
                yield Case(f"{spec.name} all bytes of 2", (_http(target, twos, body.json_length),), Expect.REFUSAL)


def _odd_values(datatype: str) -> Iterator[tuple[str, object]]:
    dtype = DTYPES[datatype]
    match dtype.kind:
        case "f":
            numbers = np.finfo(dtype)
            yield from (("NaN", np.nan), ("infinity", np.inf), ("-infinity", -np.inf))
            yield from (("denormal", numbers.smallest_subnormal), ("the largest", numbers.max))
        case "i":
            yield from (("-1", -1), ("the smallest", np.iinfo(dtype).min), ("the largest", np.iinfo(dtype).max))
        case "u":
            yield ("the largest", np.iinfo(dtype).max)
        case "O":
            yield from (("empty", b""), ("no UTF-8", b"\xff\xfe\x80"), ("100 kB", b"a" * 100_000))
        case _:
            return


def _structures(target: Target, interface: Interface, inputs: Inputs) -> Iterator[Case]:
    def refused(name: str, given: Inputs) -> Case:
        return Case(name, (_binary(target, given),), Expect.REFUSAL)

    first = next(iter(inputs))
    for spec in interface.inputs:
        tensor = inputs[spec.name]
        other = "FP32" if spec.datatype != "FP32" else "INT64"
        wrong = np.zeros(tensor.shape, DTYPES[other])
        yield refused(f"{spec.name} as {other}", {**inputs, spec.name: wrong})
        yield refused(f"{spec.name} with a dimension more", {**inputs, spec.name: tensor[np.newaxis]})
        yield refused(f"{spec.name} without", {name: t for name, t in inputs.items() if name != spec.name})
    yield refused("an unknown input", {**inputs, _unused(inputs): inputs[first]})
    document = _document(inputs)
    twice = {**document, "inputs": [*document["inputs"], document["inputs"][0]]}
    yield _of_json(target, "an input twice", twice)
    nobody = {**document, "outputs": [{"name": _unused({spec.name: None for spec in interface.outputs})}]}
    yield _of_json(target, "an unknown output", nobody)
    for what, shape in (("negative shape", [-1]), ("shape of text", ["a"]), ("huge shape", [2**62, 2**62])):
        entry = {**document["inputs"][0], "shape": shape}
        yield _of_json(target, what, {**document, "inputs": [entry, *document["inputs"][1:]]})
    entry = {**document["inputs"][0], "datatype": "FP33"}
    yield _of_json(target, "unknown datatype", {**document, "inputs": [entry, *document["inputs"][1:]]})


def _bodies(target: Target, inputs: Inputs) -> Iterator[Case]:
    """Bodies that are no request. Every HTTP around them is right."""
    body = body_from_inputs(inputs)
    head = body.json_length
    assert head is not None, "it is binary"
    for name, data in (
        ("an empty body", b""),
        ("no JSON", b"\x00\xff\xfe"),
        ("JSON that is no object", b"[1, 2, 3]"),
        ("no inputs", b'{"inputs": []}'),
        ("deep JSON", b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("JSON that is cut off", orjson.dumps(_document(inputs))[:-10]),
        (
            "JSON with bytes that are no UTF-8",
            b'{"inputs": [{"name": "\xff\xfe", "datatype": "FP32", "shape": [0], "data": []}]}',
        ),
        ("JSON with NaN", b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}]}'),
    ):
        yield Case(name, (_http(target, data),), Expect.REFUSAL)
    if len(body.data) > head:
        yield Case("binary data cut off", (_http(target, body.data[:-1], head),), Expect.REFUSAL)
        yield Case("binary data too long", (_http(target, body.data + b"\0", head),), Expect.REFUSAL)
    for name, length in (
        (f"{_HEADER} too small", str(head - 5)),
        (f"{_HEADER} beyond the body", str(len(body.data) + 1)),
        (f"{_HEADER} negative", "-1"),
        (f"{_HEADER} no number", "many"),
    ):
        yield Case(name, (_http(target, body.data, length),), Expect.REFUSAL)


def _exchanges(target: Target, inputs: Inputs) -> Iterator[Case]:
    """HTTP that is wrong or slow."""
    body = body_from_inputs(inputs)
    head, whole = body.json_length, _binary(target, inputs)
    size = len(body.data)
    yield Case("another method", (_http(target, b"", method="GET"),), Expect.REFUSAL)
    elsewhere = Target(target.host, "/v2/models/no-such-model/infer")
    yield Case("another model", (_binary(elsewhere, inputs),), Expect.REFUSAL)
    yield Case("Content-Length too small", (_http(target, body.data, head, size=str(size - 5)),), Expect.REFUSAL)
    # We say that no more comes, so nobody need answer; but who waits for more must not wait for ever.
    beyond = _http(target, body.data, head, size=str(size + 100))
    yield Case("Content-Length too large", (beyond,), Expect.REFUSAL, half_close=True, may_close=True)
    yield Case("a body that breaks off", (whole[: -size // 2],), Expect.REFUSAL, half_close=True, may_close=True)
    yield Case("Content-Length no number", (_http(target, body.data, head, size="many"),), Expect.REFUSAL)
    yield Case("an oversized body announced", (_http(target, b" " * 1024, size=str(2**40)),), Expect.REFUSAL)
    yield Case("no HTTP", (b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n",), Expect.REFUSAL, may_close=True)
    cut = len(whole) - size + 10
    thirds = (whole[:cut], whole[cut : cut + size // 2], whole[cut + size // 2 :])
    yield Case("a slow sender", thirds, Expect.SAME, pause_s=0.3)


# ---- writing


def _document(inputs: Inputs) -> dict[str, Any]:
    """The request as JSON, each tensor without elements: what is wrong with it is found before they are missed."""
    return {
        "inputs": [
            {"name": name, "datatype": datatype_of(tensor), "shape": [0], "data": list[object]()}
            for name, tensor in inputs.items()
        ]
    }


def _of_json(target: Target, name: str, document: Mapping[str, Any]) -> Case:
    return Case(name, (_http(target, orjson.dumps(document)),), Expect.REFUSAL)


def _binary(target: Target, inputs: Mapping[str, Tensor]) -> bytes:
    body = body_from_inputs(inputs)
    return _http(target, body.data, body.json_length)


def _http(
    target: Target, body: bytes, json_length: int | str | None = None, *, size: str | None = None, method: str = "POST"
) -> bytes:
    """size: Content-Length, if it is not the body's"""
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.host}", f"Content-Length: {size or len(body)}"]
    if json_length is not None:
        lines.append(f"{_HEADER}: {json_length}")
    return "\r\n".join((*lines, "", "")).encode() + body


def _unused(names: Mapping[str, object]) -> str:
    name = "nobody"
    while name in names:
        name += "_"
    return name
