"""Precisions on real models: what stays equal, what comes close, and that each build is an artefact of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_models
from onnx import TensorProto, helper, numpy_helper

from graylift.demo import containers, minilm
from graylift.demo.models import Package, PackagedFile, default_cache, fetch
from graylift.domain.engine import EngineSpec, Interface, Precision, Runtime
from graylift.engine import openvino_runtime
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load
from graylift.engine.quantise import lowered
from graylift.errors import EngineError
from graylift.protocols.datatypes import Tensor

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("precisions")]

MAGIKA = Package(
    "magika",
    "0.6.2",
    "5ef72fbc07723029b3684ef81454bc224ac5f60986aa0fc5a28f4456eebcb5b2",
    (
        PackagedFile(
            "magika/models/standard_v3_3/model.onnx", "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c"
        ),
    ),
)
PP_OCR = Package(
    "rapidocr-onnxruntime",
    "1.4.4",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    (
        PackagedFile(
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        ),
    ),
)
SENTENCES = (
    (101, 1037, 2158, 2003, 5983, 2833, 1012, 102),  # a man is eating food.
    (101, 1037, 2158, 20323, 2242, 1012, 102, 0),  # a man eats something.
    (101, 1996, 2611, 3248, 1996, 6710, 1012, 102),  # the girl plays the violin.
    (101, 3037, 6165, 3123, 2153, 1012, 102, 0),  # interest rates rose again.
)


@dataclass(frozen=True)
class Subject:
    """A model, inputs to compare answers on, and a file of samples to calibrate with."""

    model: Path
    inputs: dict[str, Tensor]
    calibration: Path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtefactStore:
    return ArtefactStore(tmp_path_factory.mktemp("artefacts"))


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    folder = tmp_path_factory.mktemp("subjects")
    chance = np.random.default_rng(20261124)
    (magika,) = fetch(MAGIKA, default_cache(), lambda _: None)
    (pp_ocr,) = fetch(PP_OCR, default_cache(), lambda _: None)
    tokens = chance.integers(0, 257, (24, 2048)).astype(np.int32)
    images = np.stack([containers.render(containers.draw_number(chance), chance) for _ in range(24)])
    ids = chance.integers(1000, 30000, (24, 8))
    ids[: len(SENTENCES)] = SENTENCES
    found = {
        "magika": (magika, {"bytes": tokens}),
        "pp-ocr": (pp_ocr, {"x": images}),
        "minilm": (
            minilm.fetch_model(default_cache(), folder / "minilm.onnx", lambda _: None),
            {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)},
        ),
    }
    for name, (_, samples) in found.items():
        np.savez(folder / f"{name}.npz", **samples)
    return {
        name: Subject(model, {key: array[:4] for key, array in samples.items()}, folder / f"{name}.npz")
        for name, (model, samples) in found.items()
    }


@pytest.fixture(scope="module")
def answer(store: ArtefactStore, subjects: dict[str, Subject]) -> Callable[[str, Runtime, Precision], Tensor]:
    """A subject's one output, [samples, everything]; its interface is checked on the way."""
    interfaces: dict[str, Interface] = {}
    kept: dict[tuple[str, Runtime, Precision], Tensor] = {}

    def infer(name: str, runtime: Runtime, precision: Precision) -> Tensor:
        if (name, runtime, precision) not in kept:
            runner = load(store, store.build(spec_of(subjects[name], runtime, precision)).digest)
            assert interfaces.setdefault(name, runner.interface) == runner.interface
            (output,) = runner.infer(subjects[name].inputs).values()
            runner.close()
            kept[name, runtime, precision] = output.reshape(len(output), -1)
        return kept[name, runtime, precision]

    return infer


def spec_of(subject: Subject, runtime: Runtime, precision: Precision) -> EngineSpec:
    calibration = str(subject.calibration) if precision is Precision.INT8 else None
    return EngineSpec(str(subject.model), runtime, precision=precision, calibration=calibration)


def least_cosine(one: Tensor, other: Tensor) -> float:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float((np.einsum("nd,nd->n", one, other) / lengths).min())


each_subject = pytest.mark.parametrize("name", ["magika", "pp-ocr", "minilm"])
each_runtime = pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.OPENVINO], ids=lambda r: r.value)


@each_subject
def test_both_runtimes_give_the_same_answers_in_fp32(name: str, answer: Callable[..., Tensor]) -> None:
    ours, reference = (answer(name, runtime, Precision.FP32) for runtime in (Runtime.OPENVINO, Runtime.ONNXRUNTIME))
    assert np.abs(ours - reference).max() < 2e-5
    assert least_cosine(ours, reference) > 0.999999


@pytest.mark.parametrize(("name", "close"), [("magika", 0.9999), ("pp-ocr", 0.99), ("minilm", 0.9999)])
def test_bf16_differs_from_fp32_and_comes_close(name: str, close: float, answer: Callable[..., Tensor]) -> None:
    if Precision.BF16 not in openvino_runtime._precisions():
        pytest.skip("this processor has no bfloat16")
    lower, reference = (answer(name, Runtime.OPENVINO, precision) for precision in (Precision.BF16, Precision.FP32))
    assert np.abs(lower - reference).max() > 1e-4
    assert least_cosine(lower, reference) > close


@each_runtime
@pytest.mark.parametrize(
    ("name", "precision", "close"),
    [
        ("magika", Precision.FP16, 0.9999),
        ("magika", Precision.INT8, 0.99),
        ("magika", Precision.INT8_DYNAMIC, 0.99),
        ("pp-ocr", Precision.FP16, 0.999),
        ("pp-ocr", Precision.INT8, 0.9),
        ("minilm", Precision.INT8, 0.98),
        ("minilm", Precision.INT8_DYNAMIC, 0.98),
        ("minilm", Precision.INT4_WEIGHTS, 0.95),
    ],
    ids=lambda value: value.value if isinstance(value, Precision) else str(value),
)
def test_lower_precisions_differ_and_come_close(
    name: str, runtime: Runtime, precision: Precision, close: float, answer: Callable[..., Tensor]
) -> None:
    if runtime is Runtime.OPENVINO and precision not in openvino_runtime._precisions():
        pytest.skip(f"this processor has no {precision.value}")
    lower, reference = (answer(name, runtime, one) for one in (precision, Precision.FP32))
    assert np.abs(lower - reference).max() > 1e-6
    assert least_cosine(lower, reference) > close


@each_runtime
def test_one_changed_byte_of_source_or_calibration_and_one_changed_option_is_another_artefact(
    tmp_path: Path, runtime: Runtime
) -> None:
    store = ArtefactStore(tmp_path / "artefacts")
    model = a_product(tmp_path / "product.onnx")
    samples = np.random.default_rng(1).normal(size=(8, 64)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=samples)
    spec = EngineSpec(str(model), runtime, precision=Precision.INT8, calibration=str(tmp_path / "samples.npz"))
    first = store.build(spec)
    assert store.build(spec) == first
    assert [name for name, _ in first.sources] == ["product.onnx", "samples.npz"]

    other_model = a_product(tmp_path / "other.onnx", added=0.5)
    samples[0, 0] = np.nextafter(samples[0, 0], np.float32(9))  # within the ranges: the same scales come out
    np.savez(tmp_path / "other.npz", x=samples)
    others = [
        replace(spec, onnx=str(other_model)),
        replace(spec, calibration=str(tmp_path / "other.npz")),
        replace(spec, threads=2),
        replace(spec, precision=Precision.INT8_DYNAMIC, calibration=None),
    ]
    assert len({first.digest, *(store.build(other).digest for other in others)}) == 5


@each_runtime
def test_equal_builds_have_equal_bytes(tmp_path: Path, runtime: Runtime) -> None:
    spec = EngineSpec(str(a_product(tmp_path / "product.onnx")), runtime, precision=Precision.INT4_WEIGHTS)
    assert len({ArtefactStore(tmp_path / folder).build(spec).digest for folder in ("one", "other")}) == 1


def test_a_precision_that_a_runtime_lacks_is_refused_with_what_it_has(tmp_path: Path) -> None:
    spec = EngineSpec(str(a_product(tmp_path / "product.onnx")), Runtime.ONNXRUNTIME, precision=Precision.BF16)
    with pytest.raises(EngineError, match="has no bf16; it has fp32, fp16, int8, int8-dynamic, int4-weights"):
        ArtefactStore(tmp_path / "artefacts").build(spec)


def test_a_model_without_products_has_no_weights_to_put_in_4_bits(tmp_path: Path) -> None:
    spec = EngineSpec(
        str(tiny_models.affine(tmp_path / "affine.onnx")), Runtime.ONNXRUNTIME, precision=Precision.INT4_WEIGHTS
    )
    with pytest.raises(EngineError, match="int4-weights lowers MatMuls with constant FP32 weights, and the model has"):
        ArtefactStore(tmp_path / "artefacts").build(spec)


@each_runtime
def test_weights_in_4_bits_are_off_by_no_more_than_half_a_step_and_the_arithmetic_is_as_stored(
    tmp_path: Path, runtime: Runtime
) -> None:
    # 70 rows: the last block of 32 is not full. The identity as input reads the weights as the runtime has them.
    weights = np.random.default_rng(3).normal(size=(70, 5)).astype(np.float32)
    model = a_product(tmp_path / "product.onnx", weights)
    store = ArtefactStore(tmp_path / "artefacts")
    runner = load(store, store.build(EngineSpec(str(model), runtime, precision=Precision.INT4_WEIGHTS)).digest)
    seen = runner.infer({"x": np.eye(70, dtype=np.float32)})["y"]
    blocks = np.abs(np.pad(weights, ((0, 26), (0, 0)))).reshape(3, 32, 5).max(axis=1)
    steps = np.repeat(blocks / 8, 32, axis=0)[:70]
    off = np.abs(seen - weights) / steps
    # A weight of the other sign and nearly the size of the largest has no code beyond 7 steps.
    assert (off <= np.where(np.abs(weights) > 7.5 * steps, 1.0, 0.5) + 1e-4).all()
    assert len(np.unique(seen)) <= 16 * 15


def test_lowering_leaves_the_interface_as_it_was(tmp_path: Path) -> None:
    model = a_product(tmp_path / "product.onnx")
    spec = EngineSpec(str(model), Runtime.ONNXRUNTIME, precision=Precision.FP16)
    assert {tensor.data_type for tensor in lowered(spec).graph.initializer} == {TensorProto.FLOAT16}
    for precision in (Precision.FP16, Precision.INT8_DYNAMIC, Precision.INT4_WEIGHTS):
        graph = lowered(replace(spec, precision=precision)).graph
        assert [(v.name, v.type.tensor_type.elem_type) for v in (*graph.input, *graph.output)] == [
            ("x", TensorProto.FLOAT),
            ("y", TensorProto.FLOAT),
        ]


def a_product(file: Path, weights: Tensor | None = None, added: float = 0.0) -> Path:
    """x: FP32[?,K] -> y: FP32[?,N], y = x @ weights + added."""
    chosen = np.random.default_rng(2).normal(size=(64, 32)).astype(np.float32) if weights is None else weights
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", chosen.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", chosen.shape[1]])],
        [numpy_helper.from_array(chosen, "w"), numpy_helper.from_array(np.float32([added]), "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file
