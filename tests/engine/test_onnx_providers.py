"""Execution providers of ONNX Runtime: asked for by name, pinned, and told apart node by node.

The tests with OpenVINO's provider run where its package is there, those with CUDA's where a GPU is besides.
"""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tiny_models
from onnx import TensorProto, helper

from graylift.domain.engine import EngineSpec, Layer, Precision, Runtime, placement
from graylift.engine import cuda
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load, why_foreign
from graylift.engine.onnx_providers import PROVIDERS, placed
from graylift.engine.vendors import reference_runner, vendor_of
from graylift.errors import EngineError


def is_here(provider: str) -> bool:
    if provider == "openvino":
        return importlib.util.find_spec("onnxruntime_ep_openvino") is not None
    return PROVIDERS[provider].name in ort.get_available_providers() and bool(cuda.devices())


def _needs(provider: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not is_here(provider), reason=f"there is no provider {provider} here")


each_provider = pytest.mark.parametrize(
    "provider",
    [
        pytest.param("openvino", marks=_needs("openvino")),
        pytest.param("cuda", marks=(pytest.mark.gpu, _needs("cuda"))),
    ],
)


def asked(file: Path, provider: str) -> EngineSpec:
    return EngineSpec(str(file), Runtime.ONNXRUNTIME, settings=(("provider", provider),))


def determinants(file: Path, *around: str) -> Path:
    """x: FP32[N,K,K] through the operators `around`, of which one is the determinant, which providers leave alone."""
    names = ["x", *(f"v{number}" for number in range(1, len(around))), "y"]
    nodes = [
        helper.make_node(kind, [a], [b], name=kind.lower())
        for kind, a, b in zip(around, names, names[1:], strict=False)
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["N", "K", "K"]), ("y", ["N"]))
    )
    graph = helper.make_graph(nodes, "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


@pytest.mark.parametrize("provider", ["openvino", "cuda"])
def test_a_provider_that_is_not_there_is_refused_with_the_command_that_installs_it(
    tmp_path: Path, provider: str
) -> None:
    if is_here(provider) or PROVIDERS[provider].name in ort.get_available_providers():
        pytest.skip(f"the provider {provider} is here")
    store, spec = ArtefactStore(tmp_path / "store"), asked(tiny_models.affine(tmp_path / "affine.onnx"), provider)
    said = f"has no provider {provider} .*pip install {PROVIDERS[provider].package}"
    for refused in (store.build, vendor_of(spec.runtime).check):
        with pytest.raises(EngineError, match=said):
            refused(spec)
    manifest = store.build(replace(spec, settings=()))
    built_elsewhere = replace(manifest, options=(*manifest.options, ("provider", provider)))
    assert f"has no provider {provider}" in (why_foreign(built_elsewhere) or "")


def test_the_cpu_asked_for_by_name_is_the_same_engine(tmp_path: Path) -> None:
    store, spec = ArtefactStore(tmp_path / "store"), asked(tiny_models.affine(tmp_path / "affine.onnx"), "cpu")
    assert store.build(spec) == store.build(replace(spec, settings=()))


def test_a_provider_that_would_compute_nothing_is_refused(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    file = determinants(tmp_path / "model.onnx", "Relu", "Det")
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    with pytest.raises(EngineError, match="the provider cuda takes none of its 2 nodes"):
        placed("cuda", session)
    assert [(layer.kind, layer.provider) for layer in placed("cpu", session)] == [("Relu", "cpu"), ("Det", "cpu")]


def test_who_took_what_is_said_in_one_sentence() -> None:
    layers = [Layer("conv", "Conv", provider="cuda"), *(Layer(f"det{n}", "Det", provider="cpu") for n in range(12))]
    assert placement([Layer("conv", "Conv")]) is None
    assert placement(layers[:1]) == "of 1 nodes cuda takes 1; none fell back"
    assert placement(layers[:2]) == "of 2 nodes cuda takes 1; 1 fell back to the CPU: Det 'det0'"
    assert str(placement(layers)).endswith(
        "12 fell back to the CPU: " + ", ".join(f"Det 'det{n}'" for n in range(10)) + " and 2 more"
    )


@each_provider
def test_what_falls_back_is_named_before_the_build_and_by_the_engine(tmp_path: Path, provider: str) -> None:
    store, spec = ArtefactStore(tmp_path / "store"), asked(determinants(tmp_path / "m.onnx", "Relu", "Det"), provider)
    said = f"of 2 nodes {provider} takes 1; 1 fell back to the CPU: Det 'det'"
    assert f"placement {said}" in vendor_of(spec.runtime).check(spec)
    manifest = store.build(spec)
    assert placement(store.inspect(manifest.digest).layers) == said
    assert ("provider", provider) in manifest.options
    assert manifest.digest != store.build(replace(spec, settings=())).digest
    given = np.random.default_rng(0).random((3, 4, 4), np.float32)
    np.testing.assert_allclose(load(store, manifest.digest).infer({"x": given})["y"], np.linalg.det(given), rtol=1e-4)


@each_provider
def test_a_model_of_which_the_provider_takes_nothing_is_no_artefact(tmp_path: Path, provider: str) -> None:
    store = ArtefactStore(tmp_path / "store")
    with pytest.raises(EngineError, match=rf"m\.onnx: the provider {provider} takes none of its 1 nodes"):
        store.build(asked(determinants(tmp_path / "m.onnx", "Det"), provider))
    assert not list((tmp_path / "store").glob("*/manifest.json"))


@each_provider
def test_full_precision_stays_full_whatever_the_provider_would_do_by_itself(tmp_path: Path, provider: str) -> None:
    """A product of 512 terms each: in BF16 it is off by some 1e-3, in TF32 by some 1e-4."""
    chance = np.random.default_rng(1)
    weights = helper.make_tensor("w", TensorProto.FLOAT, [512, 512], chance.random((512, 512), np.float32).ravel())
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 512]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    file = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    store = ArtefactStore(tmp_path / "store")
    given = chance.random((16, 512), np.float32)
    exact = reference_runner(file).infer({"x": given})["y"]
    computed = load(store, store.build(asked(file, provider)).digest).infer({"x": given})["y"]
    np.testing.assert_allclose(computed, exact, rtol=2e-6)


@each_provider
def test_several_callers_at_once_get_their_own_answers(tmp_path: Path, provider: str) -> None:
    store = ArtefactStore(tmp_path / "store")
    spec = replace(asked(tiny_models.affine(tmp_path / "affine.onnx"), provider), precision=Precision.FP32)
    runner = load(store, store.build(spec).digest, contexts=4)

    def ask(number: int) -> bool:
        given = np.full((1 + number % 3, 4), number, np.float32)
        return bool((runner.infer({"x": given})["y"] == 2 * given + 1).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(200)))
