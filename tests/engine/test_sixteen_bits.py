"""FP32 models in 16 bits: the same answers within what 16 bits can say, and nothing that overflows or vanishes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tiny_models
from onnx import TensorProto, helper, numpy_helper

from graylift.domain.engine import Precision
from graylift.engine.sixteen_bits import in_16_bits, write_in_16_bits
from graylift.errors import EngineError
from graylift.protocols.datatypes import Tensor


def answers(model: onnx.ModelProto, feeds: dict[str, Tensor]) -> list[Tensor]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of all values."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*typed.input, *typed.value_info, *typed.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.fixture
def transformer(tmp_path: Path) -> onnx.ModelProto:
    return onnx.load(tiny_models.transformer(tmp_path / "transformer.onnx"))


def test_a_transformer_answers_as_before_within_16_bits(transformer: onnx.ModelProto) -> None:
    ids = np.random.default_rng(1).integers(0, 100, (3, 9))
    mask = np.ones_like(ids)
    mask[0, 5:] = mask[1, 1:] = 0
    feeds = {"ids": ids, "mask": mask}
    (expected,), (given,) = (answers(m, feeds) for m in (transformer, in_16_bits(transformer, Precision.FP16, "m")))
    assert given.dtype == np.float32
    assert np.isfinite(given).all()
    assert np.abs(given - expected).max() < 0.02


@pytest.mark.parametrize(
    ("precision", "element"), [(Precision.FP16, TensorProto.FLOAT16), (Precision.BF16, TensorProto.BFLOAT16)]
)
def test_weights_and_matrix_products_are_in_16_bits_and_the_interface_is_not(
    transformer: onnx.ModelProto, precision: Precision, element: int
) -> None:
    lowered = in_16_bits(transformer, precision, "m")
    onnx.checker.check_model(lowered, full_check=True)
    of = types(lowered)
    assert {of[value.name] for value in lowered.graph.output} == {TensorProto.FLOAT}
    products = [node for node in lowered.graph.node if node.op_type == "MatMul"]
    assert {of[node.output[0]] for node in products} == {element}
    weights = [constant for constant in lowered.graph.initializer if numpy_helper.to_array(constant).size > 100]
    assert {constant.data_type for constant in weights} == {element}


def test_what_16_bits_cannot_hold_stays_in_32(transformer: onnx.ModelProto) -> None:
    of = types(lowered := in_16_bits(transformer, Precision.FP16, "m"))
    for node in lowered.graph.node:
        if node.op_type in ("Pow", "ReduceMean", "Sqrt") or node.name.startswith("add_epsilon"):
            assert of[node.output[0]] == TensorProto.FLOAT, node.name
    # The bounds of FP16 take the place of "minus infinity": it would become NaN in a row that is masked throughout.
    halves = [numpy_helper.to_array(c) for c in lowered.graph.initializer if c.data_type == TensorProto.FLOAT16]
    assert min(float(half.min()) for half in halves) == -65504.0


def test_casts_stand_only_where_two_widths_meet(transformer: onnx.ModelProto) -> None:
    lowered = in_16_bits(transformer, Precision.FP16, "m")
    of = types(lowered)
    names = Counter(node.output[0] for node in lowered.graph.node)
    assert max(names.values()) == 1
    for node in lowered.graph.node:
        if node.op_type == "Cast":
            assert of[node.input[0]] != of[node.output[0]]


def test_a_subgraph_keeps_its_numbers_and_what_it_reads_from_outside(tmp_path: Path) -> None:
    branches = [
        helper.make_graph([helper.make_node(op, ["h", "w"], ["b"])], op, [], [tensor("b")]) for op in ("Add", "Sub")
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "w"], ["h"]),
            helper.make_node("If", ["which"], ["c"], then_branch=branches[0], else_branch=branches[1]),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        "g",
        [tensor("x"), helper.make_tensor_value_info("which", TensorProto.BOOL, [])],
        [tensor("y")],
        [numpy_helper.from_array(np.float32([1, 2, 3, 4]), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    feeds = {"x": np.float32([1, 1, 1, 1]), "which": np.array(False)}
    (expected,), (given,) = (answers(m, feeds) for m in (model, in_16_bits(model, Precision.FP16, "m")))
    assert given.tolist() == expected.tolist() == [0, 0, 0, 0]


def tensor(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])


def test_a_model_in_16_bits_already_is_left_as_it_is(tmp_path: Path) -> None:
    file = tiny_models.identity(tmp_path / "half.onnx", "FP16")
    assert write_in_16_bits(file, Precision.FP16, tmp_path) == file


def test_weights_beside_the_model_come_along(tmp_path: Path) -> None:
    (tmp_path / "lowered").mkdir()
    file = tiny_models.with_external_data(tmp_path / "model.onnx")
    lowered = onnx.load(write_in_16_bits(file, Precision.FP16, tmp_path / "lowered"))
    assert answers(lowered, {"x": np.ones((1, 4), np.float32)})[0].tolist() == [[3.0] * 4]


def test_a_node_whose_type_nobody_knows_is_named(tmp_path: Path) -> None:
    model = onnx.load(tiny_models.affine(tmp_path / "affine.onnx"))
    model.graph.node[0].op_type, model.graph.node[0].domain, model.graph.node[0].name = "Odd", "acme", "odd_1"
    model.opset_import.append(helper.make_opsetid("acme", 1))
    with pytest.raises(EngineError, match="operator Odd, node 'odd_1'"):
        in_16_bits(model, Precision.FP16, "m")
