"""Sticky users on the real Envoy: everybody's arm can be foretold, so shares and moves are proven, not sampled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

import pytest
from envoy_lab import Gateway, ModelServer, routes, table
from xxhash import xxh64_intdigest

from graylift.domain.routing import RoutingTable
from graylift.domain.weights import TOTAL

pytestmark = pytest.mark.real
Start: TypeAlias = Callable[[RoutingTable], Awaitable[Gateway]]

CONNECTIONS = 8
PIPELINED = 50


def foretold(users: Iterable[str], weight: int, salt: str) -> set[str]:
    """Who gets the candidate."""
    return {user for user in users if xxh64_intdigest(f"{salt}:{user}".encode()) % TOTAL < weight}


async def candidates_users(gateway: Gateway, users: list[str], candidate: ModelServer) -> set[str]:
    """Asks once for each user and tells who got the candidate. Requests are pipelined, for speed."""
    marker = candidate.revision_id.encode()
    found: set[str] = set()

    async def client(mine: list[str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        for start in range(0, len(mine), PIPELINED):
            batch = mine[start : start + PIPELINED]
            head = "GET /v2/models/m HTTP/1.1\r\nhost: x\r\nx-user-id: {}\r\n\r\n"
            writer.write("".join(head.format(user) for user in batch).encode())
            for user in batch:
                answer = await reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(2) == b"{}"
                if marker in answer:
                    found.add(user)
        writer.close()

    await asyncio.gather(*(client(users[n::CONNECTIONS]) for n in range(CONNECTIONS)))
    return found


async def test_everybody_is_where_the_hash_says_at_every_stage_on_every_gateway_and_after_a_restart(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    users = [f"user-{n}" for n in range(3_000)]
    one, two = [
        await start(table(1, routes(stable, candidate, 0, sticky_header="x-user-id", salt="m-7"))) for _ in range(2)
    ]
    before: set[str] = set()
    for version, weight in enumerate((1, 100, 500, 2_000, 5_000, 10_000), start=2):
        step = table(version, routes(stable, candidate, weight, sticky_header="x-user-id", salt="m-7"))
        await one.apply(step)
        await two.apply(step)
        now = await candidates_users(one, users, candidate)
        assert now == foretold(users, weight, "m-7")
        assert before <= now, "somebody moved back"
        assert await candidates_users(two, users[:500], candidate) == foretold(users[:500], weight, "m-7")
        before = now
    step = table(8, routes(stable, candidate, 500, sticky_header="x-user-id", salt="m-7"))
    await one.apply(step)
    await one.stop()
    await one.start()
    assert await candidates_users(one, users, candidate) == foretold(users, 500, "m-7")


async def test_a_hundred_thousand_users_split_as_the_weight_says(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    users = [f"user-{n}" for n in range(100_000)]
    gateway = await start(table(1, routes(stable, candidate, 2_000, sticky_header="x-user-id", salt="m-7")))
    found = await candidates_users(gateway, users, candidate)
    assert found == foretold(users, 2_000, "m-7")
    # So the formula may speak for the other stages.
    for weight in (100, 500, 2_000, 5_000):
        share = len(foretold(users, weight, "m-7")) / len(users)
        assert abs(share - weight / TOTAL) < 0.003


async def test_each_release_hashes_users_afresh(start: Start, stable: ModelServer, candidate: ModelServer) -> None:
    users = [f"user-{n}" for n in range(1_000)]
    gateway = await start(table(1, routes(stable, candidate, 1_000, sticky_header="x-user-id", salt="m-7")))
    first = await candidates_users(gateway, users, candidate)
    await gateway.apply(table(2, routes(stable, candidate, 1_000, sticky_header="x-user-id", salt="m-8")))
    second = await candidates_users(gateway, users, candidate)
    assert second == foretold(users, 1_000, "m-8")
    assert len(first & second) < len(first) / 2


async def test_a_request_without_the_header_is_drawn_anew_each_time(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 5_000, sticky_header="x-user-id")))
    revisions = {(await gateway.ask()).revision for _ in range(60)}  # all alike by chance: once in 5e17 runs
    assert revisions == {stable.revision_id, candidate.revision_id}
