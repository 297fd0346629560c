"""PyTorch in eager mode: what a model's authors run, as the baseline that engines are compared with (`graylift bench`).

It runs programs that `torch.export.save` wrote (.pt2), operator by operator, as they are stored. Such a program carries
its weights, names its inputs and says which sizes they may have; the Python code that made it is not needed. The engine
is that file with the build key added. Nothing is lowered, fused or checked against a source, so it is never released:
the release file does not know this runtime. Reached through `vendors`, never directly.
"""

# The package need not be installed where types are checked.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graylift.domain.engine import EngineSpec, Interface, Layer, Manifest, Precision, TensorSpec
from graylift.engine.progress import Progress
from graylift.engine.runner import check_inputs, check_version, why_other_version
from graylift.engine.vendors import Compiled, refuse_unknown_settings
from graylift.errors import EngineError, NotComputable
from graylift.protocols.datatypes import Tensor

_DATATYPES: Mapping[str, str] = {
    "torch.bool": "BOOL",
    "torch.uint8": "UINT8",
    "torch.int8": "INT8",
    "torch.int16": "INT16",
    "torch.int32": "INT32",
    "torch.int64": "INT64",
    "torch.float16": "FP16",
    "torch.float32": "FP32",
    "torch.float64": "FP64",
}
_VERSION = str(torch.__version__)


def options(spec: EngineSpec) -> tuple[tuple[str, str], ...]:
    refuse_unknown_settings(spec)
    if spec.precision is not Precision.FP32 or spec.calibration is not None:
        raise EngineError(
            f"PyTorch runs a program as it is stored and does not lower it to {spec.precision.value}; export it in "
            "that precision, and build it as fp32"
        )
    if spec.profiles:
        raise EngineError(
            "PyTorch builds for no profiles: the program itself says which sizes it takes; leave them out"
        )
    return (("threads", str(spec.threads)),)


def versions(spec: EngineSpec) -> tuple[tuple[str, str], ...]:
    del spec
    return (("torch", _VERSION),)


def build(spec: EngineSpec, build_key: str, destination: Path, cache: Path, progress: Progress) -> Compiled:
    """Keep the program as it is."""
    del cache
    source = Path(spec.onnx)
    progress("reading the program", 0.0)
    program = _program(source)
    interface = Interface(tuple(_inputs(program, source)), tuple(_outputs(program, source)))
    progress("writing the engine", 0.5)
    shutil.copyfile(source, destination)
    with zipfile.ZipFile(destination, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(zipfile.ZipInfo(f"{root}/extra/graylift.build"), build_key)  # of a fixed date
    return Compiled(interface, _operators(program))


def check(spec: EngineSpec) -> tuple[str, ...]:
    options(spec)
    return (f"runtime PyTorch {_VERSION}", f"nodes {len(_operators(_program(Path(spec.onnx))))}")


def why_not_here(manifest: Manifest) -> str | None:
    return why_other_version(manifest, "torch", _VERSION)


def load(engine: Path, manifest: Manifest, contexts: int) -> PyTorchRunner:
    """The runner of an artefact that `build` wrote. One program serves any number of contexts."""
    del contexts
    check_version(engine, manifest, "torch", _VERSION)
    torch.set_num_threads(int(dict(manifest.options)["threads"]))
    return PyTorchRunner(_program(engine).module(), manifest.interface)


class PyTorchRunner:
    """A `Runner`. Callers share the process's pool of threads."""

    def __init__(self, module: Any, interface: Interface) -> None:
        self._module: Any = module
        self._interface = interface

    @property
    def interface(self) -> Interface:
        return self._interface

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        check_inputs(self._interface, inputs)
        given = [_shared(inputs[spec.name]) for spec in self._interface.inputs]
        try:
            with torch.inference_mode():
                outputs = _values(self._module(*given))
        except (AssertionError, IndexError) as exc:  # a guard on sizes, a number outside of a table
            raise NotComputable(f"inference failed: {_masked(exc)}") from exc
        except RuntimeError as exc:
            raise EngineError(f"inference failed: {_masked(exc)}") from exc
        return {spec.name: output.numpy() for spec, output in zip(self._interface.outputs, outputs, strict=True)}

    def close(self) -> None:
        self._module = None


def _program(file: Path) -> Any:
    try:
        return torch.export.load(file)
    except Exception as exc:  # the reader raises whatever it ran into
        raise EngineError(
            f"{file} is no program that PyTorch {_VERSION} can read ({type(exc).__name__}); write it with "
            "torch.export.save(torch.export.export(model.eval(), inputs, dynamic_shapes=...), 'model.pt2')"
        ) from exc


def _inputs(program: Any, source: Path) -> Iterator[TensorSpec]:
    nodes = {node.name: node for node in program.graph.nodes}
    for name in program.graph_signature.user_inputs:
        yield _tensor_spec(str(name), nodes.get(name), source)


def _outputs(program: Any, source: Path) -> Iterator[TensorSpec]:
    """Under the keys of the dict that the program gives, or as its graph calls them."""
    nodes = {node.name: node for node in program.graph.nodes}
    given = program.graph_signature.user_outputs
    tree = program.call_spec.out_spec
    names = tree.context if tree.type is dict and len(tree.context) == len(given) else given
    for name, node in zip(names, given, strict=True):
        yield _tensor_spec(str(name), nodes.get(node), source)


def _tensor_spec(name: str, node: Any, source: Path) -> TensorSpec:
    value = None if node is None else node.meta.get("val")
    datatype = _DATATYPES.get(str(getattr(value, "dtype", "")))
    if value is None or datatype is None:
        raise EngineError(
            f"{source}: {name!r} is no tensor of {', '.join(_DATATYPES.values())}, and cannot be served; export a "
            "model that takes and gives such tensors"
        )
    return TensorSpec(name, datatype, tuple(size if isinstance(size, int) else -1 for size in value.shape))


def _operators(program: Any) -> tuple[Layer, ...]:
    return tuple(Layer(str(node.name), str(node.target)) for node in program.graph.nodes if node.op == "call_function")


def _shared(tensor: Tensor) -> Any:
    """Without a copy, if PyTorch may have it: it takes no memory that is read-only or runs backwards."""
    whole = np.ascontiguousarray(tensor)
    return torch.from_numpy(whole if whole.flags.writeable else whole.copy())


def _values(outputs: Any) -> Sequence[Any]:
    if isinstance(outputs, dict):
        return list(outputs.values())
    return outputs if isinstance(outputs, (tuple, list)) else [outputs]


def _masked(exc: BaseException) -> str:
    """The first line; its numbers and quoted texts may be input."""
    line = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
    return re.sub(r"\d+(\.\d+)?", "#", re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", line))
