"""Small ONNX models, each with one property that tests need. Every builder writes `file` and gives it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DATATYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def affine(file: Path, scale: float = 2.0, bias: float = 1.0) -> Path:
    """x: FP32[?,4] -> y: FP32[?,4], y = scale * x + bias."""
    return _saved(
        file,
        [helper.make_node("Mul", ["x", "scale"], ["scaled"]), helper.make_node("Add", ["scaled", "bias"], ["y"])],
        [_value("x", TensorProto.FLOAT, ["N", 4])],
        [_value("y", TensorProto.FLOAT, ["N", 4])],
        {"scale": np.float32([scale]), "bias": np.float32([bias])},
    )


def identity(file: Path, datatype: str) -> Path:
    """x -> y, both of `datatype` and shape [?,?]."""
    element = DATATYPES[datatype]
    return _saved(
        file,
        [helper.make_node("Identity", ["x"], ["y"])],
        [_value("x", element, ["N", "M"])],
        [_value("y", element, ["N", "M"])],
    )


def sum_and_difference(file: Path) -> Path:
    """a, b: FP32[?] -> sum, difference: FP32[?]."""
    return _saved(
        file,
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        [_value("a", TensorProto.FLOAT, ["N"]), _value("b", TensorProto.FLOAT, ["N"])],
        [_value("sum", TensorProto.FLOAT, ["N"]), _value("difference", TensorProto.FLOAT, ["N"])],
    )


def lookup(file: Path, rows: int = 4) -> Path:
    """id: INT64[?] -> row: FP32[?,2]; fails inside the runtime for an id of `rows` or more."""
    return _saved(
        file,
        [helper.make_node("Gather", ["table", "id"], ["row"], name="embedding")],
        [_value("id", TensorProto.INT64, ["N"])],
        [_value("row", TensorProto.FLOAT, ["N", 2])],
        {"table": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)},
    )


def slow(file: Path) -> Path:
    """rounds: INT64[1] -> done: INT64[1], equal; takes some microseconds a round."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["go_on"]),
            helper.make_node("Add", ["count", "one"], ["next"]),
        ],
        "body",
        [
            _value("iteration", TensorProto.INT64, []),
            _value("condition", TensorProto.BOOL, []),
            _value("count", TensorProto.INT64, [1]),
        ],
        [_value("go_on", TensorProto.BOOL, []), _value("next", TensorProto.INT64, [1])],
    )
    return _saved(
        file,
        [
            helper.make_node("Squeeze", ["rounds"], ["trips"]),
            helper.make_node("Loop", ["trips", "true", "zero"], ["done"], body=body),
        ],
        [_value("rounds", TensorProto.INT64, [1])],
        [_value("done", TensorProto.INT64, [1])],
        {"true": np.array(True), "zero": np.int64([0]), "one": np.int64([1])},
    )


def with_external_data(file: Path, weight: float = 3.0, location: str = "weights.bin") -> Path:
    """x: FP32[?,4] -> y: FP32[?,4], y = weight * x; the weights lie in `location` beside the model."""
    _saved(
        file,
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [_value("x", TensorProto.FLOAT, ["N", 4])],
        [_value("y", TensorProto.FLOAT, ["N", 4])],
        {"w": np.full(4, weight, np.float32)},
    )
    onnx.save(onnx.load(file), file, save_as_external_data=True, location=location, size_threshold=0)
    return file


def decoder(file: Path, vocabulary: int = 32, width: int = 16, noise: float = 0.0) -> Path:
    """input_ids: INT64[?,?] -> logits: FP32[?,?,vocabulary]: a next-token model without any memory.

    noise: added to its weights, normal, relative to their spread
    """
    chance = np.random.default_rng(7)
    embedding, head = (chance.standard_normal(shape) for shape in ((vocabulary, width), (width, vocabulary)))
    spoiled = np.random.default_rng(8)
    embedding = embedding + noise * spoiled.standard_normal(embedding.shape)
    return _saved(
        file,
        [
            helper.make_node("Gather", ["embedding", "input_ids"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "head"], ["logits"]),
        ],
        [_value("input_ids", TensorProto.INT64, ["N", "S"])],
        [_value("logits", TensorProto.FLOAT, ["N", "S", vocabulary])],
        {"embedding": embedding.astype(np.float32), "head": head.astype(np.float32)},
    )


def logarithm(file: Path) -> Path:
    """x: FP32[?,4] -> y: FP32[?,4], y = log x: NaN below 0."""
    return _saved(
        file,
        [helper.make_node("Log", ["x"], ["y"])],
        [_value("x", TensorProto.FLOAT, ["N", 4])],
        [_value("y", TensorProto.FLOAT, ["N", 4])],
    )


def transformer(file: Path, width: int = 16, layers: int = 2) -> Path:
    """ids: INT64[batch,length], mask: INT64[batch,length] -> y: FP32[batch,length,width]; attention and normalisation
    in single operators, with an epsilon and a "minus infinity" that FP16 does not have."""
    random = np.random.default_rng(7)
    constants: dict[str, np.ndarray] = {
        "table": random.normal(size=(100, width)).astype(np.float32),
        "one": np.float32(1.0),
        "lowest": np.float32(np.finfo(np.float32).min),
        "epsilon": np.float32(1e-12),
        "two": np.float32(2.0),
        "scale": np.float32(width**-0.5),
        "axes": np.int64([1]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x0"], name="embedding"),
        helper.make_node("Cast", ["mask"], ["mask_f"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "mask_f"], ["absent"]),
        helper.make_node("Mul", ["absent", "lowest"], ["far"]),
        helper.make_node("Unsqueeze", ["far", "axes"], ["bias"]),
    ]
    for n in range(layers):
        for which in "qkv":
            constants[f"w{which}{n}"] = (random.normal(size=(width, width)) * width**-0.5).astype(np.float32)
            nodes.append(
                helper.make_node("MatMul", [f"x{n}", f"w{which}{n}"], [f"{which}{n}"], name=f"project_{which}{n}")
            )
        nodes += [
            helper.make_node("Transpose", [f"k{n}"], [f"kt{n}"], perm=[0, 2, 1]),
            helper.make_node("MatMul", [f"q{n}", f"kt{n}"], [f"qk{n}"]),
            helper.make_node("Mul", [f"qk{n}", "scale"], [f"scaled{n}"]),
            helper.make_node("Add", [f"scaled{n}", "bias"], [f"masked{n}"]),
            helper.make_node("Softmax", [f"masked{n}"], [f"p{n}"], axis=-1),
            helper.make_node("MatMul", [f"p{n}", f"v{n}"], [f"a{n}"]),
            helper.make_node("Add", [f"x{n}", f"a{n}"], [f"r{n}"]),
            helper.make_node("ReduceMean", [f"r{n}"], [f"mean{n}"], axes=[-1]),
            helper.make_node("Sub", [f"r{n}", f"mean{n}"], [f"d{n}"]),
            helper.make_node("Pow", [f"d{n}", "two"], [f"square{n}"]),
            helper.make_node("ReduceMean", [f"square{n}"], [f"variance{n}"], axes=[-1]),
            helper.make_node("Add", [f"variance{n}", "epsilon"], [f"safe{n}"], name=f"add_epsilon{n}"),
            helper.make_node("Sqrt", [f"safe{n}"], [f"deviation{n}"]),
            helper.make_node("Div", [f"d{n}", f"deviation{n}"], [f"x{n + 1}" if n + 1 < layers else "y"]),
        ]
    return _saved(
        file,
        nodes,
        [_value(name, TensorProto.INT64, ["batch", "length"]) for name in ("ids", "mask")],
        [_value("y", TensorProto.FLOAT, ["batch", "length", width])],
        constants,
    )


def unknown_operator(file: Path) -> Path:
    return _saved(
        file,
        [helper.make_node("Frobnicate", ["x"], ["y"])],
        [_value("x", TensorProto.FLOAT, ["N"])],
        [_value("y", TensorProto.FLOAT, ["N"])],
    )


def without_rank(file: Path) -> Path:
    """Its input x declares no shape at all."""
    return _saved(
        file,
        [helper.make_node("Neg", ["x"], ["y"])],
        [_value("x", TensorProto.FLOAT, None)],
        [_value("y", TensorProto.FLOAT, None)],
    )


def sequence_output(file: Path) -> Path:
    """Its output y is a sequence, not a tensor."""
    return _saved(
        file,
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        [_value("x", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )


def _value(name: str, element: int, shape: list[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def _saved(
    file: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray] | None = None,
) -> Path:
    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, file.stem, inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file
