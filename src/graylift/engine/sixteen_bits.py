"""An FP32 model into one that computes in FP16 or BF16, for runtimes that compute in the types of the file.

Inputs and outputs keep their type, so clients see no difference. A node stays in 32 bits if
- its operator adds up or spreads the range of its numbers (`_WIDE`): that is where 16 bits overflow or lose the small;
- it has a subgraph: If, Loop and Scan are left as they are;
- ONNX does not allow its inputs in 16 bits, as the scales of Resize, at the model's opset;
- a small constant of it, an epsilon for instance, would become 0.
Constants beyond the range of FP16 (the "minus infinity" of a mask) become its largest number. Casts stand only where a
16-bit and a 32-bit node meet. Uses `onnx` alone; called by the vendors whose networks are strongly typed.
"""

# onnx types its paths and messages partially.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import EncodeError
from onnx import TensorProto, helper, numpy_helper

from graylift.domain.engine import Precision
from graylift.engine.sources import nodes_of
from graylift.errors import EngineError

_WIDE = frozenset({
    "Cast", "CastLike", "CumSum", "Exp", "GroupNormalization", "InstanceNormalization",
    "LayerNormalization", "Log", "LogSoftmax", "MeanVarianceNormalization", "Pow", "RMSNormalization", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "SoftmaxCrossEntropyLoss", "Softplus", "Sqrt", "QuantizeLinear", "DequantizeLinear",
    "DynamicQuantizeLinear",
})  # fmt: skip

_ELEMENTS = {Precision.FP16: TensorProto.FLOAT16, Precision.BF16: TensorProto.BFLOAT16}
_TYPES = {Precision.FP16: "tensor(float16)", Precision.BF16: "tensor(bfloat16)"}
_SMALLEST = {Precision.FP16: 2.0**-24, Precision.BF16: 2.0**-133}
_LARGEST_FP16 = 65504.0
_SMALL_CONSTANT = 64
"""Elements. A larger one is a weight, of which single numbers may become 0."""

_BF16_OPSET = 22
"""The first in which nearly every operator, Conv too, may compute in BF16."""

_TWO_GIB = 2**31 - 1


def write_in_16_bits(source: Path, precision: Precision, folder: Path) -> Path:
    """The model at `source`, or its copy in 16 bits in `folder`; the model itself if it has no weights in 32 bits.

    EngineError if the model cannot be read, or not be raised to an opset that knows BF16.
    """
    try:
        model = onnx.load(source)
    except (ValueError, OSError, onnx.checker.ValidationError) as exc:
        raise EngineError(f"{source}: cannot be read with its external data: {exc}") from exc
    if not any(constant.data_type == TensorProto.FLOAT for constant in _constants(model)):
        return source
    lowered = in_16_bits(model, precision, str(source))
    destination = folder / "model.onnx"
    try:
        external = lowered.ByteSize() > _TWO_GIB
        onnx.save(lowered, destination, save_as_external_data=external, location="weights" if external else None)
    except (EncodeError, ValueError) as exc:
        raise EngineError(f"{source}: cannot be written in {precision.value}: {exc}") from exc
    return destination


def in_16_bits(model: onnx.ModelProto, precision: Precision, source: str) -> onnx.ModelProto:
    """A copy of the model that computes in `precision`. source: for messages"""
    if precision is Precision.BF16 and _opset(model) < _BF16_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _BF16_OPSET)
        except RuntimeError as exc:  # of its C++ part
            reason = str(exc).splitlines()[0]
            raise EngineError(
                f"{source}: opset {_opset(model)} does not know bf16, and the model cannot be raised to opset "
                f"{_BF16_OPSET} ({reason}); export it with opset {_BF16_OPSET}, or build it as fp16"
            ) from exc
    try:
        typed = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError) as exc:
        raise EngineError(f"{source}: its types cannot be told, which {precision.value} needs: {exc}") from exc
    known = {value.name for value in (*typed.graph.value_info, *typed.graph.output)}
    for node in typed.graph.node:
        if any(name and name not in known for name in node.output):
            raise EngineError(
                f"{source}: ONNX cannot tell the type of what operator {node.op_type}, node {node.name!r} gives, which "
                f"{precision.value} needs; export the model in {precision.value} and build it as fp32"
            )
    return _Lowering(typed, precision).model()


@dataclass(slots=True)
class _Versions:
    """Which versions of a 32-bit value the new graph has: under its own name in 32 bits, under another in 16."""

    wide: bool = False
    narrow: bool = False


class _Lowering:
    """The nodes of one graph, in order, each in the width that suits it; a cast where a width is first asked for."""

    def __init__(self, typed: onnx.ModelProto, precision: Precision) -> None:
        self._typed = typed
        self._precision = precision
        self._opsets = {entry.domain: entry.version for entry in typed.opset_import}
        self._constants = {constant.name: constant for constant in typed.graph.initializer}
        self._values = {name: _Versions() for name in _floats(typed)}
        self._nodes: list[onnx.NodeProto] = []
        self._kept: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        graph = self._typed.graph
        for value in (*graph.input, *graph.initializer):
            if value.name in self._values:
                self._values[value.name].wide = True
        for node in graph.node:
            self._add(node)
        for output in graph.output:
            self._wide(output.name)
        used = {name for node in self._nodes for name in _reads(node)} | {output.name for output in graph.output}
        constants = [c for c in (*self._kept, *graph.initializer) if c.name in used]
        lowered = onnx.ModelProto()
        lowered.CopyFrom(self._typed)
        del lowered.graph.node[:], lowered.graph.initializer[:], lowered.graph.value_info[:]
        lowered.graph.node.extend(self._nodes)
        lowered.graph.initializer.extend(constants)
        return lowered

    def _add(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant" and node.output[0] in self._values:
            # As an initializer: its value may be needed in both widths.
            value = helper.get_node_attr_value(node, node.attribute[0].name)
            array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value, np.float32)
            constant = numpy_helper.from_array(array, node.output[0])
            self._constants[constant.name] = constant
            self._kept.append(constant)
            self._values[constant.name].wide = True
            return
        schema = self._schema(node)
        narrow = (
            schema is not None and node.op_type not in _WIDE and not any(a.g.node or a.graphs for a in node.attribute)
        )
        narrow = narrow and not any(self._vanishes(name) for name in node.input)
        if not narrow or schema is None:
            for name in _reads(node):
                self._wide(name)
            for name in node.output:
                if name in self._values:
                    self._values[name].wide = True
            self._nodes.append(node)
            return
        new = onnx.NodeProto()
        new.CopyFrom(node)
        for number, name in enumerate(node.input):
            if name in self._values:
                allowed = _types(schema, schema.inputs, number)
                new.input[number] = self._narrow(name) if _TYPES[self._precision] in allowed else self._wide(name)
        for number, name in enumerate(node.output):
            if name in self._values:
                self._values[name].narrow = True
                new.output[number] = self._name(name)
        for attribute in new.attribute:  # ConstantOfShape
            if attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(self._lowered(attribute.t, attribute.t.name))
        self._nodes.append(new)

    def _schema(self, node: onnx.NodeProto) -> onnx.defs.OpSchema | None:
        """None if the node stays in 32 bits: for its range, a subgraph, or because ONNX knows it in 32 bits alone."""
        domain = node.domain
        if node.op_type in _WIDE or any(a.g.node or a.graphs for a in node.attribute):
            return None
        if domain not in self._opsets or not onnx.defs.has(node.op_type, domain):
            return None
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opsets[domain], domain)
        except onnx.defs.SchemaError:
            return None
        wanted = _TYPES[self._precision]
        gives = [number for number, name in enumerate(node.output) if name in self._values]
        takes = [number for number, name in enumerate(node.input) if name in self._values]
        if not all(wanted in _types(schema, schema.outputs, number) for number in gives):
            return None
        # One that takes numbers in 32 bits alone and gives them would have its output's type from nowhere.
        if gives and takes and not any(wanted in _types(schema, schema.inputs, number) for number in takes):
            return None
        return schema

    def _vanishes(self, name: str) -> bool:
        constant = self._constants.get(name)
        if constant is None or name not in self._values:
            return False
        array = np.abs(numpy_helper.to_array(constant))
        return array.size <= _SMALL_CONSTANT and bool(np.any((array > 0) & (array < _SMALLEST[self._precision])))

    def _wide(self, name: str) -> str:
        """The value in 32 bits; of a value that has no such version one is cast."""
        versions = self._values.get(name)
        if versions is not None and not versions.wide:
            self._nodes.append(self._cast(self._name(name), name, TensorProto.FLOAT))
            versions.wide = True
        return name

    def _narrow(self, name: str) -> str:
        versions = self._values[name]
        lowered = self._name(name)
        if not versions.narrow:
            versions.narrow = True
            if name in self._constants:
                self._kept.append(self._lowered(self._constants[name], lowered))
            else:
                self._nodes.append(self._cast(name, lowered, _ELEMENTS[self._precision]))
        return lowered

    def _name(self, name: str) -> str:
        return f"{name}.{self._precision.value}"

    def _cast(self, name: str, to: str, element: int) -> onnx.NodeProto:
        return helper.make_node("Cast", [name], [to], name=f"{name}.cast", to=element)

    def _lowered(self, constant: onnx.TensorProto, name: str) -> onnx.TensorProto:
        array = numpy_helper.to_array(constant)
        if self._precision is Precision.FP16:
            return numpy_helper.from_array(np.clip(array, -_LARGEST_FP16, _LARGEST_FP16).astype(np.float16), name)
        # Rounded to the nearest, ties to even: the upper half of the 32 bits.
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
        upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        return helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, upper.tobytes(), raw=True)


def _floats(typed: onnx.ModelProto) -> Iterator[str]:
    """Names of all values of the main graph that are tensors in 32 bits."""
    graph = typed.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            yield value.name
    for constant in graph.initializer:
        if constant.data_type == TensorProto.FLOAT:
            yield constant.name


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node takes, and what its subgraphs take from outside or name themselves."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (output.name for output in graph.output)
            for inner in graph.node:
                yield from _reads(inner)


def _types(schema: onnx.defs.OpSchema, parameters: object, number: int) -> frozenset[str]:
    """The types that ONNX allows at this place; the last parameter stands for all that follow if it may be repeated."""
    formal = list(parameters)  # pyright: ignore[reportArgumentType]
    parameter: onnx.defs.OpSchema.FormalParameter = formal[min(number, len(formal) - 1)]
    for constraint in schema.type_constraints:
        if constraint.type_param_str == parameter.type_str:
            return frozenset(constraint.allowed_type_strs)
    return frozenset({parameter.type_str})


def _constants(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in nodes_of(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
