"""ONNX models into ONNX models of a lower precision, weights inside. Used by the vendors whose runtime takes ONNX.

    INT8          quantise and dequantise nodes around each operator, ranges from calibration data
    INT8_DYNAMIC  weights in 8 bits, ranges of the activations computed in the graph
    INT4_WEIGHTS  the weights of MatMuls in blocks of 32 with a scale each, as operator MatMulNBits
    FP16          what `sixteen_bits` makes of the graph; its interface stays as it was

Knows no runtime that serves; the 8 bit recipes are ONNX Runtime's own tools.
"""

# The tools ship no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportAttributeAccessIssue=false

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import onnx
from google.protobuf.message import EncodeError
from onnx import helper, numpy_helper, version_converter

from graylift.domain.engine import EngineSpec, Precision
from graylift.engine.calibration import read_samples
from graylift.engine.sixteen_bits import in_16_bits
from graylift.engine.sources import read_whole_model
from graylift.errors import EngineError

_BLOCK = 32
"""Weights that share a scale, in INT4_WEIGHTS."""
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Where the time goes. Eight bits between the other operators cost accuracy, and OpenVINO fails on some of them."""
_PER_CHANNEL_OPSET = 13


def check_precision(spec: EngineSpec, runtime: str, available: Sequence[Precision]) -> None:
    """EngineError unless the runtime has the precision, and it alone comes with what it needs."""
    if spec.precision not in available:
        raise EngineError(
            f"{runtime} has no {spec.precision.value}; it has {', '.join(precision.value for precision in available)}"
        )
    if spec.precision is Precision.INT8 and spec.calibration is None:
        raise EngineError(
            "int8 needs calibration data, to find ranges with: an .npz with one array for each input, samples along "
            "the first axis; without any there is int8-dynamic"
        )
    if spec.precision is not Precision.INT8 and spec.calibration is not None:
        raise EngineError(f"calibration data are for int8 alone; leave them out of {spec.precision.value}")


def lowered(spec: EngineSpec) -> onnx.ModelProto:
    """The model of `spec` in its precision. EngineError if it cannot be had in it."""
    source = Path(spec.onnx)
    try:
        match spec.precision:
            case Precision.INT8:
                return _int8(source, Path(spec.calibration or ""))
            case Precision.INT8_DYNAMIC:
                return _int8_dynamic(source)
            case Precision.INT4_WEIGHTS:
                return _int4_weights(source)
            case Precision.FP16:
                return in_16_bits(read_whole_model(source), spec.precision, str(source))
            case Precision.FP32 | Precision.BF16:
                return read_whole_model(source)
            case _:
                assert_never(spec.precision)
    except (EngineError, OSError):
        raise
    except EncodeError as exc:
        raise EngineError(f"{source}: larger than the 2 GiB that can be lowered to {spec.precision.value}") from exc
    except Exception as exc:  # the tools raise whatever their graph surgery ran into
        raise EngineError(
            f"{source}: cannot be lowered to {spec.precision.value}: {type(exc).__name__}: {' '.join(str(exc).split())}"
        ) from exc


def _int8(source: Path, calibration: Path) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    samples = read_samples(calibration, source)

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
            return next(samples, None)

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        prepared, goal = _prepared(source, Path(folder)), Path(folder) / "int8.onnx"
        quantize_static(
            prepared,
            goal,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=_HEAVY,
            extra_options={
                # Scales per channel break the tool's widening of scales for tiny biases; biases stay in FP32 instead.
                "QDQDisableWeightAdjustForInt32Bias": True,
                "QuantizeBias": False,
                # What goes into a heavy operator is in 8 bits, and its weights are; rounding what comes out, or
                # products of two activations as in attention, costs accuracy and saves next to nothing.
                "OpTypesToExcludeOutputQuantization": _HEAVY,
                "MatMulConstBOnly": True,
            },
        )
        return onnx.load(goal)


def _int8_dynamic(source: Path) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        prepared, goal = _prepared(source, Path(folder)), Path(folder) / "int8.onnx"
        quantize_dynamic(prepared, goal, weight_type=QuantType.QInt8, per_channel=True)
        return onnx.load(goal)


def _prepared(source: Path, folder: Path) -> Path:
    """With inferred shapes and simple fusions, without which some operators are left as they are; and of an operator
    set that knows a scale for each channel."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = read_whole_model(source)
    if any(opset.domain in ("", "ai.onnx") and opset.version < _PER_CHANNEL_OPSET for opset in model.opset_import):
        model = version_converter.convert_version(model, _PER_CHANNEL_OPSET)
    whole, prepared = folder / "whole.onnx", folder / "prepared.onnx"
    onnx.save(model, whole)
    quant_pre_process(whole, prepared, skip_symbolic_shape=True)
    return prepared


def _int4_weights(source: Path) -> onnx.ModelProto:
    """Symmetric, rounding to nearest; the largest of a block becomes -8, so that all 16 steps are used."""
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        model = onnx.load(_prepared(source, Path(folder)))
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    replaced = 0
    for node in graph.node:
        tensor = weights.get(node.input[1]) if node.op_type == "MatMul" else None
        if tensor is None or len(tensor.dims) != 2 or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        packed, scales = _packed(numpy_helper.to_array(tensor))
        names = f"{tensor.name}/int4", f"{tensor.name}/scales"
        if names[0] not in weights:
            added = [numpy_helper.from_array(array, name) for name, array in zip(names, (packed, scales), strict=True)]
            graph.initializer.extend(added)
            weights.update((made.name, made) for made in added)
        rows, columns = tensor.dims
        node.CopyFrom(
            helper.make_node(
                "MatMulNBits",
                [node.input[0], *names],
                list(node.output),
                name=node.name,
                domain="com.microsoft",
                K=rows,
                N=columns,
                bits=4,
                block_size=_BLOCK,
                accuracy_level=1,  # in FP32: without it the activations may be rounded to 8 bits as well
            )
        )
        replaced += 1
    if not replaced:
        raise EngineError(
            f"{source}: int4-weights lowers MatMuls with constant FP32 weights, and the model has none; "
            "for convolutions there are int8 and int8-dynamic"
        )
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def _packed(weights: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """FP32[K,N] -> UINT8[N, blocks, 16], two weights to a byte, the first in its low half, and FP32[N * blocks]."""
    rows, columns = weights.shape
    blocks = -(-rows // _BLOCK)
    padded = np.zeros((columns, blocks * _BLOCK), np.float32)
    padded[:, :rows] = weights.T
    padded = padded.reshape(columns, blocks, _BLOCK)
    largest = np.take_along_axis(padded, np.abs(padded).argmax(axis=2, keepdims=True), axis=2)
    scales = largest / -8
    steps = np.divide(padded, scales, out=np.zeros_like(padded), where=scales != 0)
    codes = np.clip(np.rint(steps) + 8, 0, 15).astype(np.uint8)
    return codes[..., 0::2] | (codes[..., 1::2] << 4), scales.astype(np.float32).ravel()


@contextmanager
def _quiet() -> Generator[None]:
    """The tools talk to the root logger, and give advice that their caller has taken."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
