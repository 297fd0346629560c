"""What an engine is asked to be and what it says of itself. Written by `engine/`, read by `serve/` and `checks/`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Runtime(Enum):
    """What executes an engine. A member stands here only once its module works.

    PYTORCH is what engines are compared with, and is never released.
    """

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"
    PYTORCH = "pytorch"


class Precision(Enum):
    """The numbers an engine computes with.

    FP32:         as the model is stored: nothing is lowered, whatever the runtime would do by itself
    FP16, BF16:   weights and arithmetic in 16 bits
    INT8:         weights and activations in 8 bits, ranges from calibration data (Q/DQ)
    INT8_DYNAMIC: weights in 8 bits, ranges of the activations found anew in each run
    INT4_WEIGHTS: weights in 4 bits, arithmetic as stored
    """

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT8_DYNAMIC = "int8-dynamic"
    INT4_WEIGHTS = "int4-weights"


@dataclass(frozen=True, slots=True)
class ProfileShape:
    """The shapes one input may have, smallest to largest, and the one to be fastest at. All of one length, and
    min <= opt <= max in each dimension."""

    input: str
    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes that are served together: one entry for each input with a dynamic dimension, ascending by its name."""

    shapes: tuple[ProfileShape, ...]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What to build. Equal specs on one machine with one runtime version give one artefact.

    onnx:        absolute path of the source model; for PYTORCH of a program (.pt2)
    threads:     threads for one inference
    profiles:    shapes to build for; requests outside all of them are refused. None: every shape the model allows
    calibration: absolute path of an .npz with one array for each input, samples along the first axis; for INT8 alone
    settings:    the runtime's own, as (name, value), ascending by name; it refuses what it does not know
    """

    onnx: str
    runtime: Runtime
    threads: int = 1
    precision: Precision = Precision.FP32
    profiles: tuple[Profile, ...] = ()
    calibration: str | None = None
    settings: tuple[tuple[str, str], ...] = ()


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
class Layer:
    """One step that an engine executes, in its runtime's words.

    datatype: of what it gives, as in `TensorSpec`; None where the runtime does not tell
    provider: which part of the runtime took it, as the setting `provider` says it; None where there is but one
    """

    name: str
    kind: str
    datatype: str | None = None
    provider: str | None = None


def placement(layers: Sequence[Layer]) -> str | None:
    """How many layers each provider took, and which ones the CPU had to. None where there is but one provider."""
    counts = Counter(layer.provider for layer in layers if layer.provider is not None)
    if not counts:
        return None
    taken = ", ".join(f"{provider} takes {count:,}" for provider, count in sorted(counts.items()) if provider != "cpu")
    fallen = [f"{layer.kind} {layer.name!r}" for layer in layers if layer.provider == "cpu"]
    more = f" and {len(fallen) - _LISTED:,} more" if len(fallen) > _LISTED else ""
    rest = f"{len(fallen):,} fell back to the CPU: {', '.join(fallen[:_LISTED])}{more}" if fallen else "none fell back"
    return f"of {len(layers):,} nodes {taken}; {rest}"


_LISTED = 10


@dataclass(frozen=True, slots=True)
class Manifest:
    """The passport of an artefact: what it is, from what, by what, where. Stored beside it.

    digest:  sha256 (hex) of the engine's bytes
    sources: (file name, sha256) of each source file, external data and calibration data included
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
    precision: Precision = Precision.FP32
    profiles: tuple[Profile, ...] = ()

    @property
    def system(self) -> str:
        """Architecture and operating system. The processor between them may differ: no engine is tied to its model."""
        architecture, *_, operating_system = self.machine.split(", ")
        return f"{architecture}, {operating_system}"


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that can be told of an artefact without running it.

    graph:  (operator, number of nodes) of the source model, most frequent first
    layers: what the engine executes, after fusion; empty if the runtime does not tell
    """

    manifest: Manifest
    graph: tuple[tuple[str, int], ...]
    layers: tuple[Layer, ...]

    @property
    def runs_on(self) -> str:
        """The machines it may run on: architecture, operating system, and the GPU if it needs one."""
        gpu = dict(self.manifest.options).get("gpu")
        return self.manifest.system + (f", with a GPU: {gpu}" if gpu else "")
