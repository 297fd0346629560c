"""What a person may set of a TensorRT build, beside precision and profiles, as values. `spec/settings` says what may
be written.

Pure. Called by `tensorrt_vendor`. Sizes are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


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


_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def settings_from_pairs(pairs: Sequence[tuple[str, str]]) -> Settings:
    """What texts that passed `spec/settings` say."""
    values = dict(pairs)
    workspace, level = values.get("workspace"), values.get("optimizationLevel")
    capabilities = values.get("computeCapability")
    return Settings(
        workspace_bytes=None if workspace is None else _size(workspace),
        optimization_level=None if level is None else int(level),
        version_compatible=values.get("versionCompatible") == "true",
        hardware_compatibility=HardwareCompatibility(values.get("hardwareCompatibility", "none")),
        compute_capabilities=None if capabilities is None else tuple(sorted(set(capabilities.split(",")), key=float)),
    )


def _size(text: str) -> int:
    number = re.match(r"\d+", text)
    assert number is not None
    return int(number[0]) * _UNITS[text[number.end() :]]
