"""The agent's rate limit service over gRPC, asked as Envoy asks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from gateway_parts import table

from graylift.domain.limits import Admission, LimitRule, Limits, Quota, Reservation, WhenAway
from graylift.envoy.limits import METHOD, METHOD_SERVICE, asked
from graylift.errors import GatewayError
from graylift.gateway import grpc_server
from graylift.gateway.budgets import MemoryBudgets
from graylift.gateway.grpc_server import GrpcServer
from graylift.gateway.limiter import Limiter
from graylift.protos.ratelimit_pb2 import RateLimitRequest, RateLimitResponse

PLACE = LimitRule(concurrent=1)


class SlowBudgets(MemoryBudgets):
    """Makes the first reservation and does not come to say so."""

    def __init__(self) -> None:
        super().__init__()
        self.settled = asyncio.Event()
        self._is_slow = True

    async def reserve(self, reservation: Reservation) -> Admission:
        admission = await super().reserve(reservation)
        if self._is_slow:
            self._is_slow = False
            await asyncio.Event().wait()
        return admission

    async def settle(self, reservation: Reservation, used_tokens: int | None) -> None:
        await super().settle(reservation, used_tokens)
        self.settled.set()


@asynccontextmanager
async def limiter(socket: Path, budgets: MemoryBudgets) -> AsyncIterator[None]:
    one = Limiter(budgets)
    server = GrpcServer(socket, lambda: [one])
    await server.start()
    try:
        yield
    finally:
        await server.close()


def question(rule: LimitRule) -> RateLimitRequest:
    """As Envoy makes it of the route's actions, for a request without a key."""
    service = replace(table(1, "h:1").services[0], limits=Limits((rule,), WhenAway.DENY))
    (config,) = asked(service).values()
    request = RateLimitRequest(domain="graylift")
    entries = request.descriptors.add().entries
    for action in config["rate_limits"][0]["actions"]:
        said = action["generic_key"]
        entries.add(key=said["descriptor_key"], value=said["descriptor_value"])
    return request


def ask(socket: Path, request: RateLimitRequest, timeout_s: float) -> RateLimitResponse:
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        call = channel.unary_unary(
            f"/{METHOD_SERVICE}/{METHOD}",
            request_serializer=RateLimitRequest.SerializeToString,
            response_deserializer=RateLimitResponse.FromString,
        )
        return call(request, timeout=timeout_s)


async def test_a_place_that_nobody_waited_for_is_free_again(tmp_path: Path) -> None:
    socket, budgets = tmp_path / "s", SlowBudgets()
    async with limiter(socket, budgets):
        with pytest.raises(grpc.RpcError, match="Deadline"):
            await asyncio.to_thread(ask, socket, question(PLACE), 0.1)
        async with asyncio.timeout(10):
            await budgets.settled.wait()
        assert (await asyncio.to_thread(ask, socket, question(PLACE), 5)).overall_code == RateLimitResponse.OK
        assert (await asyncio.to_thread(ask, socket, question(PLACE), 5)).overall_code == RateLimitResponse.OVER_LIMIT


async def test_what_envoy_was_never_told_to_ask_is_an_error_and_no_answer(tmp_path: Path) -> None:
    socket, request = tmp_path / "s", RateLimitRequest(domain="graylift")
    request.descriptors.add().entries.add(key="remote_address", value="10.0.0.1")
    async with limiter(socket, MemoryBudgets()):
        with pytest.raises(grpc.RpcError, match="no descriptors of ours"):
            await asyncio.to_thread(ask, socket, request, 5)


async def test_a_killed_agents_socket_is_taken_over(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    socket.touch()
    rule = LimitRule(requests=Quota(1, 60.0))
    async with limiter(socket, MemoryBudgets()):
        assert (await asyncio.to_thread(ask, socket, question(rule), 5)).overall_code == RateLimitResponse.OK
    assert not socket.exists()


async def test_without_grpc_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "find_spec", lambda _: None)
    with pytest.raises(GatewayError, match=r"pip install 'graylift\[grpc\]'"):
        await GrpcServer(tmp_path / "s", list).start()
