"""The little of CUDA that running an engine takes: devices, memory, streams, copies, through the driver's own library.

libcuda.so.1 comes with every driver, so nothing needs to be installed for it. Called by `tensorrt_vendor` and
`tensorrt_run`. Every function but `devices` and `why_absent` needs a GPU and raises EngineError without one.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

from graylift.errors import EngineError
from graylift.protocols.datatypes import Tensor

_NO_DEVICE = 100
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NON_BLOCKING = 1  # a stream that does not wait for the default one


@dataclass(frozen=True, slots=True)
class Gpu:
    """compute_capability: as in 9.0; driver: the CUDA version it serves, as in 13.0"""

    name: str
    compute_capability: str
    driver: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability}, driver for CUDA {self.driver})"


def devices() -> tuple[Gpu, ...]:
    """The GPUs that this process may use, in CUDA's order; none if there is no driver."""
    if why_absent() is not None:
        return ()
    count, version = ctypes.c_int(), ctypes.c_int()
    _call("cuDeviceGetCount", ctypes.byref(count))
    _call("cuDriverGetVersion", ctypes.byref(version))
    driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return tuple(_gpu(number, driver) for number in range(count.value))


@functools.cache
def why_absent() -> str | None:
    """Why no GPU can be used here; None if one can."""
    try:
        library = _library()
    except OSError:
        return "this machine has no NVIDIA driver (libcuda.so.1 is not there)"
    status = library.cuInit(0)
    if status == _NO_DEVICE:
        return "the NVIDIA driver finds no GPU that this process may use (see CUDA_VISIBLE_DEVICES)"
    return f"the NVIDIA driver cannot be used: {_meaning(status)}" if status else None


class Device:
    """The first GPU, with the context that all libraries of this process share. `close` gives it back."""

    def __init__(self) -> None:
        absent = why_absent()
        if absent is not None:
            raise EngineError(f"{absent}; this runtime needs one to run an engine")
        self._context = ctypes.c_void_p()
        _call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), ctypes.c_int(0))
        self.enter()

    def enter(self) -> None:
        """Make the calling thread use this GPU; each thread must before any other call."""
        _call("cuCtxSetCurrent", self._context)

    def close(self) -> None:
        _call("cuDevicePrimaryCtxRelease_v2", ctypes.c_int(0))


class Memory:
    """A block on the GPU that grows on demand and keeps its size. Aligned to 256 bytes, as CUDA gives it."""

    def __init__(self) -> None:
        self._address = ctypes.c_uint64()
        self.size_bytes = 0

    @property
    def address(self) -> int:
        return self._address.value

    def hold(self, size_bytes: int) -> int:
        """The address of at least so many bytes; what was in the block is gone if it had to grow."""
        if size_bytes > self.size_bytes or not self.size_bytes:
            self.free()
            size_bytes = max(size_bytes, 1)  # an empty tensor has an address, too
            _call("cuMemAlloc_v2", ctypes.byref(self._address), ctypes.c_size_t(size_bytes))
            self.size_bytes = size_bytes
        return self.address

    def free(self) -> None:
        if self.size_bytes:
            _call("cuMemFree_v2", self._address)
            self._address, self.size_bytes = ctypes.c_uint64(), 0


class Stream:
    """An order of work on the GPU. Copies take contiguous arrays, which must stay as they are until `wait` returns."""

    def __init__(self) -> None:
        self._handle = ctypes.c_void_p()
        _call("cuStreamCreate", ctypes.byref(self._handle), ctypes.c_uint(_NON_BLOCKING))

    @property
    def handle(self) -> int:
        return self._handle.value or 0

    def copy_in(self, tensor: Tensor, address: int) -> None:
        if tensor.nbytes:
            host = ctypes.c_void_p(tensor.ctypes.data)
            _call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), host, ctypes.c_size_t(tensor.nbytes), self._handle)

    def copy_out(self, address: int, tensor: Tensor) -> None:
        if tensor.nbytes:
            host = ctypes.c_void_p(tensor.ctypes.data)
            _call("cuMemcpyDtoHAsync_v2", host, ctypes.c_uint64(address), ctypes.c_size_t(tensor.nbytes), self._handle)

    def wait(self) -> None:
        _call("cuStreamSynchronize", self._handle)

    def close(self) -> None:
        _call("cuStreamDestroy_v2", self._handle)


def _gpu(number: int, driver: str) -> Gpu:
    name = ctypes.create_string_buffer(256)
    _call("cuDeviceGetName", name, ctypes.c_int(len(name)), ctypes.c_int(number))
    parts: list[int] = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        _call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), ctypes.c_int(number))
        parts.append(value.value)
    return Gpu(name.value.decode(), f"{parts[0]}.{parts[1]}", driver)


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _call(function: str, *arguments: object) -> None:
    status: int = getattr(_library(), function)(*arguments)
    if status:
        raise EngineError(f"the GPU refused {function}: {_meaning(status)}")


def _meaning(status: int) -> str:
    text = ctypes.c_char_p()
    _library().cuGetErrorString(ctypes.c_int(status), ctypes.byref(text))
    return f"{(text.value or b'unknown error').decode()} (CUDA error {status})"
