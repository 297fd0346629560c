from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from envoy_lab import Gateway, ModelServer
from openai_lab import LanguageModel

from graylift.domain.routing import RoutingTable


@pytest.fixture
async def stable() -> AsyncIterator[ModelServer]:
    server = ModelServer("m.v1.aaaaaaaaaaaa")
    await server.start()
    yield server
    server.release.set()
    await server.die()


@pytest.fixture
async def candidate() -> AsyncIterator[ModelServer]:
    server = ModelServer("m.v2.bbbbbbbbbbbb")
    await server.start()
    yield server
    server.release.set()
    await server.die()


@pytest.fixture
async def old() -> AsyncIterator[LanguageModel]:
    server = LanguageModel("chat.v1.aaaaaaaaaaaa")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def new() -> AsyncIterator[LanguageModel]:
    server = LanguageModel("chat.v2.bbbbbbbbbbbb")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[[RoutingTable], Awaitable[Gateway]]]:
    """Starts an Envoy that runs a table; ends it after the test."""
    gateways: list[Gateway] = []

    async def start_gateway(table: RoutingTable) -> Gateway:
        gateway = Gateway(tmp_path / f"gateway-{len(gateways)}", node=f"gateway-{len(gateways)}")
        gateways.append(gateway)
        await gateway.start(table)
        return gateway

    yield start_gateway
    for gateway in gateways:
        await gateway.stop()
