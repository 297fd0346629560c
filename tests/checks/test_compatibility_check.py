"""The compatibility check on real runtimes: what does not fit is named before anything is built."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import tiny_models
from onnx import TensorProto, helper

from graylift.checks.compatibility import check_compatibility
from graylift.domain.engine import Runtime
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import EndpointModel, OnnxModel, RevisionSpec
from graylift.domain.weights import Role
from graylift.engine import cuda

pytestmark = pytest.mark.real


async def checked(model: OnnxModel | EndpointModel) -> CheckResult:
    return await check_compatibility(Role.CANDIDATE, RevisionSpec("v2", model))


def unknown_operators(file: Path) -> OnnxModel:
    """Two operators that nobody knows, one of them without a name."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="first"),
        helper.make_node("Frobnicate", ["r"], ["s"], name="frob_1"),
        helper.make_node("Glorp", ["s"], ["y"], domain="acme"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in ("x", "y"))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=opsets, ir_version=9), file)
    return OnnxModel(str(file))


async def test_a_model_that_fits_passes_with_the_facts_it_depends_on(tmp_path: Path) -> None:
    result = await checked(OnnxModel(str(tiny_models.affine(tmp_path / "affine.onnx"))))
    assert result.check == "compatibility candidate"
    assert result.outcome is CheckOutcome.PASS
    assert "opsets ai.onnx 17" in result.evidence
    assert "nodes 2 (2 operators)" in result.evidence


@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.TENSORRT_RTX])
async def test_every_operator_that_the_runtime_does_not_know_is_named(tmp_path: Path, runtime: Runtime) -> None:
    result = await checked(replace(unknown_operators(tmp_path / "model.onnx"), runtime=runtime))
    assert result.outcome is CheckOutcome.FAIL
    assert "operator Frobnicate, node 'frob_1'" in result.sentence
    assert "Glorp" in result.sentence
    assert "Relu" not in result.sentence


async def test_operators_of_the_models_own_functions_and_of_the_runtime_are_known(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], domain="com.microsoft"),
        helper.make_node("Twice", ["g"], ["y"], domain="own"),
    ]
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in ("x", "y"))
    opsets = [helper.make_opsetid(*entry) for entry in (("", 17), ("com.microsoft", 1), ("own", 1))]
    graph = helper.make_graph(nodes, "g", [x], [y])
    onnx.save(helper.make_model(graph, functions=[twice], opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    assert (await checked(OnnxModel(str(tmp_path / "m.onnx")))).outcome is CheckOutcome.PASS


async def test_an_opset_from_the_future_is_refused(tmp_path: Path) -> None:
    file = tiny_models.affine(tmp_path / "affine.onnx")
    model = onnx.load(file)
    model.opset_import[0].version = 99
    onnx.save(model, file)
    result = await checked(OnnxModel(str(file)))
    assert result.outcome is CheckOutcome.FAIL
    assert "refuses its opsets" in result.sentence
    assert "99" in result.sentence


@pytest.mark.skipif(bool(cuda.devices()), reason="for machines without a GPU")
async def test_an_engine_that_would_not_run_here_is_not_even_built(tmp_path: Path) -> None:
    file = tiny_models.identity(tmp_path / "identity.onnx", "FP32")
    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_value = 4
    onnx.save(model, file)
    result = await checked(OnnxModel(str(file), Runtime.TENSORRT_RTX))
    assert result.outcome is CheckOutcome.FAIL
    assert "the engine would not run here: this machine has no NVIDIA driver" in result.sentence
    assert "compute capability 8.0, 8.6, 8.9, 12.0, 12.1 and newer" in result.sentence


async def test_an_endpoint_has_nothing_to_check() -> None:
    assert (await checked(EndpointModel("http://127.0.0.1:1"))).outcome is CheckOutcome.SKIPPED


@pytest.mark.parametrize("answer", ["print('hello')", "print('{}')"])
async def test_a_check_that_gives_no_facts_failed(answer: str) -> None:
    spec = RevisionSpec("v2", OnnxModel("v2.onnx"))
    result = await check_compatibility(Role.CANDIDATE, spec, (sys.executable, "-c", answer))
    assert result.outcome is CheckOutcome.FAIL
    assert "the check gave no facts but" in result.sentence


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="CUDA's provider is here")
async def test_a_provider_that_the_release_asks_for_and_that_is_not_there_fails(tmp_path: Path) -> None:
    model = OnnxModel(str(tiny_models.affine(tmp_path / "affine.onnx")), settings=(("provider", "cuda"),))
    result = await checked(model)
    assert result.outcome is CheckOutcome.FAIL
    assert "has no provider cuda" in result.sentence
    assert "pip install onnxruntime-gpu" in result.sentence
