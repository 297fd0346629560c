"""Cases in a file: for each inference one tensor for each name, as one process hands them to another.

An .npz whose members are called `<number>/<tensor name>`. Nothing in it is pickled: what reads it runs no code of it.
Called by `trial` and by the checks.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graylift.errors import EngineError
from graylift.protocols.datatypes import DTYPES, Tensor

_END = b"\x01"
"""Closes each element of BYTES: numpy's fixed-width texts lose zeros at their end."""


def write_cases(file: Path, cases: Sequence[Mapping[str, Tensor] | None]) -> None:
    """None leaves a gap: the case has its number, and no tensors. EngineError if it cannot be written."""
    members: dict[str, Any] = {
        f"{number}/{name}": _stored(tensor)
        for number, case in enumerate(cases)
        for name, tensor in (case or {}).items()
    }
    try:
        with file.open("wb") as stream:
            np.savez(stream, **members)
    except OSError as exc:
        raise EngineError(f"cannot write {file}: {exc.strerror}") from exc


def read_cases(file: Path, count: int | None = None) -> list[dict[str, Tensor]]:
    """The cases by number, up to `count` or the last one that has tensors. EngineError for any other file."""
    numbered: dict[int, dict[str, Tensor]] = {}
    try:
        with np.load(file, allow_pickle=False) as members:
            for member in members.files:
                number, _, name = member.partition("/")
                numbered.setdefault(int(number), {})[name] = _restored(members[member])
    except OSError as exc:
        raise EngineError(f"cannot read {file}: {exc.strerror or exc}") from exc
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as exc:
        raise EngineError(f"{file} holds no cases: {exc}") from exc
    last = max(numbered, default=-1) + 1 if count is None else count
    return [numbered.get(number, {}) for number in range(last)]


def _stored(tensor: Tensor) -> Tensor:
    if tensor.dtype != DTYPES["BYTES"]:
        return np.array(tensor, order="C")
    return np.array([element + _END for element in tensor.ravel()], np.bytes_).reshape(tensor.shape)


def _restored(tensor: Tensor) -> Tensor:
    if tensor.dtype.kind != "S":
        return tensor
    restored = np.empty(tensor.size, DTYPES["BYTES"])
    restored[:] = [bytes(element)[: -len(_END)] for element in tensor.ravel()]
    return restored.reshape(tensor.shape)
