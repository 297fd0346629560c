"""The NVIDIA devices that a server of this machine sees: through NVML, imported when asked.

CUDA_VISIBLE_DEVICES names them, by number, by UUID or by the UUID of a MIG instance, and a server inherits it. It is
read and verified here, never changed: a name that matches nothing hides this device and all named after it, in silence.
Called by `capacity`.
"""

# pynvml ships no types: what comes from it is unknown to the type checker, and given one at once here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any


class DeviceTrouble(Exception):
    """The devices cannot be told, or are not what was asked for; the text says why, with the cure."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a MIG instance of one. `number`: CUDA's, None for a MIG instance, which is named by UUID alone."""

    number: int | None
    uuid: str
    name: str
    total_bytes: int
    free_bytes: int


def visible_devices(visible: str | None = None) -> tuple[str, tuple[Device, ...]]:
    """How devices were chosen, in words, and the devices, at least one. DeviceTrouble otherwise.

    visible: the value of CUDA_VISIBLE_DEVICES, by default as it stands in the environment
    """
    if visible is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return chosen(visible, _all_devices())


def chosen(visible: str | None, devices: Sequence[Device]) -> tuple[str, tuple[Device, ...]]:
    """Those of `devices` that CUDA_VISIBLE_DEVICES names, in its order."""
    if visible is None:
        found = tuple(device for device in devices if device.number is not None) or tuple(devices)
        if not found:
            raise DeviceTrouble("this machine has no NVIDIA device; take one that has, or another runtime")
        return f"CUDA_VISIBLE_DEVICES is not set: all {len(found)} devices", found
    found: tuple[Device, ...] = ()
    for name in visible.split(","):
        wanted = name.strip()
        matches = [
            device
            for device in devices
            # As in CUDA, the beginning of a UUID will do.
            if (wanted.isdecimal() and device.number == int(wanted))
            or (wanted[:4] in ("GPU-", "MIG-") and device.uuid.startswith(wanted))
        ]
        if len(matches) != 1:
            has = ", ".join(d.uuid if d.number is None else f"{d.number} ({d.uuid})" for d in devices) or "none"
            raise DeviceTrouble(
                f"CUDA_VISIBLE_DEVICES={visible!r}: {wanted!r} names {len(matches)} devices, expected one; this "
                f"machine has {has}"
            )
        found += (matches[0],)
    return f"CUDA_VISIBLE_DEVICES={visible}: {len(found)} of {len(devices)} devices", found


def _all_devices() -> tuple[Device, ...]:
    try:
        import pynvml
    except ImportError as error:
        raise DeviceTrouble("device memory is asked for through NVML; install it: pip install graylift[gpu]") from error
    try:
        pynvml.nvmlInit()
        try:
            return tuple(_described(pynvml))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise DeviceTrouble(f"the NVIDIA driver does not answer: {error}") from error


def _described(nvml: ModuleType) -> Iterator[Device]:
    for number in range(int(nvml.nvmlDeviceGetCount())):
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        instances = list(_mig_instances(nvml, handle))
        # With MIG on, CUDA cannot use the GPU as a whole.
        if instances:
            yield from instances
        else:
            yield _device(nvml, handle, number)


def _mig_instances(nvml: ModuleType, handle: Any) -> Iterator[Device]:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
        if current != nvml.NVML_DEVICE_MIG_ENABLE:
            return
        places = int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))
    except nvml.NVMLError_NotSupported:  # a GPU without MIG
        return
    for place in range(places):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
        except nvml.NVMLError_NotFound:  # not every place is taken
            continue
        yield _device(nvml, instance, None)


def _device(nvml: ModuleType, handle: Any, number: int | None) -> Device:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Device(
        number=number,
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        name=str(nvml.nvmlDeviceGetName(handle)),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
    )
