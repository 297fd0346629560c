"""What a person may set of a TensorRT build, beside precision and profiles: read once, refused where unknown.

Pure. Called by `tensorrt_vendor`. Sizes are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from graylift.errors import EngineError


class HardwareCompatibility(Enum):
    """On which other GPUs an engine of the full TensorRT shall run; each may cost speed on the one it is built on."""

    NONE = "none"
    SAME_COMPUTE_CAPABILITY = "same-compute-capability"
    AMPERE_PLUS = "ampere-plus"


@dataclass(frozen=True, slots=True)
class Settings:
    """workspace_bytes: scratch memory that a tactic may take. None: as much as the GPU has
    optimization_level: 0 (fast to build) to 5 (fast to run). None: the runtime's default
    compute_capabilities: of the GPUs to build for, as in 8.9. None: every one that the runtime builds for by itself
    """

    workspace_bytes: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    compute_capabilities: tuple[str, ...] | None = None


SETTINGS: Mapping[str, str] = {
    "workspace": "a size, as in 4GiB",
    "optimizationLevel": "0 to 5",
    "versionCompatible": "true or false",
    "hardwareCompatibility": " or ".join(member.value for member in HardwareCompatibility),
    "computeCapability": "one or several, as in 8.6,8.9",
}
"""Every name, and what its value looks like."""

_Value = TypeVar("_Value")

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def settings_from_pairs(title: str, known: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Settings:
    """EngineError for a name that is not in `known`, or a value that is none. title: the runtime, for the message."""
    values = dict(pairs)
    for name in values:
        if name not in known:
            described = ", ".join(f"{setting} ({SETTINGS[setting]})" for setting in known)
            raise EngineError(f"{title} has no setting {name!r}; it has {described}")
    return Settings(
        workspace_bytes=_read(values, "workspace", _size),
        optimization_level=_read(values, "optimizationLevel", _level),
        version_compatible=_read(values, "versionCompatible", _truth) or False,
        hardware_compatibility=_read(values, "hardwareCompatibility", HardwareCompatibility)
        or HardwareCompatibility.NONE,
        compute_capabilities=_read(values, "computeCapability", _capabilities),
    )


def _read(values: Mapping[str, str], name: str, parse: Callable[[str], _Value]) -> _Value | None:
    text = values.get(name)
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as exc:
        raise EngineError(f"the setting {name} is {SETTINGS[name]}, not {text!r}") from exc


def _size(text: str) -> int:
    parts = re.fullmatch(r"(\d{1,15})([kKMGi]{0,2}B)", text, re.ASCII)
    if parts is None or parts[2] not in _UNITS:
        raise ValueError(text)
    return int(parts[1]) * _UNITS[parts[2]]


def _level(text: str) -> int:
    if not re.fullmatch(r"[0-5]", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _capabilities(text: str) -> tuple[str, ...]:
    capabilities = text.split(",")
    if not all(re.fullmatch(r"\d{1,2}\.\d", capability, re.ASCII) for capability in capabilities):
        raise ValueError(text)
    return tuple(sorted(set(capabilities), key=float))
