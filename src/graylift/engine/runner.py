"""What every engine looks like once it is loaded, and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from graylift.domain.engine import Interface, Manifest, Profile, TensorSpec
from graylift.engine.profiles import profile_for
from graylift.errors import EngineError, InputError
from graylift.protocols.datatypes import DTYPES, Tensor, datatype_of


class Runner(Protocol):
    """A loaded engine. `infer` may be called from several threads at once; `close` only after the last one returned."""

    @property
    def interface(self) -> Interface: ...

    def infer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs by name, in the order of the interface.

        inputs: one tensor for each input of the interface (`graylift.protocols.datatypes` says how BYTES look)
        Raises InputError if they do not fit the interface, NotComputable if an operator of the model refuses them all
        the same, EngineError if the runtime fails otherwise.
        """
        ...

    def close(self) -> None:
        """Give back what the engine holds."""
        ...


def check_inputs(interface: Interface, inputs: Mapping[str, Tensor], profiles: Sequence[Profile] = ()) -> None:
    """InputError, with the expected and the given, unless `inputs` fit `interface` and, if there are any, a profile."""
    expected = {spec.name: spec for spec in interface.inputs}
    for name in inputs:
        if name not in expected:
            raise InputError(f"the model has no input {name!r}; it takes {_listed(interface.inputs)}")
    for name, spec in expected.items():
        tensor = inputs.get(name)
        if tensor is None:
            raise InputError(f"input {name!r} is missing; the model takes {_listed(interface.inputs)}")
        if tensor.dtype != DTYPES[spec.datatype]:
            raise InputError(f"input {name!r}: expected {spec.datatype}, got {_datatype(tensor)}")
        if not _fits(tensor.shape, spec.shape):
            raise InputError(
                f"input {name!r}: expected shape {_shape(spec.shape)}, got {_shape(tensor.shape)}"
                + (" (? is any size)" if -1 in spec.shape else "")
            )
    if profiles:
        profile_for(profiles, {name: tensor.shape for name, tensor in inputs.items()})


def check_version(engine: Path, manifest: Manifest, package: str, installed: str) -> None:
    """EngineError unless the runtime that is installed is the one that built the engine and under which it was checked.
    To be called before the runtime sees the file: it need not notice, and may crash."""
    why = why_other_version(manifest, package, installed)
    if why is not None:
        raise EngineError(f"{engine}: {why}")


def why_other_version(manifest: Manifest, package: str, installed: str) -> str | None:
    """Why the installed runtime is not the engine's, None if it is."""
    built = dict(manifest.versions).get(package)
    if built == installed:
        return None
    return (
        f"the engine was built with {package} {built or 'of an unknown version'}, but {installed} is installed; "
        f"install {package}=={built}, or build it again: that is another revision, to be checked anew"
    )


def _fits(given: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return len(given) == len(expected) and all(e in (-1, g) for g, e in zip(given, expected, strict=True))


def _datatype(tensor: Tensor) -> str:
    try:
        return datatype_of(tensor)
    except KeyError:
        return f"numpy's {tensor.dtype}"


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{','.join('?' if dim < 0 else str(dim) for dim in shape)}]"


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(str(spec) for spec in specs)
