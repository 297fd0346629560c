"""An ONNX file into an engine through the API of TensorRT and TensorRT-RTX; which of the two, the caller gives.

Networks are strongly typed: an engine computes in the types that the ONNX file has, and nothing is lowered silently.
A lower precision is written into the file first (`sixteen_bits`). Called by `tensorrt_vendor`.
"""

# The vendor's module comes without types that the checker may rely on (one of two may be installed, or none).
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graylift.domain.engine import EngineSpec, Interface, Layer, Precision, TensorSpec
from graylift.engine.progress import Progress, part_of
from graylift.engine.shapes import check_profiles, demand_profiles, graph_inputs
from graylift.engine.tensorrt_messages import (
    Heard,
    interrupts_held,
    layers_from_inspector,
    listener,
    progress_monitor,
)
from graylift.engine.tensorrt_settings import HardwareCompatibility, Settings
from graylift.engine.vendors import Compiled
from graylift.errors import EngineError

if TYPE_CHECKING:
    import onnx

_DATATYPES = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "INT8": "INT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
    "UINT8": "UINT8",
}

_DOUBLE = 11
"""TensorProto.DOUBLE. The parser takes such tensors for FP32."""


def compile_engine(
    trt: Any,
    title: str,
    spec: EngineSpec,
    settings: Settings,
    build_key: str,
    destination: Path,
    timing_cache: Path | None,
    progress: Progress,
) -> Compiled:
    """Write the engine to `destination`. EngineError with everything that TensorRT has against the model.

    build_key:    becomes the network's name, which the engine carries: no two builds have equal bytes
    timing_cache: what is known of tactics, read before and written after; None where the runtime keeps none
    """
    with (
        interrupts_held() as interrupted,
        tempfile.TemporaryDirectory(dir=destination.parent, prefix="source-") as scratch,
    ):
        progress("reading the model", 0.0)
        source = _source(title, spec, Path(scratch))
        logger, heard = listener(trt)
        builder = _created(lambda: trt.Builder(logger), title, heard)
        network = builder.create_network(_network_flags(trt))
        network.name = build_key
        # The parser owns the weights that the network points to: it lives as long.
        parser = trt.OnnxParser(network, logger)
        progress("parsing the model", 0.05)
        if not parser.parse_from_file(str(source)):
            raise EngineError(f"{spec.onnx}: {title} cannot build it: {'; '.join(parser_errors(parser))}")
        interface = _interface(title, network, spec.onnx)
        config = builder.create_builder_config()
        _configure(trt, title, config, settings)
        for profile in spec.profiles:
            _add_profile(builder, config, profile.shapes, title, spec.onnx)
        if timing_cache is not None:
            known = timing_cache.read_bytes() if timing_cache.exists() else b""
            config.set_timing_cache(config.create_timing_cache(known), False)
        config.progress_monitor, failures = progress_monitor(trt, part_of(progress, 0.1, 0.95), interrupted)
        plan = builder.build_serialized_network(network, config)
        if failures:
            raise failures[0]
        if interrupted():
            raise KeyboardInterrupt
        if plan is None:
            raise EngineError(f"{spec.onnx}: {title} cannot build it: {heard.why('it does not say why')}")
        progress("writing the engine", 0.95)
        destination.write_bytes(plan)
        if timing_cache is not None:
            _keep(timing_cache, config.get_timing_cache().serialize())
    return Compiled(interface, tuple(heard.layers) or _inspected(trt, destination))


def check_graph(trt: Any, title: str, spec: EngineSpec) -> None:
    """EngineError for a profile against the graph, or for nodes that the parser does not know. Builds nothing."""
    from graylift.engine.sources import read_model

    _check_graph_alone(title, read_model(Path(spec.onnx)), spec)
    logger, heard = listener(trt)
    builder = _created(lambda: trt.Builder(logger), title, heard)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(spec.onnx):
        raise EngineError(f"{spec.onnx}: {title} cannot build it: {'; '.join(parser_errors(parser))}")


def parser_errors(parser: Any) -> Iterator[str]:
    """Each with operator, node and reason."""
    for number in range(parser.num_errors):
        error = parser.get_error(number)
        reason = str(error.desc()).removeprefix("Assertion failed: ")
        if "Plugin not found" in reason:
            reason = "no such operator, and no plugin of its name"
        elif reason == "false":
            reason = "not supported"
        if error.node_operator():
            name = error.node_name() or f"number {error.node()}"
            yield f"operator {error.node_operator()}, node {name!r}: {reason}"
        else:
            yield reason


def _source(title: str, spec: EngineSpec, scratch: Path) -> Path:
    """The file to parse: the model itself, or a copy in 16 bits."""
    from graylift.engine.sources import read_model

    _check_graph_alone(title, read_model(Path(spec.onnx)), spec)
    match spec.precision:
        case Precision.FP32:
            return Path(spec.onnx)
        case Precision.FP16 | Precision.BF16:
            from graylift.engine.sixteen_bits import write_in_16_bits

            return write_in_16_bits(Path(spec.onnx), spec.precision, scratch)
        case _:
            raise EngineError(f"{title} does not lower a model to {spec.precision.value}")


def _check_graph_alone(title: str, model: onnx.ModelProto, spec: EngineSpec) -> None:
    """What can be seen without TensorRT."""
    inputs = graph_inputs(model, spec.onnx)
    demand_profiles(spec.onnx, inputs, spec.profiles)
    check_profiles(spec.onnx, inputs, spec.profiles)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == _DOUBLE:
            raise EngineError(
                f"{spec.onnx}: {value.name!r} is of type FP64, of which {title} would silently make FP32; export the "
                "model in FP32"
            )


def _created(create: Any, title: str, heard: Heard) -> Any:
    try:
        return create()
    except (RuntimeError, TypeError) as exc:  # pybind11 says TypeError where a constructor returned nothing
        raise EngineError(f"{title} cannot start: {heard.why(str(exc))}") from exc


def _network_flags(trt: Any) -> int:
    """From TensorRT 11 on every network is strongly typed, and the flag may be gone."""
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if strongly_typed is None else 1 << int(strongly_typed)


def _configure(trt: Any, title: str, config: Any, settings: Settings) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the layers can be told
    config.clear_flag(trt.BuilderFlag.TF32)  # 10 bits where the model says 23
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatibility is not HardwareCompatibility.NONE:
        level = settings.hardware_compatibility.name
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if settings.compute_capabilities is not None:
        config.num_compute_capabilities = len(settings.compute_capabilities)
        for number, capability in enumerate(settings.compute_capabilities):
            member = getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}", None)
            if member is None or not config.set_compute_capability(member, number):
                supported = ", ".join(compute_capabilities(trt))
                raise EngineError(
                    f"{title} does not build for compute capability {capability}; it does for {supported}"
                )


def compute_capabilities(trt: Any) -> tuple[str, ...]:
    """What the vendor's module can build for, ascending, as in 8.9."""
    numbers = (name.removeprefix("SM") for name in trt.ComputeCapability.__members__ if name.startswith("SM"))
    return tuple(f"{number[:-1]}.{number[-1]}" for number in sorted(numbers, key=int))


def _add_profile(builder: Any, config: Any, shapes: Any, title: str, source: str) -> None:
    profile = builder.create_optimization_profile()
    for shape in shapes:
        profile.set_shape(shape.input, shape.min, shape.opt, shape.max)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{source}: {title} refuses the profile {shapes}")


def _interface(title: str, network: Any, source: str) -> Interface:
    def specs(tensors: Any) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(t.name, _datatype(title, t, source), tuple(t.shape)) for t in tensors)

    inputs = [network.get_input(number) for number in range(network.num_inputs)]
    for tensor in inputs:
        if tensor.is_shape_tensor:
            raise EngineError(
                f"{source}: the value of input {tensor.name!r} decides shapes inside the model, which cannot be served "
                f"with {title}; export the model with that value as a constant"
            )
    return Interface(specs(inputs), specs(network.get_output(number) for number in range(network.num_outputs)))


def _datatype(title: str, tensor: Any, source: str) -> str:
    datatype = _DATATYPES.get(tensor.dtype.name)
    if datatype is None:
        raise EngineError(
            f"{source}: {tensor.name!r} is of type {tensor.dtype.name}, which cannot be served with {title}; "
            f"expected {', '.join(_DATATYPES.values())}"
        )
    return datatype


def _keep(timing_cache: Path, content: Any) -> None:
    # The engine is there; without the cache the next build only takes longer.
    with contextlib.suppress(OSError):
        timing_cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=timing_cache.parent, delete=False) as new:
            new.write(content)
        Path(new.name).replace(timing_cache)


def _inspected(trt: Any, engine_file: Path) -> tuple[Layer, ...]:
    """From the engine itself, where this machine can load it; nothing where it cannot."""
    logger, _ = listener(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(engine_file.read_bytes())
    if engine is None:
        return ()
    inspector = engine.create_engine_inspector()
    return layers_from_inspector(json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON)))
