"""The `Vendor` that TensorRT and TensorRT-RTX have in common. `tensorrt_runtime` and `tensorrt_rtx_runtime` bind it to
their package and say what is their own.
"""

# The vendor's module comes without types that the checker may rely on.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graylift.domain.engine import EngineSpec, Manifest, Precision
from graylift.engine import cuda
from graylift.engine.progress import Progress
from graylift.engine.tensorrt_build import check_graph, compile_engine, compute_capabilities
from graylift.engine.tensorrt_run import TensorRtRunner, load_engine
from graylift.engine.tensorrt_settings import settings_from_pairs
from graylift.engine.vendors import Compiled, refuse_unknown_settings
from graylift.errors import EngineError

_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.BF16)


class TensorRt:
    """trt:      the vendor's module
    title:    as people call it
    portable: engines are built for a list of compute capabilities and not for the GPU of this machine
    """

    def __init__(self, trt: Any, title: str, *, portable: bool) -> None:
        self._trt = trt
        self._title = title
        self._portable = portable
        self._version: tuple[str, str] = (title.lower(), str(trt.__version__))

    def options(self, spec: EngineSpec) -> tuple[tuple[str, str], ...]:
        if spec.precision not in _PRECISIONS:
            raise EngineError(
                f"{self._title} does not lower a model to {spec.precision.value}; it has "
                f"{', '.join(precision.value for precision in _PRECISIONS)}. For 8 or 4 bits export the model with "
                "QuantizeLinear and DequantizeLinear nodes and build it as fp32: it computes as the model is stored"
            )
        refuse_unknown_settings(spec)
        return (*spec.settings, ("gpu", self._target(spec)), ("tf32", "off"))

    def versions(self, spec: EngineSpec) -> tuple[tuple[str, str], ...]:
        import onnx  # only builds need it, and it is slow to import

        del spec
        return tuple(sorted((self._version, ("onnx", onnx.__version__))))

    def build(self, spec: EngineSpec, build_key: str, destination: Path, cache: Path, progress: Progress) -> Compiled:
        settings = settings_from_pairs(spec.settings)
        timing_cache = None
        if not self._portable:
            name, version = self._version
            timing_cache = cache / f"{name}-{version}-{self._target(spec).replace(' ', '-').replace('/', '-')}.timing"
        return compile_engine(self._trt, self._title, spec, settings, build_key, destination, timing_cache, progress)

    def check(self, spec: EngineSpec) -> tuple[str, ...]:
        from graylift.engine.sources import facts_of, read_model

        refuse_unknown_settings(spec)
        model = read_model(Path(spec.onnx))
        check_graph(self._trt, self._title, spec)
        target = self._target(spec)
        reason = self._why_not_on_this_gpu({**dict(spec.settings), "gpu": target})
        if reason is not None:
            raise EngineError(f"the engine would not run here: {reason}")
        return (
            f"runtime {self._title} {self._version[1]}",
            *facts_of(model),
            f"engine for {target}",
            f"gpu {cuda.devices()[0]}",
        )

    def load(self, engine: Path, manifest: Manifest, contexts: int) -> TensorRtRunner:
        return load_engine(self._trt, self._title, engine, manifest, contexts)

    def why_not_here(self, manifest: Manifest) -> str | None:
        name, version = self._version
        built_with = dict(manifest.versions).get(name, "an unknown version")
        options = dict(manifest.options)
        if built_with != version and options.get("versionCompatible") != "true":
            return (
                f"it was built with {self._title} {built_with}, and this is {version}; an engine runs with its own "
                "version alone: build it again"
            )
        return self._why_not_on_this_gpu(options)

    def _why_not_on_this_gpu(self, options: Mapping[str, str]) -> str | None:
        """options: of the build, its target as `gpu`"""
        absent = cuda.why_absent()
        if absent is not None:
            return f"{absent}; an engine of {self._title} runs on a GPU: {options['gpu']}"
        return why_not_on(cuda.devices()[0], options)

    def _target(self, spec: EngineSpec) -> str:
        """What the engine is built for: it shapes the engine, and says where it runs."""
        if not self._portable:
            absent = cuda.why_absent()
            if absent is not None:
                raise EngineError(
                    f"{absent}; {self._title} builds on the GPU that shall run the engine. TensorRT-RTX and ONNX "
                    "Runtime build without one"
                )
            return _described(cuda.devices()[0])
        chosen = dict(spec.settings).get("computeCapability")
        if chosen is not None:
            return f"compute capability {', '.join(chosen.split(','))}"
        # Turing (7.5) is left out unless it is named: it costs the others what it cannot do.
        supported = [capability for capability in compute_capabilities(self._trt) if capability != "7.5"]
        return f"compute capability {', '.join(supported)} and newer"


def why_not_on(gpu: cuda.Gpu, options: Mapping[str, str]) -> str | None:
    """Why an engine that was built with these options does not run on this GPU; None if it may."""
    target = options["gpu"]
    capabilities = re.fullmatch(r"compute capability ([\d., ]+?)( and newer)?", target)
    if capabilities is None:
        fits = target == _described(gpu) or options.get("hardwareCompatibility", "none") != "none"
    else:
        built_for = [_number(capability) for capability in capabilities[1].split(", ")]
        here = _number(gpu.compute_capability)
        fits = here in built_for or (capabilities[2] is not None and here > max(built_for))
    return None if fits else f"it is built for {target}; this machine's GPU is {gpu}: build it there, or for it"


def _described(gpu: cuda.Gpu) -> str:
    return f"{gpu.name}, compute capability {gpu.compute_capability}"


def _number(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))
