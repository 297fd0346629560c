"""The client's side of the Open Inference Protocol, as far as the demo's traffic needs it: binary tensors both ways.

Binary, because reading a JSON list of 2,048 numbers costs as much as the inference. Called by the scenarios.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson

from graylift.bench.load import Answer
from graylift.protocols.datatypes import Tensor, datatype_of
from graylift.protocols.open_inference import BINARY_HEADER
from graylift.protocols.tensors import blob_from_tensor, tensor_from_blob

_LENGTH_HEADER = BINARY_HEADER.decode()


@dataclass(frozen=True, slots=True)
class InferenceBody:
    """A request, ready to be sent to /v2/models/<service>/infer."""

    headers: Mapping[str, str]
    data: bytes


def body_from_tensor(name: str, tensor: Tensor, output: str) -> InferenceBody:
    """A request with one input that asks for one output, both in binary."""
    blob = blob_from_tensor(tensor)
    head = orjson.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "datatype": datatype_of(tensor),
                    "shape": tensor.shape,
                    "parameters": {"binary_data_size": len(blob)},
                }
            ],
            "outputs": [{"name": output, "parameters": {"binary_data": True}}],
        }
    )
    headers = {"content-type": "application/octet-stream", _LENGTH_HEADER: str(len(head))}
    return InferenceBody(headers, head + blob)


def tensor_from_answer(answer: Answer) -> Tensor:
    """The one output of an answer to `body_from_tensor`. ProtocolError if its shape and its bytes do not match;
    KeyError or ValueError for an answer that does not follow the protocol at all."""
    length = int(answer.headers[_LENGTH_HEADER])
    output = cast("dict[str, Any]", orjson.loads(answer.body[:length])["outputs"][0])
    blob = memoryview(answer.body)[length:]
    return tensor_from_blob(blob, output["datatype"], tuple(output["shape"]), output["name"])
