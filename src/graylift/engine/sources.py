"""Reading ONNX files: which files a model consists of, with their digests. Imports `onnx`, runs nothing."""

# onnx types its paths as PathLike of nothing.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from graylift.errors import EngineError


def source_files(model_file: Path) -> tuple[tuple[str, str], ...]:
    """(file name, sha256) of the model, then of each external data file, ascending by name.

    Raises EngineError if the file is no ONNX model, or names external data that is not there or lies elsewhere.
    """
    model = read_model(model_file)
    locations = {ExternalDataInfo(t).location for t in _tensors(model) if uses_external_data(t)}
    for location in sorted(locations):
        # A model from elsewhere must not make us read, digest and serve any file of this machine.
        if Path(location).is_absolute() or ".." in Path(location).parts:
            raise EngineError(f"{model_file}: external data must lie beside the model, not at {location!r}")
        if not (model_file.parent / location).is_file():
            raise EngineError(
                f"{model_file}: its external data file {location!r} is missing; expected it in {model_file.parent}"
            )
    return (
        (model_file.name, sha256_of(model_file)),
        *((location, sha256_of(model_file.parent / location)) for location in sorted(locations)),
    )


def read_model(model_file: Path) -> onnx.ModelProto:
    """The model, external data left where it is. EngineError if the file is no ONNX model."""
    try:
        model = onnx.load(model_file, load_external_data=False)
    except DecodeError as exc:
        raise EngineError(f"{model_file} is no ONNX model, or a damaged one: {exc}") from exc
    except FileNotFoundError as exc:
        raise EngineError(f"{model_file} does not exist") from exc
    except OSError as exc:
        raise EngineError(f"cannot read {model_file}: {exc.strerror}") from exc
    # Protobuf reads many files that are not models, an empty one for instance, as a message without content.
    if model.ir_version < 1 or not model.graph.output:
        size = model_file.stat().st_size
        raise EngineError(f"{model_file} is no ONNX model ({size} bytes without a graph)")
    return model


def operators_of(model: onnx.ModelProto) -> tuple[tuple[str, int], ...]:
    """(operator, number of nodes), most frequent first; subgraphs and functions included. Domains but the default one
    stand before the operator, as in com.microsoft.Attention."""
    counts = Counter(f"{node.domain}.{node.op_type}".removeprefix(".") for node in nodes_of(model))
    return tuple(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def facts_of(model: onnx.ModelProto) -> tuple[str, str]:
    """Its opsets and its nodes, a line each."""
    opsets = sorted((entry.domain or "ai.onnx", entry.version) for entry in model.opset_import)
    operators = operators_of(model)
    return (
        f"opsets {', '.join(f'{domain} {version}' for domain, version in opsets)}",
        f"nodes {sum(count for _, count in operators)} ({len(operators)} operators)",
    )


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs and functions too."""
    pending = [iter(model.graph.node), *(iter(function.node) for function in model.functions)]
    while pending:
        for node in pending.pop():
            yield node
            pending.extend(iter(graph.node) for a in node.attribute for graph in (a.g, *a.graphs))


def sha256_of(file: Path) -> str:
    """sha256 (hex) of a file's bytes. EngineError if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as exc:
        raise EngineError(f"cannot read {file}: {exc.strerror}") from exc


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors that may lie in external files: initializers and attributes, in subgraphs and functions too."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            nodes.extend(graph.node)
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            continue
        for attribute in nodes.pop().attribute:
            yield from (attribute.t, *attribute.tensors)
            graphs.extend((attribute.g, *attribute.graphs))
