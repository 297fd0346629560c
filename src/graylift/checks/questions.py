"""What the running servers are asked: requests prepared once, of which it is known that stable answers them.

Made-up inputs have the right shapes, but only a server knows whether its model computes them (a kernel may need more
than one pixel); so shapes are tried until one is answered. Called by `served`, for the checks that it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from graylift.bench.load import PreparedRequest
from graylift.checks.inputs import arrays_of
from graylift.checks.samples import VOCABULARIES, batch_of, draws_integers, given, made_up, points_of
from graylift.checks.servers import RunningServer
from graylift.errors import ProtocolError
from graylift.protocols.asking import body_from_inputs, outputs_from_body
from graylift.protocols.datatypes import Tensor
from graylift.protocols.open_inference import BINARY_HEADER

ANSWER_WITHIN_S = 20.0

Inputs = Mapping[str, Tensor]

_HEADER = BINARY_HEADER.decode()


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


async def questions(stable: RunningServer, samples: str | None) -> tuple[Question, ...]:
    """Requests that stable answers: the samples, one by one where it takes one, else a made-up one.

    samples: path of an .npz, as in `ParityCheck`
    NoQuestion if they cannot be read or are not answered. The candidate is not asked: its first request is for the
    cold start check.
    """
    tried = _made_up(stable) if samples is None else iter([_given(stable, samples)])
    why = ""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)) as session:
        for several in tried:
            try:
                await answer_to(session, stable, question(stable, several[0]))
            except (ProtocolError, aiohttp.ClientError, TimeoutError) as error:
                why = why or f"{stable.name} answers {error or type(error).__name__}"
            else:
                return tuple(question(stable, inputs) for inputs in several)
    if samples is not None:
        raise NoQuestion(f"the first sample of {samples} is not answered: {why}")
    raise NoQuestion(f"made-up inputs are not answered: {why}; name real ones under checks.parity: {{samples: FILE}}")


def _given(stable: RunningServer, samples: str) -> Sequence[Inputs]:
    try:
        batches = given(arrays_of(samples), stable.interface, (), stable.profiles, samples)
    except ValueError as error:
        raise NoQuestion(str(error)) from error
    if batch_of(batches[0]) != 1:
        return batches
    return [
        {name: tensor[row : row + 1] for name, tensor in batch.items()}
        for batch in batches
        for row in range(batch_of(batch))
    ]


def _made_up(stable: RunningServer) -> Iterator[Sequence[Inputs]]:
    """What to try: the shapes that profiles are fastest at first, else small ones first."""
    points = points_of(stable.interface, stable.profiles)
    for point in sorted(points, key=lambda point: not point.label.endswith("opt")):
        for vocabulary in VOCABULARIES if draws_integers(stable.interface) else (1,):
            yield [made_up(stable.interface, point, vocabulary)]
