"""The candidates' rewrites, on the real models and the demo's real input, run by the real runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from graylift.demo import containers
from graylift.demo.candidates import padded_to_batch, with_table_lookup
from graylift.demo.filetypes import PADDING
from graylift.demo.scenario import Prepared
from graylift.errors import GrayliftError

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("demo")]


def session(model: onnx.ModelProto | Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    content = model.read_bytes() if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(model: ort.InferenceSession, tensor: NDArray[Any]) -> NDArray[np.float32]:
    return model.run(None, {model.get_inputs()[0].name: tensor})[0]


@pytest.fixture(scope="module")
def models(file_types: Prepared) -> Path:
    return file_types.good.parent / "models"


@pytest.fixture(scope="module")
def tokens(file_types: Prepared) -> NDArray[np.int32]:
    with np.load(file_types.good.parent / "samples.npz") as samples:
        return samples["tokens"][:120]


def test_the_table_lookup_answers_as_the_one_hot_encoding_did(models: Path, tokens: NDArray[np.int32]) -> None:
    original = onnx.load(models / "v3.3.onnx")
    rewritten = with_table_lookup(original)
    assert {node.op_type for node in rewritten.graph.node} & {"Gather", "Equal"} == {"Gather"}
    onnx.checker.check_model(rewritten)
    before, after = session(original), session(rewritten)
    for row in tokens[:60]:
        assert np.abs(run(before, row[None]) - run(after, row[None])).max() < 1e-6


def test_a_table_without_the_padding_row_fails_on_short_files_and_on_no_other(
    models: Path, tokens: NDArray[np.int32]
) -> None:
    original, candidate = session(models / "v3.3.onnx"), session(models / "v3.3-lookup.onnx")
    short = (tokens == PADDING).any(axis=1)
    assert 0.1 < short.mean() < 0.6
    for row, needs_padding in zip(tokens, short, strict=True):
        if needs_padding:
            with pytest.raises(Exception, match="indices element out of data bounds"):
                run(candidate, row[None])
        else:
            assert np.abs(run(original, row[None]) - run(candidate, row[None])).max() < 1e-6


def test_a_filled_batch_gives_the_same_answers_for_four_times_the_work(models: Path, tokens: NDArray[np.int32]) -> None:
    original = onnx.load(models / "v3.3.onnx")
    filled = padded_to_batch(original, 4)
    onnx.checker.check_model(filled)
    before, after = session(original), session(filled)
    for count in (1, 3):
        assert np.abs(run(before, tokens[:count]) - run(after, tokens[:count])).max() < 1e-6
    filled.graph.output.append(onnx.helper.make_tensor_value_info("target_label/filled", onnx.TensorProto.FLOAT, None))
    inner = session(filled).run(["target_label/filled"], {"bytes": tokens[:1]})[0]
    assert inner.shape == (4, 214)


def test_rewriting_leaves_the_given_model_as_it_was(models: Path) -> None:
    original = onnx.load(models / "v3.3.onnx")
    with_table_lookup(original, rows=256)
    padded_to_batch(original, 4)
    assert original.SerializeToString() == onnx.load(models / "v3.3.onnx").SerializeToString()


def test_a_model_without_a_one_hot_encoding_is_refused() -> None:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    with pytest.raises(GrayliftError, match="no one-hot encoding"):
        with_table_lookup(onnx.helper.make_model(graph))


def test_both_recognition_models_read_the_drawn_numbers_and_the_new_one_reads_more(
    container_numbers: Prepared,
) -> None:
    folder = container_numbers.good.parent
    with np.load(folder / "samples.npz") as samples:
        images, alphabet = samples["images"], tuple(samples["alphabet"].tolist())

    def valid(model: str) -> float:
        reader = session(folder / "models" / model)
        return float(np.mean([containers.is_valid(containers.read(run(reader, i[None])[0], alphabet)) for i in images]))

    old, new = valid("v3.onnx"), valid("v4.onnx")
    assert old > 0.8
    assert new > 0.9
    assert new > old


def test_the_slow_reader_reads_the_same(container_numbers: Prepared) -> None:
    folder = container_numbers.good.parent
    with np.load(folder / "samples.npz") as samples:
        image = samples["images"][:1]
    before, after = (run(session(folder / "models" / name), image) for name in ("v4.onnx", "v4-batch4.onnx"))
    assert before.shape == after.shape
    assert np.abs(before - after).max() < 1e-5
