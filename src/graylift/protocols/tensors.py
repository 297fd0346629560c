"""One tensor: its JSON or binary form into an array and back, as the Open Inference Protocol v2 writes it.

Called by `open_inference`. Arrays are views of the bytes they came in where that is possible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import cast

import numpy as np

from graylift.errors import ProtocolError
from graylift.protocols.datatypes import DTYPES, Tensor

_JSON_TYPES: Mapping[str, frozenset[type]] = {
    "BOOL": frozenset({bool}),
    "BYTES": frozenset({str}),
    "FP32": frozenset({int, float}),
    "FP64": frozenset({int, float}),
    **{name: frozenset({int}) for name, dtype in DTYPES.items() if dtype.kind in "iu"},
}
_WORDS = {bool: "booleans", str: "strings", int: "integers", float: "numbers", list: "lists", dict: "objects"}


def tensor_from_json(data: object, datatype: str, shape: tuple[int, ...], where: str) -> Tensor:
    """The tensor that a JSON list holds, flat in row-major order or nested as `shape` says.

    where: how messages call the tensor. Raises ProtocolError where data, datatype and shape do not match.
    """
    if datatype == "FP16":
        raise ProtocolError(f"{where}: FP16 has no JSON form; send it in binary (binary_data_size)")
    if not isinstance(data, list):
        raise ProtocolError(f"{where}: expected `data` (a list) or the parameter binary_data_size, got {kind_of(data)}")
    elements = _flat(cast("list[object]", data), shape, where)
    types = set(map(type, elements))
    if not types <= _JSON_TYPES[datatype]:
        wrong = sorted(_WORDS.get(t, "null") for t in types - _JSON_TYPES[datatype])
        raise ProtocolError(f"{where}: {datatype} takes {_expected(datatype)}, but data holds {' and '.join(wrong)}")
    if datatype == "BYTES":
        elements = [cast("str", text).encode() for text in elements]
    tensor = tensor_from_elements(elements, datatype, shape, where)
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        raise ProtocolError(f"{where}: data holds a number that {datatype} cannot represent")
    return tensor


def tensor_from_elements(elements: Sequence[object], datatype: str, shape: tuple[int, ...], where: str) -> Tensor:
    """The tensor of elements that are of the datatype's kind already, in row-major order.

    Raises ProtocolError where they are too few, too many, or beyond what the datatype holds.
    """
    count = math.prod(shape)
    if len(elements) != count:
        raise ProtocolError(f"{where}: shape {list(shape)} has {count} elements, but data has {len(elements)}")
    if datatype == "BYTES":
        return _object_array(cast("Sequence[bytes]", elements), shape)
    try:
        with np.errstate(over="ignore"):  # it becomes infinity
            return np.array(elements, dtype=DTYPES[datatype]).reshape(shape)
    except OverflowError as exc:
        raise ProtocolError(f"{where}: data holds a number that {datatype} cannot represent") from exc


def _flat(data: list[object], shape: tuple[int, ...], where: str) -> list[object]:
    """Elements in row-major order; `data` is flat already, or nested exactly as the shape says."""
    if not data or not isinstance(data[0], list):
        return data
    level: list[object] = [data]
    for depth, dim in enumerate(shape):
        if not all(isinstance(row, list) and len(cast("list[object]", row)) == dim for row in level):
            raise ProtocolError(
                f"{where}: data is nested, but not as shape {list(shape)} says: "
                f"expected lists of {dim} at depth {depth + 1}"
            )
        level = list(chain.from_iterable(cast("list[list[object]]", level)))
    return level


def tensor_from_blob(blob: memoryview, datatype: str, shape: tuple[int, ...], where: str) -> Tensor:
    """The tensor that raw little-endian bytes hold; a view of them if their address suits the datatype.

    where: how messages call the tensor. Raises ProtocolError where bytes and shape do not match.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        return _object_array(_byte_strings(blob, count, where), shape)
    dtype = DTYPES[datatype]
    if len(blob) != count * dtype.itemsize:
        raise ProtocolError(
            f"{where}: {datatype} of shape {list(shape)} takes {count * dtype.itemsize} bytes, "
            f"but binary_data_size is {len(blob)}"
        )
    if datatype == "BOOL" and (np.frombuffer(blob, np.uint8) > 1).any():
        raise ProtocolError(f"{where}: BOOL takes bytes of 0 or 1, but the data holds others")
    # Kernels may read whole vectors: a JSON head of odd length must not hand them an address they cannot load from.
    return np.require(np.frombuffer(blob, dtype), requirements="A").reshape(shape)


def _byte_strings(blob: memoryview, count: int, where: str) -> list[bytes]:
    """Elements of a BYTES tensor: each a little-endian length of 4 bytes, then so many bytes."""
    if count * 4 > len(blob):
        raise ProtocolError(
            f"{where}: {count} elements of BYTES take at least {count * 4} bytes, but binary_data_size is {len(blob)}"
        )
    elements: list[bytes] = []
    position = 0
    for index in range(count):
        start = position + 4
        length = int.from_bytes(blob[position:start], "little")
        position = start + length
        if start > len(blob) or position > len(blob):
            raise ProtocolError(f"{where}: element {index} of {count} reaches beyond its {len(blob)} bytes")
        elements.append(bytes(blob[start:position]))
    if position != len(blob):
        raise ProtocolError(
            f"{where}: its {count} elements end after {position} bytes, but binary_data_size is {len(blob)}"
        )
    return elements


def _object_array(elements: Sequence[bytes], shape: tuple[int, ...]) -> Tensor:
    # Filled, not converted: numpy would turn a list of bytes into fixed-width strings and lose trailing zeros.
    tensor = np.empty(len(elements), dtype=np.object_)
    tensor[:] = elements
    return tensor.reshape(shape)


def blob_from_tensor(tensor: Tensor) -> bytes:
    """The raw little-endian bytes of a tensor, row-major."""
    if tensor.dtype.kind != "O":
        return tensor.tobytes()
    parts: list[bytes] = []
    for element in cast("list[bytes]", tensor.ravel().tolist()):
        parts += (len(element).to_bytes(4, "little"), element)
    return b"".join(parts)


def json_from_tensor(name: str, tensor: Tensor) -> object:
    """What orjson (with OPT_SERIALIZE_NUMPY) writes as the tensor's flat list. ProtocolError if it has no JSON form."""
    if tensor.dtype.kind == "O":
        try:
            return [element.decode() for element in cast("list[bytes]", tensor.ravel().tolist())]
        except UnicodeDecodeError as exc:
            raise ProtocolError(
                f"output {name!r} holds bytes that are not UTF-8, so it has no JSON form; ask for it with binary_data"
            ) from exc
    if tensor.dtype == DTYPES["FP16"]:
        raise ProtocolError(f"output {name!r} is FP16, which has no JSON form; ask for it with binary_data")
    return np.ascontiguousarray(tensor).ravel()


def _expected(datatype: str) -> str:
    types = _JSON_TYPES[datatype]
    return "numbers" if float in types else _WORDS[next(iter(types))]


def kind_of(value: object) -> str:
    """What came, by kind: values stay out of messages."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string" if value else "an empty string"
        case list():
            return "a list" if value else "an empty list"
        case _:
            return "an object"
