"""GGUF files: what a language model says of itself, and its weights packed in another way. It runs nothing.

Only matrices are packed anew, each dequantised to 32 bits first; what is packed as asked already is copied as it is, so
nothing is lost twice. The file's own entries are kept, but for the packing's number: runtimes go by it, and one that
contradicts the tensors makes them crash. The only module that imports `gguf`. Called by `language_build`.
"""

# The library types its entries as Any, and given a type at once here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import struct
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.quants import QuantError, dequantize, quant_shape_to_byte_shape, quantize

from graylift.domain.engine import LanguageFacts, Packing
from graylift.engine.progress import Progress, unheard
from graylift.errors import EngineError

_TEMPLATE = "tokenizer.chat_template"
_BLOCK = 32
"""Weights of a block, in every packing here. A row that is no multiple of it stays in 16 bits."""
_TYPES = {
    Packing.F16: (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    Packing.Q8_0: (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    Packing.Q4_0: (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    Packing.Q4_1: (GGMLQuantizationType.Q4_1, LlamaFileType.MOSTLY_Q4_1),
}
_LARGEST_TEMPLATE_BYTES = 1 << 20


def facts_of(file: Path) -> LanguageFacts:
    """EngineError if it is no GGUF file of a language model, or a damaged one."""
    with _whole(file):
        return _facts(GGUFReader(file), Packing.AS_STORED)


def write_packed(
    source: Path,
    destination: Path,
    packing: Packing,
    template: str | None = None,
    build_key: str = "",
    progress: Progress = unheard,
) -> LanguageFacts:
    """The model of `source`, packed as asked, one tensor at a time; what it is then.

    template: replaces the file's own
    EngineError with the tensor, if its type cannot be read or the file is damaged.
    """
    with _whole(source):
        reader = GGUFReader(source)
        facts = _facts(reader, packing)  # before anything is written
        writer = GGUFWriter(destination, str(_entry(reader, "general.architecture")))
        try:
            _write_entries(reader, writer, packing, template, build_key)
            goals = [_goal(source, tensor, packing) for tensor in reader.tensors]
            for tensor, goal in zip(reader.tensors, goals, strict=True):
                shape, dtype = _stored(tensor, goal)
                size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
                writer.add_tensor_info(tensor.name, shape, dtype, size, raw_dtype=goal)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for number, (tensor, goal) in enumerate(zip(reader.tensors, goals, strict=True)):
                progress("packing the weights", number / len(goals))
                writer.write_tensor_data(_repacked(source, tensor, goal))
        finally:
            writer.close()
    return facts if template is None else replace(facts, chat_template=template)


def template_from(file: Path) -> str:
    """The text of a chat template's file. EngineError if it is none."""
    try:
        if file.stat().st_size > _LARGEST_TEMPLATE_BYTES:
            raise EngineError(f"{file} is no chat template: it has more than {_LARGEST_TEMPLATE_BYTES >> 20} MiB")
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise EngineError(f"{file} is no chat template: it is not UTF-8 from byte {exc.start} on") from exc
    except OSError as exc:
        raise EngineError(f"cannot read {file}: {exc.strerror}") from exc


@contextmanager
def _whole(file: Path) -> Generator[None]:
    """What the library raises on a file that is none, in words. It reads lengths and places as they stand."""
    try:
        yield
    except OSError as exc:
        raise EngineError(f"cannot read {file}: {exc.strerror or exc}") from exc
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, struct.error) as exc:
        raise EngineError(f"{file} is no GGUF file, or a damaged one ({type(exc).__name__}: {exc})") from exc


def _facts(reader: GGUFReader, packing: Packing) -> LanguageFacts:
    architecture = str(_entry(reader, "general.architecture"))
    template = reader.get_field(_TEMPLATE)
    return LanguageFacts(
        architecture=architecture,
        parameters=sum(int(tensor.n_elements) for tensor in reader.tensors),
        vocabulary=len(_required(reader, "tokenizer.ggml.tokens").data),
        context_length=int(_entry(reader, f"{architecture}.context_length")),
        packing=packing,
        chat_template="" if template is None else str(template.contents()),
    )


def _required(reader: GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    if field is None:
        raise KeyError(f"it has no entry {name}")
    return field


def _entry(reader: GGUFReader, name: str) -> Any:
    return _required(reader, name).contents()


def _write_entries(
    reader: GGUFReader, writer: GGUFWriter, packing: Packing, template: str | None, build_key: str
) -> None:
    # The writer adds the architecture by itself, and writes with the default alignment.
    own = ("general.architecture", "general.alignment", *(() if template is None else (_TEMPLATE,)))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in own:
            continue
        kind, *inner = field.types
        value: Any = field.contents()
        if name == "general.file_type" and packing is not Packing.AS_STORED:
            value = int(_TYPES[packing][1])
        writer.add_key_value(name, value, kind, inner[-1] if kind is GGUFValueType.ARRAY else None)
    if template is not None:
        writer.add_string(_TEMPLATE, template)
    if build_key:
        writer.add_string("graylift.build", build_key)


def _goal(source: Path, tensor: Any, packing: Packing) -> GGMLQuantizationType:
    """The type that a tensor gets. EngineError if it would have to be read for that and cannot be."""
    own: GGMLQuantizationType = tensor.tensor_type
    if packing is Packing.AS_STORED or len(tensor.shape) < 2:
        return own
    goal = _TYPES[packing][0]
    if goal is not GGMLQuantizationType.F16 and int(tensor.shape[0]) % _BLOCK:
        goal = GGMLQuantizationType.F16
    if own is not goal:
        try:
            # Of one block: what cannot be read is told before an hour of packing.
            dequantize(np.zeros((1, quant_shape_to_byte_shape((256,), own)[0]), np.uint8), own)
        except (NotImplementedError, ValueError, KeyError) as exc:
            raise EngineError(
                f"{source}: {tensor.name} is packed as {own.name}, which cannot be unpacked here; "
                "write `precision: as-stored`, or begin with a file in f16"
            ) from exc
    return goal


def _stored(tensor: Any, goal: GGMLQuantizationType) -> tuple[Sequence[int], np.dtype[Any]]:
    """Shape and type of the array that holds the tensor; what is packed is bytes."""
    if tensor.tensor_type is goal:
        return tensor.data.shape, tensor.data.dtype
    shape = tuple(int(size) for size in reversed(tensor.shape))
    if goal is GGMLQuantizationType.F16:
        return shape, np.dtype(np.float16)
    return quant_shape_to_byte_shape(shape, goal), np.dtype(np.uint8)


def _repacked(source: Path, tensor: Any, goal: GGMLQuantizationType) -> Any:
    if tensor.tensor_type is goal:
        return tensor.data
    numbers = dequantize(tensor.data, tensor.tensor_type)
    if not np.isfinite(numbers).all():
        raise EngineError(f"{source}: {tensor.name} holds weights that are NaN or infinite: the file is damaged")
    try:
        return quantize(numbers, goal)
    except QuantError as exc:
        raise EngineError(f"{source}: {tensor.name} cannot be packed as {goal.name}: {exc}") from exc
