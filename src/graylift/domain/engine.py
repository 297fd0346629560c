"""What an engine is asked to be and what it says of itself. Written by `engine/`, read by `serve/` and `checks/`."""

from __future__ import annotations

from dataclasses import dataclass

from graylift.domain.spec import Runtime


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What to build. Equal specs on one machine with one runtime version give one artefact.

    onnx:    absolute path of the source model
    threads: threads for one inference
    """

    onnx: str
    runtime: Runtime
    threads: int = 1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    datatype: as the Open Inference Protocol says it: FP32, INT64, BYTES, ...
    shape:    -1 is a dynamic dimension
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype}[{','.join('?' if d < 0 else str(d) for d in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Interface:
    """What goes into a model and what comes out."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The passport of an artefact: what it is, from what, by what, where. Stored beside it.

    digest:  sha256 (hex) of the engine's bytes
    sources: (file name, sha256) of each source file, external data included
    options: everything that shaped the build, as (name, value)
    versions: of the runtime and of what it depends on
    machine: what it was built on (architecture, processor, operating system)
    built_at_s: epoch seconds
    """

    digest: str
    runtime: Runtime
    sources: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    machine: str
    interface: Interface
    size_bytes: int
    build_s: float
    built_at_s: float
