"""ONNX Runtime, on the CPU or by a provider (`onnx_providers`). Reached through `vendors`, never directly; `quantise`
alone uses parts of it besides.

On a CPU 16 bits are what it stores, not what it computes with: on most processors it has no kernels for them and
converts around each operator. An FP16 engine is half as large, and no faster. BF16 it does not have.
"""

# ONNX Runtime ships no types: what comes from it is unknown to the type checker, and given one at once here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from graylift.domain.engine import EngineSpec, Interface, Layer, Manifest, Precision, Profile, TensorSpec, placement
from graylift.engine.onnx_providers import CPU, PROVIDERS, placed, provider_of, session_on, versions_of, why_absent
from graylift.engine.progress import Progress
from graylift.engine.runner import check_inputs, check_version, why_other_version
from graylift.engine.shapes import check_profiles, graph_inputs
from graylift.engine.vendors import Compiled, refuse_unknown_settings
from graylift.errors import EngineError, InputError, NotComputable
from graylift.protocols.datatypes import DTYPES, Tensor

_DATATYPES: Mapping[str, str] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}

# They have no common base of their own. RuntimeError is what pybind11 makes of any other C++ exception.
_FAILURES = (
    native.EPFail,
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.ModelLoadCanceled,
    native.ModelLoaded,
    native.ModelRequiresCompilation,
    native.NoModel,
    native.NoSuchFile,
    native.NotFound,
    native.NotImplemented,
    native.RuntimeException,
    RuntimeError,
    MemoryError,
)

_FATAL = 4
"""Log severity. Each real error reaches us as an exception and is logged by whoever handles it; the runtime's own
line about it (severity 3) may hold values of inputs, which must not get into logs."""

ort.set_default_logger_severity(_FATAL)


_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT8_DYNAMIC, Precision.INT4_WEIGHTS)


def options(spec: EngineSpec) -> tuple[tuple[str, str], ...]:
    from graylift.engine.quantise import check_precision

    refuse_unknown_settings(spec)
    check_precision(spec, "ONNX Runtime", _PRECISIONS)
    provider = provider_of(spec.settings)
    if provider == CPU:
        return (("optimization", "extended"), ("threads", str(spec.threads)))
    return (
        ("optimization", "basic"),
        ("provider", provider),
        *((f"provider.{name}", value) for name, value in PROVIDERS[provider].options.items()),
        ("threads", str(spec.threads)),
    )


def versions(spec: EngineSpec) -> tuple[tuple[str, str], ...]:
    import onnx  # only builds need it, and it is slow to import

    own = (("onnx", onnx.__version__), ("onnxruntime", ort.__version__))
    return (*own, *versions_of(provider_of(spec.settings)))


def build(spec: EngineSpec, build_key: str, destination: Path, cache: Path, progress: Progress) -> Compiled:
    """Optimise the graph once, offline, into one file with all weights inside.

    Level "extended" (fusions into the CPU's own operators) and not "all": the rest are layouts for the vector width of
    this very processor, which would tie the file to it. `load` applies those, on the machine that serves. For another
    provider it is "basic": the CPU's own operators would be strange to it, and fall back.
    """
    import onnx
    from google.protobuf.message import EncodeError

    from graylift.engine.quantise import lowered

    del cache
    source = Path(spec.onnx)
    progress("optimising the graph", 0.0)
    session_options = _session_options(spec.threads)
    provider = provider_of(spec.settings)
    session_options.graph_optimization_level = (
        ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        if provider == CPU
        else ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    )
    session_options.optimized_model_filepath = str(destination)
    try:
        # From memory with its external data inside: the runtime would leave that outside, at a path that is not ours.
        model = lowered(spec)
        check_profiles(spec.onnx, graph_inputs(model, spec.onnx), spec.profiles)
        session = session_on(CPU, model.SerializeToString(), session_options)
    except _FAILURES as exc:
        raise EngineError(f"{source}: ONNX Runtime cannot build it: {_sentence(exc)}") from exc
    except EncodeError as exc:
        raise EngineError(
            f"{source}: with its external data it exceeds the 2 GiB that an engine of ONNX Runtime may have; "
            "export it with 16-bit weights, or serve it elsewhere and name it as an endpoint"
        ) from exc
    progress("writing the engine", 0.8)
    interface = Interface(_tensor_specs(session.get_inputs(), source), _tensor_specs(session.get_outputs(), source))
    optimised = onnx.load(destination)
    onnx.helper.set_model_props(
        optimised, {**{p.key: p.value for p in optimised.metadata_props}, "graylift.build": build_key}
    )
    onnx.save(optimised, destination)
    if provider == CPU:
        return Compiled(interface, tuple(Layer(node.name, node.op_type) for node in optimised.graph.node))
    progress(f"placing it on {provider}", 0.9)
    return Compiled(interface, _layers_on(provider, destination, spec))


def _layers_on(provider: str, model: Path, spec: EngineSpec) -> tuple[Layer, ...]:
    """Who takes which node of a model."""
    session_options = _session_options(spec.threads)
    session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        return placed(provider, session_on(provider, model, session_options))
    except _FAILURES as exc:
        raise EngineError(f"{spec.onnx}: the provider {provider} cannot take it: {_sentence(exc)}") from exc
    except EngineError as exc:
        raise EngineError(f"{spec.onnx}: {exc}") from exc


def check(spec: EngineSpec) -> tuple[str, ...]:
    """Names and versions alone: whether there is a kernel for the types of each node, the build tells. Of a provider
    besides the CPU a session tells which nodes it takes."""

    from graylift.engine.sources import facts_of, nodes_of, read_model

    options(spec)
    model = read_model(Path(spec.onnx))
    opsets = {_domain(entry.domain): entry.version for entry in model.opset_import}
    _refuse_unknown_opsets(opsets, spec.onnx)
    # Of every operator the first version that has it; those of the model's own functions are known, too.
    known: dict[tuple[str, str], int] = {(function.domain, function.name): 0 for function in model.functions}
    for schema in native.get_all_operator_schema():
        name = (schema.domain, schema.name)
        known[name] = min(known.get(name, 10**9), int(schema.since_version))
    unknown = [
        f"operator {node.domain and node.domain + '.'}{node.op_type}, node {node.name or node.output[0]!r}"
        for node in nodes_of(model)
        if known.get((domain := _domain(node.domain), node.op_type), 10**9) > opsets.get(domain, 1)
    ]
    if unknown:
        raise EngineError(
            f"{spec.onnx}: ONNX Runtime {ort.__version__} does not know {'; '.join(unknown)} "
            f"(opset {opsets.get('', 'of no version')}); export the model without"
        )
    facts = (f"runtime {', '.join(' '.join(version) for version in versions(spec))}", *facts_of(model))
    if (provider := provider_of(spec.settings)) == CPU:
        return facts
    return (*facts, f"placement {placement(_layers_on(provider, Path(spec.onnx), spec))}")


def why_not_here(manifest: Manifest) -> str | None:
    """It runs on every processor of its architecture, under the release that it was checked with, if its provider is
    there."""
    provider = provider_of(manifest.options)
    if absent := why_absent(provider):
        return absent
    installed = (("onnxruntime", ort.__version__), *versions_of(provider))
    return next((why for package, version in installed if (why := why_other_version(manifest, package, version))), None)


def load(engine: Path, manifest: Manifest, contexts: int) -> OnnxRuntimeRunner:
    """The runner of an artefact that `build` wrote. One session serves any number of contexts."""
    del contexts
    provider = provider_of(manifest.options)
    for package, version in (("onnxruntime", ort.__version__), *versions_of(provider)):
        check_version(engine, manifest, package, version)
    session_options = _session_options(int(dict(manifest.options)["threads"]))
    session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    try:
        session = session_on(provider, engine, session_options)
    except _FAILURES as exc:
        raise EngineError(f"{engine}: ONNX Runtime {ort.__version__} cannot load it: {_sentence(exc)}") from exc
    return OnnxRuntimeRunner(session, manifest.interface, manifest.profiles)


def reference(source: Path) -> OnnxRuntimeRunner:
    """The runner of a source model, as it is stored: no node is fused, folded or left out, no precision changed."""
    session_options = _session_options(threads=1)
    session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = session_on(CPU, source, session_options)
    except _FAILURES as exc:
        raise EngineError(f"{source}: ONNX Runtime {ort.__version__} cannot load it: {_sentence(exc)}") from exc
    return OnnxRuntimeRunner(
        session, Interface(_tensor_specs(session.get_inputs(), source), _tensor_specs(session.get_outputs(), source))
    )


class OnnxRuntimeRunner:
    """A `Runner`. Runs of several callers share the session's pool of threads."""

    def __init__(self, session: Any, interface: Interface, profiles: Sequence[Profile] = ()) -> None:
        self._session: Any = session
        self._interface = interface
        self._profiles = profiles
        self._output_names = [spec.name for spec in self._interface.outputs]

    @property
    def interface(self) -> Interface:
        return self._interface

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        check_inputs(self._interface, inputs, self._profiles)
        feeds = {name: _texts_from_bytes(name, tensor) for name, tensor in inputs.items()}
        try:
            outputs = self._session.run(self._output_names, feeds)
        except _FAILURES as exc:
            raise _failure(exc) from exc
        return {name: _bytes_from_texts(tensor) for name, tensor in zip(self._output_names, outputs, strict=True)}

    def close(self) -> None:
        self._session = None


def _refuse_unknown_opsets(opsets: Mapping[str, int], source: str) -> None:
    """By a model that has nothing but the same opsets: the runtime has no list of them."""
    import onnx

    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "opsets", value[:1], value[1:])
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    trial = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    try:
        session_on(CPU, trial.SerializeToString(), _session_options(1))
    except _FAILURES as exc:
        raise EngineError(f"{source}: ONNX Runtime {ort.__version__} refuses its opsets: {_sentence(exc)}") from exc


def _domain(name: str) -> str:
    """The default domain has two names."""
    return "" if name == "ai.onnx" else name


def _session_options(threads: int) -> Any:
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = threads
    session_options.inter_op_num_threads = 1
    # Threads that spin while they wait take the cores of the revision that is served beside this one: both get slower
    # by up to three times, and a comparison of the two measures its own interference.
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session_options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session_options.log_severity_level = _FATAL
    return session_options


def _tensor_specs(arguments: Sequence[Any], source: Path) -> tuple[TensorSpec, ...]:
    specs: list[TensorSpec] = []
    for argument in arguments:
        element = re.fullmatch(r"tensor\((\w+)\)", argument.type)
        datatype = _DATATYPES.get(element[1]) if element else None
        if datatype is None:
            raise EngineError(
                f"{source}: {argument.name!r} is a {argument.type}, which cannot be served; "
                f"expected a tensor of {', '.join(_DATATYPES)}"
            )
        shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in argument.shape)
        specs.append(TensorSpec(argument.name, datatype, shape))
    return tuple(specs)


def _texts_from_bytes(name: str, tensor: Tensor) -> Tensor:
    """The runtime's strings are texts; it would write `bytes` elements as Python shows them."""
    if tensor.dtype != DTYPES["BYTES"]:
        return tensor
    try:
        return _mapped(tensor, bytes.decode)
    except UnicodeDecodeError as exc:
        raise InputError(f"input {name!r}: the model takes text, but an element is not UTF-8") from exc


def _bytes_from_texts(tensor: Tensor) -> Tensor:
    return _mapped(tensor, str.encode) if tensor.dtype == DTYPES["BYTES"] else tensor


def _mapped(tensor: Tensor, function: Any) -> Tensor:
    mapped = np.empty(tensor.size, dtype=np.object_)
    mapped[:] = [function(element) for element in tensor.ravel()]
    return mapped.reshape(tensor.shape)


def _failure(exc: BaseException) -> EngineError:
    """One line on an inference that failed. Numbers and quoted texts of the cause are masked: they may be input.

    The graph is fixed and ran on other inputs: an operator that refuses was given something by this request that it
    cannot take. Only memory that cannot be had is not the request's fault alone, for what fits depends on the machine.
    """
    text = _sentence(exc)
    where = re.match(r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: ", text)
    if where is None:
        return EngineError(f"inference failed: {_masked(text)}")
    cause = text[where.end() :]
    kind = EngineError if re.search(r"[Ff]ailed to allocate|bad.alloc", cause) else NotComputable
    return kind(f"inference failed in {where[1]} node {where[2]!r}: {_masked(cause)}")


def _masked(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", text))


def _sentence(exc: BaseException) -> str:
    """The runtime's message on one line, without its prefix and the paths of its own source files."""
    text = " ".join(str(exc).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^Load model from \S* failed:", "", text)
    return re.sub(r"/\S*?\.(cc|h|cpp):\d+ ", "", text)
