"""The datatypes of the Open Inference Protocol v2 as numpy knows them. Shared by the protocol and by every engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[Any]
"""A tensor in memory: C order, little-endian. BYTES is an object array whose elements are `bytes`."""

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(np.object_),
}
"""Datatype -> dtype, all that Graylift serves."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def datatype_of(tensor: Tensor) -> str:
    """The datatype of a tensor. KeyError for a dtype outside the protocol."""
    return _NAMES[tensor.dtype]
