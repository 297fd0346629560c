"""Execution providers of ONNX Runtime: what a session computes on, and which of its nodes each of them took.

`cpu` is in every package. `cuda` is in another package of the runtime, `openvino` (for a CPU) is a plugin beside it. A
provider takes the nodes that it knows; the others fall back to the CPU, and of that the runtime says nothing unless it
is asked. Each is pinned to the arithmetic of the model, since by themselves both compute FP32 in less: TF32 on a GPU,
BF16 on a processor that has it (the plugin's own option `precision: FP32` does not change that). Called by
`onnx_runtime` alone.
"""

# ONNX Runtime ships no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportMissingImports=false

from __future__ import annotations

import importlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime as ort

from graylift.domain.engine import Layer
from graylift.errors import EngineError

CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Provider:
    """name:    as ONNX Runtime calls it
    package: that has it; of a plugin the module of that name, with underscores, says where its library lies
    options: what pins its arithmetic
    """

    name: str
    package: str
    plugin: bool = False
    options: Mapping[str, str] = field(default_factory=dict[str, str])


PROVIDERS: Mapping[str, Provider] = {
    CPU: Provider("CPUExecutionProvider", "onnxruntime"),
    "cuda": Provider("CUDAExecutionProvider", "onnxruntime-gpu", options={"use_tf32": "0"}),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        "onnxruntime-ep-openvino",
        plugin=True,
        options={
            "load_config": json.dumps(
                {"CPU": {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}}
            )
        },
    ),
}
"""By the value of the setting `provider`."""


def why_absent(provider: str) -> str | None:
    """Why it is not in this installation, with the cure; None if it is. A device for it may be missing all the same."""
    known = PROVIDERS[provider]
    if known.plugin:
        _register(known)
    if known.name in ort.get_available_providers():
        return None
    available = ", ".join(name.removesuffix("ExecutionProvider") for name in ort.get_available_providers())
    instead = "" if known.plugin else " in place of onnxruntime"
    return (
        f"this ONNX Runtime {ort.__version__} has no provider {provider} (it has {available}); "
        f"install it with: pip install {known.package}{instead}"
    )


def demand(provider: str) -> None:
    """EngineError with the cure if the provider is not in this installation."""
    if absent := why_absent(provider):
        raise EngineError(absent)


def versions_of(provider: str) -> tuple[tuple[str, str], ...]:
    """(package, version) of what the provider adds to the runtime. EngineError with the cure if it is not there."""
    demand(provider)
    known = PROVIDERS[provider]
    return ((known.package, importlib.metadata.version(known.package)),) if known.plugin else ()


def session_on(provider: str, model: Path | bytes, options: Any) -> Any:
    """A session whose nodes are the provider's, as far as it takes them, and the CPU's. `options` is of this session
    alone. EngineError if the provider is not there; else whatever the runtime raises."""
    demand(provider)
    known = PROVIDERS[provider]
    source = model if isinstance(model, bytes) else str(model)
    if provider == CPU:
        return ort.InferenceSession(source, options, providers=[known.name])
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if known.plugin:
        # Its other devices are other arithmetic, which is not pinned.
        devices = [
            each
            for each in ort.get_ep_devices()
            if each.ep_name == known.name and each.device.type == ort.OrtHardwareDeviceType.CPU
        ]
        if devices:
            options.add_provider_for_devices(devices[:1], dict(known.options))
        session = ort.InferenceSession(source, options, enable_fallback=0)
    else:
        chosen = [(known.name, dict(known.options)), PROVIDERS[CPU].name]
        session = ort.InferenceSession(source, options, providers=chosen, enable_fallback=0)
    if known.name not in session.get_providers():  # the runtime goes on without it, and says so in its log alone
        raise EngineError(
            f"ONNX Runtime {ort.__version__} cannot use its provider {provider} on this machine: its libraries or its "
            "device are missing; repair that, or leave the setting `provider` out"
        )
    return session


def placed(provider: str, session: Any) -> tuple[Layer, ...]:
    """The nodes of a session of `session_on`, each with who took it. EngineError if the provider took none."""
    names = {known.name: name for name, known in PROVIDERS.items()}
    layers = tuple(
        Layer(node.name, node.op_type, provider=names.get(part.ep_name, part.ep_name))
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    )
    if not any(layer.provider == provider for layer in layers):
        raise EngineError(
            f"the provider {provider} takes none of its {len(layers)} nodes: all would run on the CPU; leave the "
            "setting `provider` out"
        )
    return layers


def provider_of(settings: Sequence[tuple[str, str]]) -> str:
    """Of an engine's settings, or of its options."""
    return dict(settings).get("provider", CPU)


def _register(known: Provider) -> None:
    """Make a plugin known to the runtime, once in a process. Nothing if its package is not there."""
    if any(device.ep_name == known.name for device in ort.get_ep_devices()):
        return
    try:
        plugin = importlib.import_module(known.package.replace("-", "_"))
    except ImportError:
        return
    ort.register_execution_provider_library(known.package, plugin.get_library_path())
