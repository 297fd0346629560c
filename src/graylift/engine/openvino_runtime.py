"""OpenVINO on the CPU: the only module that imports it. Reached through `vendors`, never directly.

The engine is OpenVINO's own representation (IR), graph and weights in one uncompressed archive:

    model.bin    the weights, aligned in the file as the runtime wants them in memory, and mapped from there
    model.xml    the graph, with the build key

An exported blob was the alternative. It is tied to processor and version without saying so well when it is loaded
elsewhere, holds the weights unpacked as the IR does, and saves some tenths of a second: compiling happens at every
load anyway, so there is no model cache either.

Two things of this runtime are pinned, since by themselves they change results silently: the precision (on processors
that have bfloat16 it would be used for FP32 models) and dynamic quantisation of activations. What it does differently
from ONNX Runtime and cannot be changed: an index outside of a table gives zeros, not an error. INT8_DYNAMIC makes an
engine smaller here, but not faster: the runtime computes the graph's own quantisation step by step.
"""

# What comes from the vendor is unknown to the type checker, and given a type at once here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportAttributeAccessIssue=false

from __future__ import annotations

import queue
import re
import struct
import sys
import zipfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never, cast

import numpy as np

# On import, openvino reports its use to its makers over the network, unless this package is not there.
sys.modules.setdefault("openvino_telemetry", cast("Any", None))
import openvino as ov  # noqa: E402

from graylift.domain.engine import EngineSpec, Interface, Layer, Manifest, Precision, Profile, TensorSpec  # noqa: E402
from graylift.engine.profiles import bounds_of  # noqa: E402
from graylift.engine.progress import Progress  # noqa: E402
from graylift.engine.runner import check_inputs, check_version, why_other_version  # noqa: E402
from graylift.engine.shapes import check_profiles, graph_inputs  # noqa: E402
from graylift.engine.vendors import Compiled, refuse_unknown_settings  # noqa: E402
from graylift.errors import EngineError  # noqa: E402
from graylift.protocols.datatypes import Tensor  # noqa: E402

if TYPE_CHECKING:
    import onnx

_DEVICE = "CPU"
_ALIGNMENT = 64
_VERSION = ov.__version__.split("-", maxsplit=1)[0]

_DATATYPES: Mapping[str, str] = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
}


def options(spec: EngineSpec) -> tuple[tuple[str, str], ...]:
    from graylift.engine.quantise import check_precision

    refuse_unknown_settings(spec)
    check_precision(spec, "OpenVINO on this processor", _precisions())
    return (("threads", str(spec.threads)),)


def versions(spec: EngineSpec) -> tuple[tuple[str, str], ...]:
    import onnx  # only builds need it, and it is slow to import

    del spec
    return (("onnx", onnx.__version__), ("openvino", _VERSION))


def build(spec: EngineSpec, build_key: str, destination: Path, cache: Path, progress: Progress) -> Compiled:
    """Convert, restrict to the profiles, write, and compile what was written: a model that cannot be computed here
    is refused now and not when it is to be served."""
    from graylift.engine.quantise import lowered
    from graylift.engine.sources import read_model

    del cache
    source = Path(spec.onnx)
    progress("converting the graph", 0.0)
    graph = read_model(source)
    _refuse_texts(source, graph)
    check_profiles(spec.onnx, graph_inputs(graph, spec.onnx), spec.profiles)
    quantised = lowered(spec) if spec.precision in _QUANTISED else None
    core = ov.Core()
    try:
        model = core.read_model(source if quantised is None else quantised.SerializeToString())
    except RuntimeError as exc:
        raise EngineError(_not_converted(source, exc)) from exc
    interface = Interface(_tensor_specs(model.inputs, "input", source), _tensor_specs(model.outputs, "output", source))
    progress("compiling the model", 0.4)
    try:
        _restrict(model, spec.profiles)
        _name_anew(model)
        model.set_rt_info(build_key, ["graylift", "build"])
        progress("writing the engine", 0.5)
        _write(model, destination)
        progress("compiling it, to see that it can be", 0.6)
        compiled, _ = _compiled(core, destination, spec.precision, spec.threads, 1)
    except RuntimeError as exc:
        raise EngineError(f"{source}: OpenVINO {_VERSION} cannot build it: {_sentence(exc)}") from exc
    return Compiled(interface, _layers(compiled))


def check(spec: EngineSpec) -> tuple[str, ...]:
    """Converts the graph, which names what the runtime does not know, and compiles nothing."""
    from graylift.engine.sources import facts_of, read_model

    options(spec)
    source = Path(spec.onnx)
    model = read_model(source)
    _refuse_texts(source, model)
    try:
        ov.Core().read_model(source)
    except RuntimeError as exc:
        raise EngineError(_not_converted(source, exc)) from exc
    return (f"runtime OpenVINO {_VERSION}", *facts_of(model))


def why_not_here(manifest: Manifest) -> str | None:
    """It runs under the release that it was checked with, on processors that have its precision."""
    if manifest.precision not in _precisions():
        return f"it computes in {manifest.precision.value}, which this machine's processor lacks"
    return why_other_version(manifest, "openvino", _VERSION)


def load(engine: Path, manifest: Manifest, contexts: int) -> OpenVinoRunner:
    """The runner of an artefact that `build` wrote: compiled for this processor, one infer request for each context."""
    check_version(engine, manifest, "openvino", _VERSION)
    if manifest.precision not in _precisions():
        raise EngineError(
            f"{engine} computes in {manifest.precision.value}, which this machine's processor lacks "
            f"(it was built on {manifest.machine}); serve it there, or build it again with another precision"
        )
    threads = int(dict(manifest.options)["threads"])
    try:
        compiled, weights = _compiled(ov.Core(), engine, manifest.precision, threads, contexts)
        requests = [compiled.create_infer_request() for _ in range(contexts)]
    except (RuntimeError, zipfile.BadZipFile, KeyError) as exc:
        raise EngineError(f"{engine}: OpenVINO {_VERSION} cannot load it: {_sentence(exc)}") from exc
    return OpenVinoRunner(requests, manifest, weights)


class OpenVinoRunner:
    """A `Runner`. Each of its requests is used by one caller at a time; a caller beyond them waits for one."""

    def __init__(self, requests: Sequence[Any], manifest: Manifest, weights: Tensor) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for request in requests:
            self._requests.put(request)
        self._interface = manifest.interface
        self._profiles = manifest.profiles
        # What was compiled may go on reading the mapped weights as long as it runs.
        self._weights: Tensor | None = weights

    @property
    def interface(self) -> Interface:
        return self._interface

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # A shape outside the bounds is not refused by the runtime: it answers with what was there before.
        check_inputs(self._interface, inputs, self._profiles)
        feeds = {number: inputs[spec.name] for number, spec in enumerate(self._interface.inputs)}
        with self._a_request() as request:
            try:
                outputs = request.infer(feeds, share_inputs=True, share_outputs=False)
            except RuntimeError as exc:
                raise EngineError(f"inference failed: {_masked(_sentence(exc))}") from exc
            return {spec.name: np.asarray(outputs[number]) for number, spec in enumerate(self._interface.outputs)}

    def close(self) -> None:
        while not self._requests.empty():
            self._requests.get_nowait()
        self._weights = None

    @contextmanager
    def _a_request(self) -> Generator[Any]:
        request = self._requests.get()
        try:
            yield request
        finally:
            self._requests.put(request)


_QUANTISED = (Precision.INT8, Precision.INT8_DYNAMIC, Precision.INT4_WEIGHTS)
"""Precisions that are in the graph. The others are what the same graph is computed in."""


def _arithmetic(precision: Precision) -> str:
    match precision:
        case Precision.FP32 | Precision.INT8 | Precision.INT8_DYNAMIC | Precision.INT4_WEIGHTS:
            return "f32"
        case Precision.FP16:
            return "f16"
        case Precision.BF16:
            return "bf16"
        case _:
            assert_never(precision)


def _precisions() -> tuple[Precision, ...]:
    """What OpenVINO can compute on this processor; what it says of itself for 16 bits, where it would else use 32."""
    capable = ov.Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    lacking = {p for p, name in ((Precision.FP16, "FP16"), (Precision.BF16, "BF16")) if name not in capable}
    return tuple(precision for precision in Precision if precision not in lacking)


def _compiled(core: Any, engine: Path, precision: Precision, threads: int, contexts: int) -> tuple[Any, Tensor]:
    """The engine, ready to run, and the mapped weights that it may refer to."""
    graph, weights = _read(engine)
    settings = {
        "INFERENCE_PRECISION_HINT": _arithmetic(precision),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "PERFORMANCE_HINT": "LATENCY" if contexts == 1 else "THROUGHPUT",
        "NUM_STREAMS": contexts,
        "INFERENCE_NUM_THREADS": threads * contexts,
        # Pinned threads of two servers on one machine would sit on the same cores, and leave the others idle.
        "ENABLE_CPU_PINNING": False,
    }
    model = core.read_model(graph, ov.Tensor(weights, shared_memory=True))
    return core.compile_model(model, _DEVICE, settings), weights


def _layers(compiled: Any) -> tuple[Layer, ...]:
    """What is executed, after fusion, in order."""
    layers: list[Layer] = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        information = node.get_rt_info()
        kind = str(information["layerType"].astype(str)) if "layerType" in information else node.get_type_name()
        layers.append(Layer(node.get_friendly_name(), kind))
    return tuple(layers)


def _restrict(model: Any, profiles: Sequence[Profile]) -> None:
    """Bounds for dynamic dimensions: what has but one shape becomes static, for which there are faster kernels."""
    if profiles:
        bounds = bounds_of(profiles)
        model.reshape(
            {
                name: ov.PartialShape([ov.Dimension(low, high) for low, high in dimensions])
                for name, dimensions in bounds.items()
            }
        )


def _name_anew(model: Any) -> None:
    """Nodes that the runtime made are numbered as they were made in this process; equal builds shall be equal."""
    for number, node in enumerate(model.get_ordered_ops()):
        if re.fullmatch(rf"{re.escape(node.get_type_name())}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}#{number}")


def _write(model: Any, destination: Path) -> None:
    """Graph and weights, through two files that are gone afterwards, into one archive."""
    graph, weights = destination.with_suffix(".xml"), destination.with_suffix(".bin")
    try:
        try:
            ov.serialize(model, graph, weights)
        except RuntimeError as exc:
            raise EngineError(
                f"OpenVINO cannot write the engine into {destination.parent} (is the disk full?); nothing was kept"
            ) from exc
        with zipfile.ZipFile(destination, "w", zipfile.ZIP_STORED) as archive:
            for name, file in (("model.bin", weights), ("model.xml", graph)):
                entry = zipfile.ZipInfo(name)  # of a fixed date: equal builds shall have equal bytes
                entry.extra = _padding(archive.start_dir, name)
                with file.open("rb") as content, archive.open(entry, "w", force_zip64=True) as goal:
                    while block := content.read(1 << 20):
                        goal.write(block)
    finally:
        graph.unlink(missing_ok=True)
        weights.unlink(missing_ok=True)


def _padding(offset: int, name: str) -> bytes:
    """An extra field (of a number nobody uses) that lets the content of an entry begin on an aligned position."""
    begin = offset + _LOCAL_HEADER.size + len(name) + _ZIP64_EXTRA + _EXTRA_HEADER.size
    filler = -begin % _ALIGNMENT
    return _EXTRA_HEADER.pack(0x6C67, filler) + bytes(filler)


_LOCAL_HEADER = struct.Struct("<26xHH")
"""Of an entry in a ZIP archive; at its end the lengths of the name and of the extra fields, which follow it."""
_EXTRA_HEADER = struct.Struct("<HH")
_ZIP64_EXTRA = 20
"""What `zipfile` adds for sizes beyond 4 GiB, which it is told to do always."""


def _read(engine: Path) -> tuple[bytes, Tensor]:
    """The graph, and the weights mapped from where they lie in the archive (copies would hold them twice)."""
    with zipfile.ZipFile(engine) as archive:
        graph = archive.read("model.xml")
        entry = archive.getinfo("model.bin")
    with engine.open("rb") as file:
        file.seek(entry.header_offset)
        name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    begin = entry.header_offset + _LOCAL_HEADER.size + name + extra
    if entry.file_size == 0:
        return graph, np.empty(0, np.uint8)
    # Copy on write, as the runtime takes no memory that cannot be written; it never does.
    return graph, np.memmap(engine, np.uint8, "c", begin, (entry.file_size,))


def _refuse_texts(source: Path, model: onnx.ModelProto) -> None:
    """The runtime takes graphs with texts, and crashes when it runs them."""
    import onnx

    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
            raise EngineError(
                f"{source}: {value.name!r} is a tensor of texts (BYTES), which OpenVINO cannot run; "
                "serve the model with the runtime onnxruntime"
            )


def _tensor_specs(ports: Sequence[Any], kind: str, source: Path) -> tuple[TensorSpec, ...]:
    specs: list[TensorSpec] = []
    for port in ports:
        (name, *_) = sorted(port.names)
        element = port.element_type.get_type_name()
        datatype = _DATATYPES.get(element)
        if datatype is None:
            raise EngineError(
                f"{source}: {kind} {name!r} has elements of {element}, which cannot be served; "
                f"expected one of {', '.join(_DATATYPES)}"
            )
        if port.partial_shape.rank.is_dynamic:
            raise EngineError(
                f"{source}: {kind} {name!r} declares no shape, not even its number of dimensions; "
                "export the model with the shape of its inputs (dimensions may be dynamic)"
            )
        shape = tuple(dim.get_length() if dim.is_static else -1 for dim in port.partial_shape)
        specs.append(TensorSpec(name, datatype, shape))
    return tuple(specs)


def _not_converted(source: Path, exc: BaseException) -> str:
    """The operators that the runtime cannot compute, and the way out."""
    lists = re.findall(r"(?:No conversion rule found for operations|Conversion is failed for): (.+)", str(exc))
    # Written with the version of the operator set, as in Conv-16.
    operators = sorted({re.sub(r"-\d+$", "", name) for found in lists for name in found.strip().split(", ")})
    inside = re.search(r"Node\(\w+\): If_", str(exc)) is not None
    what = f"it lacks {', '.join(operators)}" if operators else _sentence(exc)
    where = " as they stand in a branch of an If, where it does not know the shapes" if inside else ""
    way_out = "a variant of the model without If" if inside else "the model without them"
    return (
        f"{source}: OpenVINO {_VERSION} cannot compute this model: {what}{where}; serve it with the runtime "
        f"onnxruntime, or export {way_out if operators else 'it anew'}"
    )


def _sentence(exc: BaseException) -> str:
    """The runtime's message on one line, without the places in its own source files."""
    lines = [line.strip() for line in str(exc).splitlines() if not line.startswith("Exception from ")]
    text = " ".join(" ".join(lines).split()) or type(exc).__name__
    return re.sub(r"(?:Check '.*?' )?failed at \S+?\.[ch]pp:\d+:?\s*", "", text)


def _masked(text: str) -> str:
    """Numbers and quoted texts of a failed inference may be input."""
    return re.sub(r"\d+(\.\d+)?", "#", re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", text))
