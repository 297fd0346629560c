"""Samples to find 8 bit ranges with: read from an .npz, and held against the model before anything is built."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from graylift.engine.sources import read_model
from graylift.errors import EngineError
from graylift.protocols.datatypes import Tensor


def read_samples(file: Path, model_file: Path) -> Iterator[dict[str, Tensor]]:
    """Inputs of one run after the other: one sample each, or as many as the model's fixed batch takes.

    file: .npz with one array for each input of the model, of its type; samples along the first axis
    EngineError, at once, if the arrays are not that.
    """
    inputs = _inputs(read_model(model_file))
    arrays = _arrays(file)
    if arrays.keys() != inputs.keys():
        raise EngineError(
            f"{file}: expected one array for each input of the model ({', '.join(sorted(inputs))}), "
            f"got {', '.join(sorted(arrays)) or 'none'}"
        )
    for name, value in inputs.items():
        _check(file, name, arrays[name], value)
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise EngineError(
            f"{file}: expected as many samples of each input, at least 1; "
            f"got {', '.join(f'{count} of {name}' for name, count in sorted(counts.items()))}"
        )
    sizes = {dims[0] for dims in map(_dims, inputs.values()) if dims[0] > 0}
    size = max(sizes, default=1)
    count = min(counts.values())
    if count < size:
        raise EngineError(f"{file}: the model takes {size} samples at a time, got {count}")
    return (
        {name: array[begin : begin + size] for name, array in arrays.items()}
        for begin in range(0, count - size + 1, size)
    )


def _inputs(model: onnx.ModelProto) -> Mapping[str, onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return {value.name: value for value in model.graph.input if value.name not in constants}


def _arrays(file: Path) -> dict[str, Tensor]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as exc:
        raise EngineError(f"{file} does not exist; it was named as calibration data") from exc
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, EOFError) as exc:
        raise EngineError(f"{file} is no readable .npz of plain arrays; write it with numpy.savez") from exc


def _check(file: Path, name: str, array: Tensor, value: onnx.ValueInfoProto) -> None:
    expected = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    if array.dtype != expected:
        raise EngineError(f"{file}: {name!r}: expected {expected}, got {array.dtype}")
    dims = _dims(value)
    if not dims:
        raise EngineError(f"{file}: input {name!r} is a single number, without an axis for samples; int8 needs one")
    if array.ndim != len(dims) or any(e not in (-1, g) for e, g in zip(dims[1:], array.shape[1:], strict=True)):
        wanted = ",".join(("samples", *("?" if dim < 0 else str(dim) for dim in dims[1:])))
        raise EngineError(f"{file}: {name!r}: expected shape [{wanted}], got [{','.join(map(str, array.shape))}]")


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Of an input; -1 is any size."""
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)
