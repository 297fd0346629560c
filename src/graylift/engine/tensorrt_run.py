"""An engine of TensorRT or TensorRT-RTX into a runner: lanes of one CUDA stream each, with one context a profile.

Contexts of one lane never run at once and share one block of scratch memory. A context stays on its profile, since
changing it costs the next request. The vendor's module is given; called by `tensorrt_vendor`.

Written after TensorRT's documentation and checked against the signatures of TensorRT-RTX 1.7: the GPUs at hand so far
were none that it supports. `tests/engine/test_tensorrt_gpu.py` says what must hold, and runs where one is.
"""

# The vendor's module comes without types that the checker may rely on.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
import queue
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graylift.domain.engine import Interface, Manifest, Profile
from graylift.engine.cuda import Device, Memory, Stream
from graylift.engine.profiles import profile_for
from graylift.engine.runner import check_inputs
from graylift.engine.tensorrt_messages import Heard, listener
from graylift.errors import EngineError
from graylift.protocols.datatypes import DTYPES, Tensor


def load_engine(trt: Any, title: str, engine_file: Path, manifest: Manifest, contexts: int) -> TensorRtRunner:
    """EngineError with TensorRT's reason if it does not take the file. The bytes are those of the manifest's digest:
    `artefacts.open` saw to it, which matters, for an engine may carry code."""
    device = Device()
    try:
        logger, heard = listener(trt)
        runtime = trt.Runtime(logger)
        runtime.engine_host_code_allowed = dict(manifest.options).get("versionCompatible") == "true"
        engine = runtime.deserialize_cuda_engine(engine_file.read_bytes())
        if engine is None:
            raise EngineError(f"{engine_file}: {title} refuses it: {heard.why('it does not say why')}")
        lanes = [_Lane(trt, title, engine, manifest, heard) for _ in range(max(contexts, 1))]
    except BaseException:
        device.close()
        raise
    return TensorRtRunner(device, lanes, manifest)


class TensorRtRunner:
    """A `Runner`. As many inferences at once as there are lanes; further callers wait for a lane."""

    def __init__(self, device: Device, lanes: list[_Lane], manifest: Manifest) -> None:
        self._device = device
        self._lanes = lanes
        self._interface = manifest.interface
        self._profiles = manifest.profiles
        # The lane used last is used next: its memory has the size that is asked for.
        self._free: queue.LifoQueue[_Lane] = queue.LifoQueue()
        for lane in lanes:
            self._free.put(lane)

    @property
    def interface(self) -> Interface:
        return self._interface

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        check_inputs(self._interface, inputs)
        shapes = {name: tensor.shape for name, tensor in inputs.items()}
        profile = profile_for(self._profiles, shapes) if self._profiles else 0
        self._device.enter()
        lane = self._free.get()
        try:
            return lane.infer(profile, inputs)
        finally:
            self._free.put(lane)

    def close(self) -> None:
        self._device.enter()
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._device.close()


class _Lane:
    """One inference at a time."""

    def __init__(self, trt: Any, title: str, engine: Any, manifest: Manifest, heard: Heard) -> None:
        self._title = title
        self._heard = heard
        self._interface = manifest.interface
        self._stream = Stream()
        self._scratch = Memory()
        self._tensors = {spec.name: Memory() for spec in (*self._interface.inputs, *self._interface.outputs)}
        profiles: tuple[Profile | None, ...] = manifest.profiles or (None,)
        sizes = [engine.get_device_memory_size_for_profile_v2(number) for number in range(len(profiles))]
        address = self._scratch.hold(max(sizes))
        self._contexts: list[Any] = []
        for number in range(len(profiles)):
            context = _context(trt, engine)
            if context is None:
                raise EngineError(f"{title} cannot prepare profile {number + 1}: {heard.why('it does not say why')}")
            context.set_device_memory(address, self._scratch.size_bytes)
            if not context.set_optimization_profile_async(number, self._stream.handle):
                raise EngineError(f"{title} refuses profile {number + 1}: {heard.why('it does not say why')}")
            self._contexts.append(context)
        self._stream.wait()

    def infer(self, profile: int, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        context = self._contexts[profile]
        kept: list[Tensor] = []  # until the stream is done with them
        for spec in self._interface.inputs:
            tensor = np.ascontiguousarray(inputs[spec.name])
            kept.append(tensor)
            address = self._tensors[spec.name].hold(tensor.nbytes)
            self._stream.copy_in(tensor, address)
            if not context.set_input_shape(spec.name, tuple(inputs[spec.name].shape)):
                raise self._failed(f"it refuses the shape {inputs[spec.name].shape} of input {spec.name!r}")
            context.set_tensor_address(spec.name, address)
        if context.infer_shapes():
            raise self._failed("the shapes of its inputs do not fit each other")
        outputs: dict[str, Tensor] = {}
        for spec in self._interface.outputs:
            shape = tuple(context.get_tensor_shape(spec.name))
            if min(shape, default=0) < 0:
                raise self._failed(f"the shape of output {spec.name!r} depends on values, which cannot be served")
            outputs[spec.name] = np.empty(shape, DTYPES[spec.datatype])
            size_bytes = math.prod(shape) * outputs[spec.name].itemsize
            context.set_tensor_address(spec.name, self._tensors[spec.name].hold(size_bytes))
        if not context.execute_async_v3(self._stream.handle):
            raise self._failed("it could not start")
        for name, tensor in outputs.items():
            self._stream.copy_out(self._tensors[name].address, tensor)
        self._stream.wait()
        return outputs

    def close(self) -> None:
        self._stream.wait()
        self._contexts.clear()  # before the memory that they work in
        for memory in (self._scratch, *self._tensors.values()):
            memory.free()
        self._stream.close()

    def _failed(self, what: str) -> EngineError:
        return EngineError(f"inference with {self._title} failed: {self._heard.why(what)}")


def _context(trt: Any, engine: Any) -> Any:
    """A context that takes its scratch memory from us."""
    ours = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    kernels = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if kernels is None:
        return engine.create_execution_context(ours)
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(ours)
    # Lazily, kernels would be made while requests wait, and the first of each shape would be slower than the others.
    config.dynamic_shapes_kernel_specialization_strategy = kernels.EAGER
    return engine.create_execution_context(config)
