"""Calibration data: what is wrong with them is said before anything is built."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models
from onnx import TensorProto, helper, save

from graylift.domain.engine import EngineSpec, Precision, Runtime
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.calibration import read_samples
from graylift.errors import EngineError

GOOD = {"x": np.ones((3, 4), np.float32)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_models.affine(tmp_path / "affine.onnx")


def saved(file: Path, **arrays: np.ndarray) -> Path:
    np.savez(file, **arrays)
    return file


def test_samples_come_one_at_a_time(model: Path, tmp_path: Path) -> None:
    file = saved(tmp_path / "samples.npz", x=np.arange(12, dtype=np.float32).reshape(3, 4))
    assert [run["x"].tolist() for run in read_samples(file, model)] == [
        [[0, 1, 2, 3]],
        [[4, 5, 6, 7]],
        [[8, 9, 10, 11]],
    ]


def test_a_fixed_batch_gets_as_many_as_it_takes_and_the_rest_is_left(tmp_path: Path) -> None:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "two.onnx")
    file = saved(tmp_path / "samples.npz", x=np.arange(5, dtype=np.float32).reshape(5, 1))
    assert [run["x"].tolist() for run in read_samples(file, tmp_path / "two.onnx")] == [[[0], [1]], [[2], [3]]]
    with pytest.raises(EngineError, match="the model takes 2 samples at a time, got 1"):
        read_samples(saved(tmp_path / "samples.npz", x=np.zeros((1, 1), np.float32)), tmp_path / "two.onnx")


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, r"expected one array for each input of the model \(x\), got none"),
        ({"z": np.ones(3)}, r"expected one array for each input of the model \(x\), got z"),
        ({**GOOD, "z": np.ones(3)}, r"\(x\), got x, z"),
        ({"x": np.ones((3, 4))}, "'x': expected float32, got float64"),
        ({"x": np.ones((3, 5), np.float32)}, r"'x': expected shape \[samples,4\], got \[3,5\]"),
        ({"x": np.ones(4, np.float32)}, r"'x': expected shape \[samples,4\], got \[4\]"),
        ({"x": np.ones((0, 4), np.float32)}, "at least 1; got 0 of x"),
    ],
)
@pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.OPENVINO], ids=lambda r: r.value)
def test_arrays_that_are_not_the_models_inputs_are_refused(
    model: Path, tmp_path: Path, arrays: dict[str, np.ndarray], sentence: str, runtime: Runtime
) -> None:
    file = saved(tmp_path / "samples.npz", **arrays)
    spec = EngineSpec(str(model), runtime, precision=Precision.INT8, calibration=str(file))
    with pytest.raises(EngineError, match=sentence):
        ArtefactStore(tmp_path / "artefacts").build(spec)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_npz_is_refused(model: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "samples.npz"
    file.write_bytes(content)
    with pytest.raises(EngineError, match=r"samples\.npz is no readable \.npz of plain arrays"):
        read_samples(file, model)


def test_a_single_array_and_pickled_objects_are_refused(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "single.npy", np.ones((3, 4), np.float32))
    (tmp_path / "single.npy").rename(tmp_path / "samples.npz")
    with pytest.raises(EngineError, match=r"no readable \.npz of plain arrays"):
        read_samples(tmp_path / "samples.npz", model)
    with pytest.raises(EngineError, match=r"no readable \.npz of plain arrays"):
        read_samples(saved(tmp_path / "samples.npz", x=np.array([object()])), model)


def test_data_that_are_not_there_are_named(model: Path, tmp_path: Path) -> None:
    spec = EngineSpec(str(model), Runtime.ONNXRUNTIME, precision=Precision.INT8, calibration=str(tmp_path / "no.npz"))
    with pytest.raises(EngineError, match=r"cannot read .*no\.npz"):
        ArtefactStore(tmp_path / "artefacts").build(spec)


def test_int8_without_data_and_data_without_int8_are_refused(model: Path, tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path / "artefacts")
    file = saved(tmp_path / "samples.npz", **GOOD)
    with pytest.raises(EngineError, match=r"int8 needs calibration data.*without any there is int8-dynamic"):
        store.build(EngineSpec(str(model), Runtime.ONNXRUNTIME, precision=Precision.INT8))
    with pytest.raises(EngineError, match="calibration data are for int8 alone; leave them out of fp32"):
        store.build(EngineSpec(str(model), Runtime.ONNXRUNTIME, calibration=str(file)))
