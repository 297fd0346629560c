"""The interface check: clients of stable must be served by the candidate as they are, tensor by tensor.

Names are compared as clients see them, after the renamings of the release file. It runs no inference. Called by
`checklist`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import aiohttp
from pydantic import TypeAdapter, ValidationError

from graylift.checks.build import Built
from graylift.checks.workplace import Workplace
from graylift.domain.engine import Interface, TensorSpec
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import OnnxModel, ReleaseSpec, ServingProtocol, TensorName

CHECK = "interface"

_INTERFACE = TypeAdapter(Interface)
_TIMEOUT = aiohttp.ClientTimeout(total=5.0)


class _Unknown(Exception):
    """The interface of one side cannot be told; the text says why."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """The inputs or the outputs of both sides. `field` is what the release file calls their renamings."""

    field: str
    stable: tuple[TensorSpec, ...]
    candidate: tuple[TensorSpec, ...]

    @property
    def name(self) -> str:
        return self.field.removesuffix("s")


async def check_interface(spec: ReleaseSpec, stable: Built, candidate: Built, workplace: Workplace) -> CheckResult:
    """Do the two serve the same names, datatypes and shapes? What stable takes, the candidate must take."""
    del workplace  # nothing is run
    if spec.protocol is not ServingProtocol.OPEN_INFERENCE:
        return CheckResult(CHECK, CheckOutcome.SKIPPED, f"not run: {spec.protocol.value} has no tensors to compare")
    try:
        of_stable = await _served(spec.service, stable)
        of_candidate = await _served(spec.service, candidate)
    except _Unknown as why:
        return CheckResult(CHECK, CheckOutcome.FAIL, str(why))
    evidence = (*_described(stable, of_stable), *_described(candidate, of_candidate))
    kinds = (
        _Kind("inputs", of_stable.inputs, of_candidate.inputs),
        _Kind("outputs", of_stable.outputs, of_candidate.outputs),
    )
    differences = [difference for kind in kinds for difference in _differences(kind, candidate.spec.name)]
    if differences:
        sentence = f"{candidate.spec.name} does not serve what {stable.spec.name} serves: {'; '.join(differences)}"
        return CheckResult(CHECK, CheckOutcome.FAIL, sentence + _cure(kinds, candidate), evidence)
    tensors = ", ".join(map(str, of_stable.inputs)) + " -> " + ", ".join(map(str, of_stable.outputs))
    sentence = f"{candidate.spec.name} serves what {stable.spec.name} serves: {tensors}"
    return CheckResult(CHECK, CheckOutcome.PASS, sentence, evidence)


async def _served(service: str, side: Built) -> Interface:
    """The interface as clients see it."""
    match side.spec.model:
        case OnnxModel(inputs=inputs, outputs=outputs):
            assert side.manifest is not None, "an ONNX model that was built has a manifest"
            own = side.manifest.interface
            return Interface(
                inputs=_renamed(side.spec.name, "input", own.inputs, inputs),
                outputs=_renamed(side.spec.name, "output", own.outputs, outputs),
            )
        case endpoint:
            return await _asked(endpoint.url, service, side.spec.name)


def _renamed(
    revision: str, kind: str, tensors: Sequence[TensorSpec], renamings: Sequence[TensorName]
) -> tuple[TensorSpec, ...]:
    """_Unknown if a renaming names no tensor, or gives two tensors one name."""
    existing = {tensor.name for tensor in tensors}
    for renaming in renamings:
        if renaming.own not in existing:
            raise _Unknown(
                f"the release file serves {revision}'s {kind} {renaming.own!r} as {renaming.served!r}, but the model "
                f"has no such {kind}; it has {_listed(tensors)}"
            )
    served = {renaming.own: renaming.served for renaming in renamings}
    renamed = tuple(replace(tensor, name=served.get(tensor.name, tensor.name)) for tensor in tensors)
    if len({tensor.name for tensor in renamed}) < len(renamed):
        raise _Unknown(
            f"with the renamings of the release file {revision} would serve two {kind}s under one name: "
            f"{', '.join(tensor.name for tensor in renamed)}"
        )
    return renamed


async def _asked(url: str, service: str, revision: str) -> Interface:
    """What the running server says of the model, which clients, and so we, call by the service's name."""
    asked = f"{url.rstrip('/')}/v2/models/{service}"
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(asked, allow_redirects=False) as answer,
        ):
            if answer.status == 404:
                raise _Unknown(f"{revision}'s server has no model {service!r} (GET {asked} answered 404): name it so")
            if answer.status != 200:
                raise _Unknown(f"{revision}'s server does not describe its model: GET {asked} answered {answer.status}")
            return _INTERFACE.validate_json(await answer.read())
    except TimeoutError as error:
        raise _Unknown(f"{revision}'s server did not answer GET {asked} within {_TIMEOUT.total:g} s") from error
    except aiohttp.ClientConnectorError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise _Unknown(f"{revision}'s server is away: GET {asked}: {why}; start it, then retry") from error
    except aiohttp.ClientError as error:
        raise _Unknown(f"{revision}'s server did not answer GET {asked}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "its beginning"
        raise _Unknown(
            f"{revision}'s server describes its model in a way the Open Inference Protocol does not know: "
            f"GET {asked}: at {place}: {first['msg']}"
        ) from error


def _differences(kind: _Kind, candidate: str) -> Iterable[str]:
    theirs = {tensor.name: tensor for tensor in kind.candidate}
    for tensor in kind.stable:
        other = theirs.pop(tensor.name, None)
        if other is None:
            yield f"{kind.name} {tensor} is missing"
        elif not _fits(tensor, other):
            yield f"{kind.name} {tensor} is {str(other).removeprefix(f'{other.name}: ')} in {candidate}"
    for tensor in theirs.values():
        yield f"{kind.name} {tensor} is new"


def _fits(stable: TensorSpec, candidate: TensorSpec) -> bool:
    """May every tensor that fits stable's description stand where the candidate's is? Names aside."""
    return (
        stable.datatype == candidate.datatype
        and len(stable.shape) == len(candidate.shape)
        and all(theirs < 0 or ours == theirs for ours, theirs in zip(stable.shape, candidate.shape, strict=True))
    )


def _cure(kinds: Sequence[_Kind], candidate: Built) -> str:
    """What to add to the release file if nothing but names differ, and it is plain which is which; else nothing."""
    model = candidate.spec.model
    if not isinstance(model, OnnxModel):
        return ""
    lines: list[str] = []
    for kind, renamings in zip(kinds, (model.inputs, model.outputs), strict=True):
        pairs = _pairs(kind)
        if pairs is None:
            return ""
        if pairs:
            own = {renaming.served: renaming.own for renaming in renamings}
            # A tensor that has a served name by now changes it.
            names = {s: o for s, o in own.items() if s not in pairs.values()}
            names |= {served: own.get(now, now) for served, now in pairs.items()}
            entries = ", ".join(f"{_yaml(served)}: {_yaml(name)}" for served, name in sorted(names.items()))
            lines.append(f"{kind.field}: {{{entries}}}")
    return f". If these are the same under other names, write in candidate.model: {' and '.join(lines)}"


def _pairs(kind: _Kind) -> dict[str, str] | None:
    """Stable's unmatched names to the candidate's, if each fits exactly one other; None if more than names differ."""
    both = {tensor.name for tensor in kind.stable} & {tensor.name for tensor in kind.candidate}
    theirs = {tensor.name: tensor for tensor in kind.candidate}
    if not all(_fits(tensor, theirs[tensor.name]) for tensor in kind.stable if tensor.name in both):
        return None
    missing = [tensor for tensor in kind.stable if tensor.name not in both]
    new = [tensor for tensor in kind.candidate if tensor.name not in both]
    pairs: dict[str, str] = {}
    for tensor in missing:
        fitting = [other.name for other in new if _fits(tensor, other)]
        if len(fitting) != 1:
            return None
        pairs[tensor.name] = fitting[0]
    return pairs if len(set(pairs.values())) == len(new) == len(missing) else None


def _yaml(name: str) -> str:
    """The name as YAML reads it back: quoted unless it is plainly a word."""
    return name if re.fullmatch(r"[A-Za-z_][\w./-]*", name) else json.dumps(name)


def _listed(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, tensors)) or "none"


def _described(side: Built, interface: Interface) -> tuple[str, str]:
    name = side.spec.name
    return f"{name} inputs {_listed(interface.inputs)}", f"{name} outputs {_listed(interface.outputs)}"
