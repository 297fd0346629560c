"""Answers Envoy's questions whether a request is within its limits, over its rate limit protocol.

It brings together what `envoy/limits.py` reads, what the budgets say and what `limits/answers.py` makes of it. A
question that it cannot answer (the shared store is away) fails, and Envoy does what the release file chose for that.
`agent.py` owns it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from graylift.domain.limits import Admission, Reservation
from graylift.envoy import limits as envoy
from graylift.errors import GatewayError
from graylift.gateway.grpc_server import Handler
from graylift.limits import answers

if TYPE_CHECKING:
    from graylift.protos.ratelimit_pb2 import RateLimitRequest, RateLimitResponse


class Budgets(Protocol):
    """Where budgets are kept. Both methods raise GatewayError if they are out of reach."""

    async def reserve(self, reservation: Reservation) -> Admission:
        """Make all of its charges if they all fit, else none; in one step, whoever else asks."""
        ...

    async def settle(self, reservation: Reservation, used_tokens: int | None) -> None:
        """The request has ended: give its place back, and of its tokens what it did not use. None: not known, all
        that was reserved stays charged."""
        ...

    async def close(self) -> None: ...


class Limiter:
    """Counts requests and tokens in `budgets`."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._undoing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        await asyncio.gather(*self._undoing, return_exceptions=True)
        await self._budgets.close()

    def handler(self) -> Handler:
        """The service, for `GrpcServer`."""
        import grpc

        from graylift.protos import ratelimit_pb2 as messages

        method = grpc.unary_unary_rpc_method_handler(
            self._answer,
            request_deserializer=messages.RateLimitRequest.FromString,
            response_serializer=messages.RateLimitResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(envoy.METHOD_SERVICE, {envoy.METHOD: method})

    async def _answer(self, request: RateLimitRequest, call: Any) -> RateLimitResponse:
        import grpc

        try:
            said = envoy.parse([{entry.key: entry.value for entry in one.entries} for one in request.descriptors])
            match said:
                case envoy.Question():
                    return await self._admit(said)
                case envoy.Ending():
                    await self._budgets.settle(said.reservation, said.used_tokens)
                    return _response(is_granted=True)
        except ValueError as exc:
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
        except GatewayError as exc:
            await call.abort(grpc.StatusCode.UNAVAILABLE, str(exc))
        raise AssertionError("abort raises")

    async def _admit(self, question: envoy.Question) -> RateLimitResponse:
        reservation = Reservation(uuid4().hex, question.charges)
        admission = await self._reserve(reservation)
        response = _response(is_granted=admission.is_granted)
        for name, value in answers.headers(admission):
            response.response_headers_to_add.add(key=name, value=value)
        if not admission.is_granted:
            response.raw_body = answers.refusal(admission, question.protocol)
        elif (text := envoy.text_from_reservation(reservation)) is not None:
            response.dynamic_metadata[envoy.RESERVATION] = text
        return response

    async def _reserve(self, reservation: Reservation) -> Admission:
        try:
            return await self._budgets.reserve(reservation)
        except asyncio.CancelledError:
            # The client left or Envoy lost patience, and nobody will tell of an end. Whether anything was charged is
            # not known: a place can be given back all the same; tokens could not be, without making some up.
            undoing = asyncio.create_task(self._budgets.settle(reservation, None))
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            raise


def _response(*, is_granted: bool) -> RateLimitResponse:
    from graylift.protos.ratelimit_pb2 import RateLimitResponse

    return RateLimitResponse(overall_code=RateLimitResponse.OK if is_granted else RateLimitResponse.OVER_LIMIT)
