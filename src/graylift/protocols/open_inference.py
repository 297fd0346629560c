"""The Open Inference Protocol v2 over HTTP: bodies into requests, tensors into bodies.

JSON tensors and the binary tensor extension (a JSON head of `Inference-Header-Content-Length` bytes, then the tensors'
raw little-endian bytes), as the kserve/open-inference-protocol specification and Triton's `extension_binary_data.md`
say it.
The requests themselves, and what is right in them, it shares with the protocol's gRPC form (`open_inference_grpc`).
It must not know which model is served, nor how bytes travel. Called by `serve/`.

Whatever bytes come in, the answer is a request or a ProtocolError that says what was expected and what came; the
values of tensors never appear in it. Nothing is allocated for a shape before the data that fills it is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson

from graylift.domain.engine import Interface, TensorSpec
from graylift.errors import ProtocolError
from graylift.protocols.datatypes import DTYPES, Tensor, datatype_of
from graylift.protocols.tensors import blob_from_tensor, json_from_tensor, kind_of, tensor_from_blob, tensor_from_json

BINARY_HEADER = b"inference-header-content-length"
"""The header (lower case) that gives the length of the JSON head where tensors follow it in binary."""

EXTENSIONS = ("binary_tensor_data",)

_MAX_RANK = 32
_MAX_NAME = 1024
_MAX_EMPTY_SPAN = 2**24
"""Bound on the dimensions of a tensor without elements: a shape like [1000000000000, 0] costs its sender nothing, but
could make a model allocate for the dimensions that are not 0."""

_LONGEST_TIMEOUT_US = 86_400 * 10**6

_UNSUPPORTED = ("shared_memory_region", "classification")


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """An output that the client asked for by name. `binary`: as raw bytes after the JSON head."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """A request's parameters `priority` and `timeout`, as Triton has them.

    priority:  1 is served first, then 2 (the default), then 3
    timeout_s: how long it may wait for its turn; None: as long as it takes
    """

    priority: int = 2
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request.

    id:      to be echoed, None if none was sent
    inputs:  tensors by name, possibly views into the body
    outputs: what was asked for, in this order; None asks for all
    binary:  how outputs travel that are not named in `outputs`
    turn:    what it says of its turn in the queue
    """

    id: str | None
    inputs: Mapping[str, Tensor]
    outputs: tuple[OutputRequest, ...] | None
    binary: bool
    turn: Turn = Turn()


@dataclass(frozen=True, slots=True)
class Body:
    """An answer. `json_length`: bytes of its JSON head where binary tensors follow; None if all of it is JSON."""

    data: bytes
    json_length: int | None


def request_from_body(body: bytes, json_length: int | None) -> InferenceRequest:
    """Read an inference request.

    json_length: value of the binary header, None if it was not sent (then the whole body is JSON)
    Raises ProtocolError, and nothing else, for anything that is not a request.
    """
    head, tail = _cut(body, json_length)
    document = _object(_parsed(head), "the request")
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise ProtocolError(f"id: expected a string, got {kind_of(request_id)}")
    parameters = _parameters(document, "the request")
    binary = _flag(parameters, "binary_data_output", "parameters", default=False)
    return InferenceRequest(
        id=request_id,
        inputs=_inputs(document.get("inputs"), tail),
        outputs=_outputs(document.get("outputs"), binary),
        binary=binary,
        turn=turn_from_parameters(parameters) if parameters else Turn(),
    )


def turn_from_parameters(parameters: Mapping[str, object]) -> Turn:
    """ProtocolError for a priority or a timeout that cannot be one."""
    priority = parameters.get("priority", 0)
    if type(priority) is not int or not 0 <= priority <= 3:
        raise ProtocolError(
            f"parameters: priority must be 1 (served first), 2 (the default, as is 0) or 3, got {_said(priority)}"
        )
    timeout_us = parameters.get("timeout", 0)
    if type(timeout_us) is not int or not 0 <= timeout_us <= _LONGEST_TIMEOUT_US:
        raise ProtocolError(
            f"parameters: timeout must be microseconds from 0 (none) to {_LONGEST_TIMEOUT_US}, got {_said(timeout_us)}"
        )
    return Turn(priority or 2, timeout_us / 1e6 if timeout_us else None)


def body_from_outputs(request: InferenceRequest, outputs: Mapping[str, Tensor], *, model: str, version: str) -> Body:
    """Write the answer to `request`.

    outputs: by name, in the order of the model's interface; those that the request did not ask for are left out
    Raises ProtocolError for an output that was asked for and is not there, or that has no JSON form
    (FP16, and BYTES that are no UTF-8); NaN and infinities become null in JSON, which has no word for them.
    """
    wanted = request.outputs
    if wanted is None:
        wanted = tuple(OutputRequest(name, request.binary) for name in outputs)
    entries: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for asked in wanted:
        tensor = outputs.get(asked.name)
        if tensor is None:
            raise ProtocolError(unknown_output(asked.name, tuple(outputs)))
        entry: dict[str, Any] = {"name": asked.name, "datatype": datatype_of(tensor), "shape": list(tensor.shape)}
        if asked.binary:
            blob = blob_from_tensor(tensor)
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            entry["data"] = json_from_tensor(asked.name, tensor)
        entries.append(entry)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": entries}
    if request.id is not None:
        document["id"] = request.id
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not any(asked.binary for asked in wanted):
        return Body(head, None)
    return Body(b"".join((head, *blobs)), len(head))


def unknown_output(name: str, known: Sequence[str]) -> str:
    """The sentence for a requested output that the model does not have."""
    return f"outputs: the model has no output {name!r}; it has {', '.join(known)}"


def server_metadata(name: str, version: str) -> bytes:
    """Document of `GET /v2`."""
    return orjson.dumps({"name": name, "version": version, "extensions": EXTENSIONS})


def model_metadata(name: str, version: str, platform: str, interface: Interface) -> bytes:
    """Document of `GET /v2/models/{name}`. -1 is a dynamic dimension."""

    def described(tensors: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [{"name": t.name, "datatype": t.datatype, "shape": t.shape} for t in tensors]

    return orjson.dumps(
        {
            "name": name,
            "versions": [version],
            "platform": platform,
            "inputs": described(interface.inputs),
            "outputs": described(interface.outputs),
        }
    )


def error_document(message: str) -> bytes:
    """Document of every answer that is an error."""
    return orjson.dumps({"error": message})


# ---- reading


def _cut(body: bytes, json_length: int | None) -> tuple[memoryview, memoryview]:
    """JSON head and binary tail."""
    view = memoryview(body)
    if json_length is None:
        return view, view[len(body) :]
    if json_length == 0:
        raise ProtocolError(
            "Inference-Header-Content-Length: 0 (a raw tensor without a JSON head) is not supported; "
            "send a head that names the input, its shape and its datatype"
        )
    if not 0 < json_length <= len(body):
        raise ProtocolError(f"Inference-Header-Content-Length is {json_length}, but the body has {len(body)} bytes")
    return view[:json_length], view[json_length:]


def _parsed(head: memoryview) -> object:
    try:
        return orjson.loads(head)
    except orjson.JSONDecodeError as exc:
        if not head:
            raise ProtocolError("the body is empty; expected a JSON object with `inputs`") from None
        raise ProtocolError(f"the request is not JSON: {exc.msg} (line {exc.lineno}, column {exc.colno})") from exc


def _inputs(value: object, tail: memoryview) -> dict[str, Tensor]:
    if not isinstance(value, list) or not value:
        raise ProtocolError(f"inputs: expected a list of at least one tensor, got {kind_of(cast('object', value))}")
    inputs: dict[str, Tensor] = {}
    offset = 0
    for index, entry in enumerate(cast("list[object]", value)):
        document = _object(entry, f"inputs[{index}]")
        name = _name(document, f"inputs[{index}]")
        if name in inputs:
            raise ProtocolError(f"inputs[{index}]: a second tensor named {name!r}")
        where = f"input {name!r}"
        datatype = document.get("datatype")
        if not isinstance(datatype, str) or datatype not in DTYPES:
            given = repr(datatype[:20]) if isinstance(datatype, str) else kind_of(datatype)
            raise ProtocolError(f"{where}: datatype is {given}; expected one of {', '.join(DTYPES)}")
        shape = _shape(document.get("shape"), where)
        size = _parameters(document, where).get("binary_data_size")
        if size is None:
            inputs[name] = tensor_from_json(document.get("data"), datatype, shape, where)
            continue
        if "data" in document:
            raise ProtocolError(f"{where}: both `data` and binary_data_size are given; send one of them")
        if type(size) is not int or size < 0:
            raise ProtocolError(f"{where}: binary_data_size must be a number of bytes, got {kind_of(size)}")
        if size > len(tail) - offset:
            raise ProtocolError(
                f"{where}: binary_data_size is {size}, but {len(tail) - offset} bytes are left after the JSON head "
                "(its length goes into the header Inference-Header-Content-Length)"
            )
        inputs[name] = tensor_from_blob(tail[offset : offset + size], datatype, shape, where)
        offset += size
    if offset != len(tail):
        raise ProtocolError(f"the body has {len(tail)} bytes after its JSON head, but the inputs claim {offset}")
    return inputs


def _outputs(value: object, binary_default: bool) -> tuple[OutputRequest, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ProtocolError(f"outputs: expected a list, got {kind_of(value)}")
    outputs: dict[str, OutputRequest] = {}
    for index, entry in enumerate(cast("list[object]", value)):
        where = f"outputs[{index}]"
        document = _object(entry, where)
        name = _name(document, where)
        if name in outputs:
            raise ProtocolError(f"{where}: {name!r} is asked for twice")
        parameters = _parameters(document, where)
        for unsupported in _UNSUPPORTED:
            if unsupported in parameters:
                raise ProtocolError(f"{where}: the parameter {unsupported} is not supported")
        outputs[name] = OutputRequest(name, _flag(parameters, "binary_data", where, default=binary_default))
    # As in Triton, an empty list asks for everything.
    return tuple(outputs.values()) or None


def _shape(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ProtocolError(f"{where}: shape must be a list of integers, got {kind_of(value)}")
    return checked_shape(cast("list[object]", value), where)


def checked_shape(dims: Sequence[object], where: str) -> tuple[int, ...]:
    """ProtocolError unless a tensor may have these dimensions."""
    if len(dims) > _MAX_RANK:
        raise ProtocolError(f"{where}: shape has {len(dims)} dimensions; at most {_MAX_RANK} are possible")
    shape: list[int] = []
    for dim in dims:
        if type(dim) is not int or dim < 0:
            raise ProtocolError(f"{where}: shape must be a list of integers from 0 on")
        shape.append(dim)
    if 0 in shape and math.prod(max(dim, 1) for dim in shape) > _MAX_EMPTY_SPAN:
        raise ProtocolError(f"{where}: shape {shape} is too large for a tensor without elements")
    return tuple(shape)


# ---- pieces of JSON


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{where}: expected a JSON object, got {kind_of(value)}")
    return cast("dict[str, object]", value)


def _name(document: Mapping[str, object], where: str) -> str:
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise ProtocolError(f"{where}: name must be a string that is not empty, got {kind_of(name)}")
    if len(name) > _MAX_NAME:
        raise ProtocolError(f"{where}: name has {len(name)} characters; at most {_MAX_NAME} are possible")
    return name


def _parameters(document: Mapping[str, object], where: str) -> Mapping[str, object]:
    parameters = document.get("parameters")
    return {} if parameters is None else _object(parameters, f"{where}: parameters")


def _said(value: object) -> str:
    return str(value) if type(value) is int else kind_of(value)


def _flag(parameters: Mapping[str, object], key: str, where: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise ProtocolError(f"{where}: {key} must be true or false, got {kind_of(value)}")
    return value
