"""The client's side of the Open Inference Protocol: tensors into a request's body, an answer's body into tensors.

Binary both ways: reading a JSON list of 2,048 numbers costs as much as many an inference. It must not know how bytes
travel. Called by `checks/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import orjson

from graylift.errors import ProtocolError
from graylift.protocols.datatypes import DTYPES, Tensor, datatype_of
from graylift.protocols.open_inference import Body
from graylift.protocols.tensors import blob_from_tensor, tensor_from_blob


def body_from_inputs(inputs: Mapping[str, Tensor]) -> Body:
    """A request that asks for all outputs, in binary."""
    blobs = {name: blob_from_tensor(tensor) for name, tensor in inputs.items()}
    head = orjson.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "datatype": datatype_of(tensor),
                    "shape": tensor.shape,
                    "parameters": {"binary_data_size": len(blobs[name])},
                }
                for name, tensor in inputs.items()
            ],
            "parameters": {"binary_data_output": True},
        }
    )
    return Body(b"".join((head, *blobs.values())), len(head))


def outputs_from_body(body: bytes, json_length: int | None) -> dict[str, Tensor]:
    """The outputs of an answer, by name. ProtocolError for anything else.

    json_length: value of the answer's binary header, None if it has none
    """
    head = body if json_length is None else body[:json_length]
    tail = memoryview(body)[len(head) :]
    outputs: dict[str, Tensor] = {}
    offset = 0
    try:
        for entry in cast("list[dict[str, Any]]", orjson.loads(head)["outputs"]):
            name, datatype, shape = str(entry["name"]), str(entry["datatype"]), tuple(map(int, entry["shape"]))
            size = entry.get("parameters", {}).get("binary_data_size")
            if size is None:
                outputs[name] = _tensor_from_list(entry["data"], datatype, shape)
            else:
                outputs[name] = tensor_from_blob(tail[offset : offset + size], datatype, shape, f"output {name!r}")
                offset += size
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ProtocolError(f"the answer is not one of the Open Inference Protocol: {type(exc).__name__}") from exc
    return outputs


def _tensor_from_list(data: list[Any], datatype: str, shape: tuple[int, ...]) -> Tensor:
    """From a flat list of JSON, where null stands for a number that JSON cannot write."""
    if datatype == "BYTES":
        texts = np.empty(len(data), dtype=np.object_)
        texts[:] = [str(text).encode() for text in data]
        return texts.reshape(shape)
    numbers = [math.nan if value is None else value for value in data]
    return np.array(numbers, dtype=DTYPES[datatype]).reshape(shape)
