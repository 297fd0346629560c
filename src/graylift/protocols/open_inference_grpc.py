"""The Open Inference Protocol v2 over gRPC: messages into requests, tensors into messages.

The same requests as over HTTP (`open_inference`); only how they are written differs. Tensors come as raw bytes, all of
them, or as typed lists; outputs always go as raw bytes, as Triton's do.
It must not know which model is served, nor how messages travel. Called by `serve/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graylift.domain.engine import Interface, TensorSpec
from graylift.errors import ProtocolError
from graylift.protocols.datatypes import DTYPES, Tensor, datatype_of
from graylift.protocols.open_inference import (
    EXTENSIONS,
    InferenceRequest,
    OutputRequest,
    checked_shape,
    turn_from_parameters,
    unknown_output,
)
from graylift.protocols.tensors import blob_from_tensor, tensor_from_blob, tensor_from_elements
from graylift.protos import open_inference_pb2 as pb

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The list that holds a datatype's elements. FP16 has none."""
_UNSUPPORTED = ("shared_memory_region", "classification")


def request_from_message(message: pb.ModelInferRequest) -> InferenceRequest:
    """Read an inference request. Raises ProtocolError, and nothing else, for anything that is not one."""
    raw = message.raw_input_contents
    if not message.inputs:
        raise ProtocolError("inputs: expected at least one tensor, got none")
    if raw and len(raw) != len(message.inputs):
        raise ProtocolError(
            f"raw_input_contents has {len(raw)} entries for {len(message.inputs)} inputs; expected one each, or none"
        )
    inputs: dict[str, Tensor] = {}
    for index, entry in enumerate(message.inputs):
        where = f"input {entry.name!r}"
        if not entry.name or entry.name in inputs:
            raise ProtocolError(f"inputs[{index}]: expected a name of its own, got {entry.name!r}")
        if entry.datatype not in DTYPES:
            raise ProtocolError(f"{where}: datatype is {entry.datatype[:20]!r}; expected one of {', '.join(DTYPES)}")
        _refuse_unsupported(entry.parameters, where)
        shape = checked_shape(entry.shape, where)
        if raw:
            if entry.HasField("contents"):
                raise ProtocolError(f"{where}: both `contents` and raw_input_contents are given; send one of them")
            inputs[entry.name] = tensor_from_blob(memoryview(raw[index]), entry.datatype, shape, where)
        else:
            inputs[entry.name] = _from_contents(entry, shape, where)
    return InferenceRequest(
        id=message.id or None,
        inputs=inputs,
        outputs=_outputs(message.outputs),
        binary=True,
        turn=turn_from_parameters({name: _value(given) for name, given in message.parameters.items()}),
    )


def message_from_outputs(
    request: InferenceRequest, outputs: Mapping[str, Tensor], *, model: str, version: str
) -> pb.ModelInferResponse:
    """Write the answer to `request`. ProtocolError for an output that was asked for and is not there."""
    answer = pb.ModelInferResponse(model_name=model, model_version=version, id=request.id or "")
    wanted = tuple(outputs) if request.outputs is None else tuple(asked.name for asked in request.outputs)
    for name in wanted:
        tensor = outputs.get(name)
        if tensor is None:
            raise ProtocolError(unknown_output(name, tuple(outputs)))
        answer.outputs.add(name=name, datatype=datatype_of(tensor), shape=tensor.shape)
        answer.raw_output_contents.append(blob_from_tensor(tensor))
    return answer


def server_metadata_message(name: str, version: str) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name=name, version=version, extensions=EXTENSIONS)


def model_metadata_message(name: str, version: str, platform: str, interface: Interface) -> pb.ModelMetadataResponse:
    """-1 is a dynamic dimension."""

    def described(specs: Sequence[TensorSpec]) -> list[pb.ModelMetadataResponse.TensorMetadata]:
        return [
            pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)
            for spec in specs
        ]

    return pb.ModelMetadataResponse(
        name=name,
        versions=[version],
        platform=platform,
        inputs=described(interface.inputs),
        outputs=described(interface.outputs),
    )


def _from_contents(entry: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...], where: str) -> Tensor:
    field = _CONTENTS.get(entry.datatype)
    if field is None:
        raise ProtocolError(f"{where}: {entry.datatype} has no typed list; send it in raw_input_contents")
    given = [described.name for described, _ in entry.contents.ListFields()]
    if given not in ([field], []):
        raise ProtocolError(f"{where}: {entry.datatype} is read from {field}, but the message has {', '.join(given)}")
    return tensor_from_elements(list(getattr(entry.contents, field)), entry.datatype, shape, where)


def _outputs(asked: Sequence[pb.ModelInferRequest.InferRequestedOutputTensor]) -> tuple[OutputRequest, ...] | None:
    outputs: dict[str, OutputRequest] = {}
    for index, entry in enumerate(asked):
        where = f"outputs[{index}]"
        if not entry.name or entry.name in outputs:
            raise ProtocolError(f"{where}: expected a name of its own, got {entry.name!r}")
        _refuse_unsupported(entry.parameters, where)
        outputs[entry.name] = OutputRequest(entry.name, binary=True)
    return tuple(outputs.values()) or None


def _refuse_unsupported(parameters: Mapping[str, pb.InferParameter], where: str) -> None:
    for name in _UNSUPPORTED:
        if name in parameters:
            raise ProtocolError(f"{where}: the parameter {name} is not supported")


def _value(parameter: pb.InferParameter) -> Any:
    chosen = parameter.WhichOneof("parameter_choice")
    return None if chosen is None else getattr(parameter, chosen)
