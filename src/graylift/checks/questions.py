"""What the running servers are asked: requests prepared once, of which it is known that stable answers them.

Made-up inputs have the right shapes, but only a server knows whether its model computes them (a kernel may need more
than one pixel); so shapes are tried until one is answered. Called by `served`, for the checks that it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np

from graylift.bench.load import PreparedRequest
from graylift.checks.servers import RunningServer
from graylift.domain.engine import Interface, Profile, TensorSpec
from graylift.errors import ProtocolError
from graylift.protocols.asking import body_from_inputs, outputs_from_body
from graylift.protocols.datatypes import DTYPES, Tensor
from graylift.protocols.open_inference import BINARY_HEADER

ANSWER_WITHIN_S = 20.0

Inputs = Mapping[str, Tensor]

_HEADER = BINARY_HEADER.decode()
_SIZES = (8, 1, 64, 320)
"""What dynamic dimensions beyond the first are tried with where no profile says it."""
_VARIANTS = 16


class NoQuestion(Exception):
    """No request is known that stable answers; the text says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request, as tensors and ready to be sent."""

    inputs: Inputs
    request: PreparedRequest


def question(server: RunningServer, inputs: Inputs) -> Question:
    body = body_from_inputs(inputs)
    headers = {"content-type": "application/octet-stream", _HEADER: str(body.json_length)}
    return Question(inputs, PreparedRequest(server.infer_path, headers, body.data))


async def answer_to(session: aiohttp.ClientSession, server: RunningServer, asked: Question) -> Mapping[str, Tensor]:
    """All outputs. ProtocolError with what came instead, aiohttp.ClientError or TimeoutError if nothing came."""
    request = asked.request
    async with session.post(server.url + request.path, data=request.body, headers=request.headers) as answer:
        body = await answer.read()
        if answer.status != 200:
            raise ProtocolError(f"HTTP {answer.status}: {body[:300].decode(errors='replace')}")
        length = answer.headers.get(_HEADER)
        return outputs_from_body(body, int(length) if length else None)


async def questions(stable: RunningServer, samples: Sequence[Inputs]) -> tuple[Question, ...]:
    """Requests that stable answers: of the samples, else made up. NoQuestion if there are none.

    The candidate is not asked: its first request is for the cold start check.
    """
    tried = [samples] if samples else list(_made_up(stable.interface, stable.profiles))
    why = ""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)) as session:
        for variants in tried:
            try:
                await answer_to(session, stable, question(stable, variants[0]))
            except (ProtocolError, aiohttp.ClientError, TimeoutError) as error:
                why = why or f"{stable.name} answers {error or type(error).__name__}"
            else:
                return tuple(question(stable, inputs) for inputs in variants)
    kind = "the first sample is" if samples else "made-up inputs are"
    raise NoQuestion(f"{kind} not answered: {why}; give real ones in checks.parity.samples")


def _made_up(interface: Interface, profiles: Sequence[Profile]) -> Iterator[Sequence[Inputs]]:
    """Sets of inputs of one shape each, in the order in which they are tried; one row each."""
    for profile in profiles:
        best = {shape.input: shape.opt for shape in profile.shapes}
        least = {shape.input: shape.min for shape in profile.shapes}
        one_row = {name: (least[name][:1] + shape[1:]) for name, shape in best.items()}
        for shapes in (one_row, best):
            yield [filled(interface, shapes, seed) for seed in range(_VARIANTS)]
    if not profiles:
        for size in _SIZES:
            shapes = {spec.name: sized(spec, 1, size) for spec in interface.inputs}
            yield [filled(interface, shapes, seed) for seed in range(_VARIANTS)]


def sized(spec: TensorSpec, batch: int, size: int) -> tuple[int, ...]:
    """The shape, its dynamic dimensions filled in: the first with `batch`, any other with `size`."""
    return tuple((batch if axis == 0 else size) if dim < 0 else dim for axis, dim in enumerate(spec.shape))


def filled(interface: Interface, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """One tensor for each input; an input without an entry in `shapes` has the interface's own, which is fixed.

    Integers are 0 and 1 alone: they may be ids or masks, and those exist in every vocabulary.
    """
    chance = np.random.default_rng(seed)
    inputs: dict[str, Tensor] = {}
    for spec in interface.inputs:
        shape = shapes.get(spec.name, sized(spec, 1, 1))
        dtype = DTYPES[spec.datatype]
        if spec.datatype == "BYTES":
            inputs[spec.name] = np.full(shape, f"text {seed}".encode(), dtype)
        elif dtype.kind == "f":
            inputs[spec.name] = chance.random(shape).astype(dtype)
        else:
            inputs[spec.name] = chance.integers(0, 2, shape).astype(dtype)
    return inputs
