"""Running engines with ONNX Runtime: the real one, on models that fit on a page."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from graylift.domain.engine import EngineSpec, Runtime
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load
from graylift.engine.runner import Runner
from graylift.errors import EngineError, InputError
from graylift.protocols.datatypes import DTYPES


def loaded(file: Path, threads: int = 1) -> Runner:
    store = ArtefactStore(file.parent / "artefacts")
    return load(store, store.build(EngineSpec(str(file), Runtime.ONNXRUNTIME, threads)).digest)


@pytest.fixture
def affine(tmp_path: Path) -> Runner:
    return loaded(tiny_models.affine(tmp_path / "affine.onnx"))


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_goes_in_and_comes_out_unchanged(tmp_path: Path, datatype: str) -> None:
    runner = loaded(tiny_models.identity(tmp_path / "identity.onnx", datatype))
    assert runner.interface.inputs[0].datatype == datatype
    given = np.array([[0, 1, 1], [1, 0, 1]]).astype(DTYPES[datatype])
    if datatype == "BYTES":
        given[:] = [[b"", b"a", b"\xc3\xa9"], ["日本".encode(), b"x\x00", b"b"]]
    (got,) = runner.infer({"x": given}).values()
    assert got.dtype == given.dtype
    assert got.tolist() == given.tolist()
    runner.close()


def test_outputs_come_in_the_order_of_the_interface(tmp_path: Path) -> None:
    runner = loaded(tiny_models.sum_and_difference(tmp_path / "model.onnx"))
    outputs = runner.infer({"b": np.float32([1]), "a": np.float32([3])})
    assert list(outputs) == [spec.name for spec in runner.interface.outputs] == ["sum", "difference"]
    assert (outputs["sum"], outputs["difference"]) == (4, 2)


def test_a_batch_of_nothing_is_an_answer_of_nothing(affine: Runner) -> None:
    assert affine.infer({"x": np.zeros((0, 4), np.float32)})["y"].shape == (0, 4)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, r"input 'x' is missing; the model takes x: FP32\[\?,4\]"),
        ({"z": np.zeros(1)}, r"the model has no input 'z'; it takes x: FP32\[\?,4\]"),
        ({"x": np.zeros((1, 4), np.int32)}, "input 'x': expected FP32, got INT32"),
        ({"x": np.zeros((1, 4), np.complex64)}, "input 'x': expected FP32, got numpy's complex64"),
        ({"x": np.zeros((1, 5), np.float32)}, r"expected shape \[\?,4\], got \[1,5\]"),
        ({"x": np.zeros(4, np.float32)}, r"expected shape \[\?,4\], got \[4\]"),
        ({"x": np.float32(1).reshape(())}, r"expected shape \[\?,4\], got \[\]"),
    ],
)
def test_inputs_that_do_not_fit_are_told_from_what_fits(
    affine: Runner, inputs: dict[str, np.ndarray], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        affine.infer(inputs)
    assert affine.infer({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[3, 3, 3, 3]]


def test_text_that_is_not_utf8_is_the_callers_mistake(tmp_path: Path) -> None:
    runner = loaded(tiny_models.identity(tmp_path / "identity.onnx", "BYTES"))
    with pytest.raises(InputError, match=r"input 'x'.*not UTF-8"):
        runner.infer({"x": np.array([[b"\xff"]], dtype=object)})


def test_a_failure_inside_the_runtime_names_the_node_and_no_value(tmp_path: Path) -> None:
    runner = loaded(tiny_models.lookup(tmp_path / "lookup.onnx"))
    with pytest.raises(EngineError, match="inference failed in Gather node 'embedding': indices element out") as caught:
        runner.infer({"id": np.int64([1, 987654])})
    assert not isinstance(caught.value, InputError)
    assert "987654" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert runner.infer({"id": np.int64([1])})["row"].tolist() == [[2, 3]]


def test_threads_share_a_runner_and_each_gets_its_own_answer(affine: Runner) -> None:
    def infer(value: int) -> bool:
        answer = affine.infer({"x": np.full((1 + value % 7, 4), value, np.float32)})["y"]
        return answer.shape == (1 + value % 7, 4) and bool((answer == 2 * value + 1).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(infer, range(400)))


@pytest.mark.real
def test_the_runtime_writes_nothing_of_its_own_to_stderr(tmp_path: Path) -> None:
    file = tiny_models.lookup(tmp_path / "lookup.onnx")
    script = f"""
import numpy as np
from pathlib import Path
from graylift.domain.engine import EngineSpec
from graylift.domain.engine import Runtime
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load
from graylift.errors import EngineError
store = ArtefactStore(Path({str(tmp_path / "artefacts")!r}))
runner = load(store, store.build(EngineSpec({str(file)!r}, Runtime.ONNXRUNTIME, 2)).digest)
try:
    runner.infer({{"id": np.int64([987654])}})
except EngineError:
    print("failed")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("failed\n", "")


@pytest.mark.real
def test_without_the_runtime_everything_imports_and_loading_says_how_to_install_it(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["onnxruntime"] = sys.modules["onnx"] = None
import graylift.engine.artefacts, graylift.engine.load, graylift.engine.__main__, graylift.serve.server
from graylift.domain.engine import Runtime
from graylift.engine.vendors import vendor_of
from graylift.errors import EngineError
try:
    vendor_of(Runtime.ONNXRUNTIME)
except EngineError as exc:
    print(exc)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "install it with: pip install onnxruntime" in ended.stdout


def test_an_engine_of_another_release_is_refused_since_it_was_checked_under_its_own(tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path / "artefacts")
    spec = EngineSpec(str(tiny_models.affine(tmp_path / "affine.onnx")), Runtime.ONNXRUNTIME)
    manifest = store.build(spec)
    file = store.open(manifest.digest).with_name("manifest.json")
    version = f'["onnxruntime","{dict(manifest.versions)["onnxruntime"]}"]'
    text = file.read_text()
    assert version in text
    for other in ("1.2.0", "99.0.0"):
        file.write_text(text.replace(version, f'["onnxruntime","{other}"]'))
        with pytest.raises(EngineError, match=rf"was built with onnxruntime {other}, but .* is installed"):
            load(store, manifest.digest)


def test_settings_that_it_does_not_have_are_refused(tmp_path: Path) -> None:
    file = tiny_models.affine(tmp_path / "affine.onnx")
    spec = EngineSpec(str(file), Runtime.ONNXRUNTIME, settings=(("workspace", "4GiB"),))
    with pytest.raises(EngineError, match="onnxruntime has no setting 'workspace'; it has provider"):
        ArtefactStore(tmp_path / "artefacts").build(spec)
