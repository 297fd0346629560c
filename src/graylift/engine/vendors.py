"""What a vendor's module offers, and which module stands for which runtime.

A new runtime is a member of `Runtime`, a module beside `onnx_runtime`, and a case here.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never

from graylift.domain.engine import EngineSpec, Interface, Layer, Manifest, Runtime
from graylift.engine.progress import Progress
from graylift.engine.runner import Runner
from graylift.errors import EngineError
from graylift.spec.settings import check_settings


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a vendor tells of the engine it has just written. layers: what it executes, in order."""

    interface: Interface
    layers: tuple[Layer, ...]


class Vendor(Protocol):
    """Stateless; implemented by modules, or by an object that a module makes."""

    def options(self, spec: EngineSpec) -> tuple[tuple[str, str], ...]:
        """What shapes the build beside sources, precision, profiles and versions, as (name, value).

        EngineError if the runtime lacks what `spec` asks for (a precision, profiles), with what it has.
        """
        ...

    def versions(self, spec: EngineSpec) -> tuple[tuple[str, str], ...]:
        """(package, version) of the runtime and of what builds and executes this engine, ascending by name."""
        ...

    def build(self, spec: EngineSpec, build_key: str, destination: Path, cache: Path, progress: Progress) -> Compiled:
        """Write the engine, one file, to `destination`. EngineError if the model cannot be built.

        build_key: to be carried by the file where its format can, so that different builds have different digests
        cache:     a folder for what makes later builds faster and belongs to no engine; made by who needs it
        progress:  of this build alone, from 0 to 1
        """
        ...

    def check(self, spec: EngineSpec) -> tuple[str, ...]:
        """Facts about the model, the runtime and this machine that a build and its engine depend on.

        EngineError if the engine could not be built or would not run here, naming every operator and node that the
        runtime does not know. Cheap; builds nothing.
        """
        ...

    def why_not_here(self, manifest: Manifest) -> str | None:
        """Why an engine that was built elsewhere does not run on this machine; None if it may. Cheap; loads nothing."""
        ...

    def load(self, engine: Path, manifest: Manifest, contexts: int) -> Runner:
        """A runner for `contexts` inferences at once. EngineError if the runtime refuses the file."""
        ...


def refuse_unknown_settings(spec: EngineSpec) -> None:
    """EngineError, with what there is, for a setting that the runtime does not have or a value that cannot be."""
    try:
        check_settings(spec.runtime, spec.settings)
    except ValueError as exc:
        raise EngineError(str(exc)) from exc


def vendor_of(runtime: Runtime) -> Vendor:
    """The module of a runtime, imported now. EngineError with the install command if the runtime is not there."""
    match runtime:
        case Runtime.ONNXRUNTIME:
            try:
                from graylift.engine import onnx_runtime
            except ImportError as exc:
                raise _missing(exc, runtime, "onnxruntime") from exc
            return onnx_runtime
        case Runtime.OPENVINO:
            try:
                from graylift.engine import openvino_runtime
            except ImportError as exc:
                raise _missing(exc, runtime, "graylift[openvino]") from exc
            return openvino_runtime
        case Runtime.TENSORRT:
            try:
                from graylift.engine import tensorrt_runtime
            except ImportError as exc:
                raise _missing(exc, runtime, "tensorrt") from exc
            return tensorrt_runtime.VENDOR
        case Runtime.TENSORRT_RTX:
            try:
                from graylift.engine import tensorrt_rtx_runtime
            except ImportError as exc:
                raise _missing(exc, runtime, "graylift[tensorrt-rtx]") from exc
            return tensorrt_rtx_runtime.VENDOR
        case Runtime.PYTORCH:
            try:
                from graylift.engine import pytorch_runtime
            except ImportError as exc:
                raise _missing(exc, runtime, "torch") from exc
            return pytorch_runtime
        case _:
            assert_never(runtime)


def engine_file(runtime: Runtime) -> str:
    """Name of the engine in its artefact's folder."""
    match runtime:
        case Runtime.ONNXRUNTIME:
            return "engine.onnx"
        case Runtime.OPENVINO:
            return "engine.ir.zip"
        case Runtime.TENSORRT | Runtime.TENSORRT_RTX:
            return "engine.plan"
        case Runtime.PYTORCH:
            return "engine.pt2"
        case _:
            assert_never(runtime)


def reference_runner(onnx: Path) -> Runner:
    """The source model itself, by ONNX Runtime and without any optimisation: what engines are compared with.

    EngineError if it cannot be run so, or the runtime is not there.
    """
    try:
        from graylift.engine import onnx_runtime
    except ImportError as exc:
        raise _missing(exc, Runtime.ONNXRUNTIME, "onnxruntime") from exc
    return onnx_runtime.reference(onnx)


def _missing(exc: ImportError, runtime: Runtime, package: str) -> EngineError:
    quoted = shlex.quote(package)  # a shell would take brackets for a pattern
    return EngineError(f"the runtime {runtime.value} cannot be imported ({exc}); install it with: pip install {quoted}")
