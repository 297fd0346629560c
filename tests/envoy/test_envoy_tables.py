"""How the real Envoy takes our files in: order, refusal, warming, versions."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
from envoy_lab import Gateway, Mode, ModelServer, Ready, routes, table, until, with_weight

from graylift.domain.routing import RoutingTable
from graylift.domain.spec import LabelRule
from graylift.domain.weights import Role
from graylift.envoy import readback
from graylift.envoy.files import across, render

pytestmark = pytest.mark.real
Start: TypeAlias = Callable[[RoutingTable], Awaitable[Gateway]]


async def dump(gateway: Gateway) -> Any:
    return await gateway.admin("/config_dump")


async def test_the_version_is_read_back_also_where_only_a_weight_changed(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    service = routes(stable, candidate, 100)
    gateway = await start(table(1, service))
    assert readback.applied_version(await dump(gateway)) == 1
    for version in (2, 3, 4):
        await gateway.apply(table(version, with_weight(service, version * 1_000)))
        assert readback.applied_version(await dump(gateway)) == version
    await gateway.apply(table(5, with_weight(service, 4_000)))  # nothing at all changed but the version
    assert readback.applied_version(await dump(gateway)) == 5


async def test_a_table_counts_as_applied_only_when_clusters_and_routes_are_its_own(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable)))
    new = render(table(2, routes(stable, candidate, 100)))

    async def clusters_are_both() -> bool:
        return readback.clusters_version(await dump(gateway)) == "1>2"

    gateway.write("cds.json", across(gateway.files, new))
    await until(clusters_are_both, "clusters of both")
    assert readback.applied_version(await dump(gateway)) is None
    assert readback.routes_version(await dump(gateway)) == 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text.replace("stable/m.v1", "stable/nowhere"), "unknown weighted cluster"),
        (lambda text: text.replace('"weight": 10000', '"weight": -1'), "weight"),
        (lambda text: text.replace('"weight"', '"wait"'), "wait"),
        (lambda text: text[: len(text) // 2], "JSON"),
    ],
    ids=["unknown cluster", "negative weight", "unknown field", "cut file"],
)
async def test_envoy_refuses_wrong_routes_says_why_and_goes_on_with_the_old(
    start: Start, stable: ModelServer, damage: Callable[[str], str], reason: str
) -> None:
    gateway = await start(table(1, routes(stable)))
    before = len(gateway.said)
    assert readback.refusal(gateway.said) is None
    good = render(table(2, routes(stable))).rds
    gateway.write("rds.json", damage(good))
    await until(lambda: readback.refusal(gateway.said[before:]), "the refusal")
    assert reason in (readback.refusal(gateway.said[before:]) or "")
    assert readback.applied_version(await dump(gateway)) == 1
    assert (await gateway.ask()).status == 200


async def test_envoy_refuses_wrong_clusters_and_goes_on_with_the_old(start: Start, stable: ModelServer) -> None:
    gateway = await start(table(1, routes(stable)))
    files = render(table(2, routes(stable, timeout_s=3.0)))
    gateway.write("cds.json", files.cds.replace('"connect_timeout": "1s"', '"connect_timeout": "-1s"'))
    await until(lambda: readback.refusal(gateway.said), "the refusal")
    assert "duration" in (readback.refusal(gateway.said) or "")
    assert readback.clusters_version(await dump(gateway)) == "1"
    assert (await gateway.ask()).status == 200


async def test_a_candidate_is_warming_until_its_first_health_check_and_gets_nothing_before(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable)))
    candidate.ready = Ready.SILENT
    new = render(table(2, routes(stable, candidate, 5_000)))
    gateway.write("cds.json", across(gateway.files, new))

    async def warms() -> bool:
        return readback.warming(await dump(gateway)) == (candidate.revision_id,)

    await until(warms, "the candidate's cluster warms")
    assert readback.clusters_version(await dump(gateway)) is None
    gateway.write("rds.json", new.rds)  # too early: even so nobody gets an error
    answers = [await gateway.ask() for _ in range(50)]
    assert Counter((answer.status, answer.revision) for answer in answers) == {(200, stable.revision_id): 50}


async def test_stages_forth_and_back_fail_no_request_and_replace_no_server(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable)))
    statuses: Counter[int] = Counter()
    done = asyncio.Event()

    async def client() -> None:
        while not done.is_set():
            statuses[(await gateway.ask()).status] += 1

    clients = [asyncio.create_task(client()) for _ in range(8)]
    release = routes(stable, candidate, 0, match=[LabelRule("x-tenant", "internal", Role.CANDIDATE)])
    steps = [with_weight(release, weight) for weight in (0, 100, 5_000, 0)]
    steps += [routes(stable, draining=[candidate]), routes(stable)]
    steps += [with_weight(release, weight) for weight in (0, 2_000, 10_000)]
    steps += [routes(candidate, draining=[stable]), routes(candidate)]
    for version, step in enumerate(steps, start=2):
        await gateway.apply(table(version, step))
    done.set()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert (await gateway.ask()).revision == candidate.revision_id
    # Two servers were added, one twice; had a role changed a definition, there would be more.
    changed = await gateway.admin("/stats?format=json&filter=cluster_manager.cluster_modified")
    marker_only = len(steps) * 2
    assert changed["stats"][0]["value"] == marker_only


async def test_a_draining_server_keeps_its_open_requests_and_gets_no_new_one(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable)))
    stable.mode = Mode.HANG
    asked = asyncio.create_task(gateway.ask())
    await until(lambda: stable.asked, "the request is open")
    await gateway.apply(table(2, routes(candidate, draining=[stable])))
    assert {(await gateway.ask()).revision for _ in range(10)} == {candidate.revision_id}
    assert dict(await gateway.open_requests())[stable.revision_id] == 1
    assert await gateway.healthy() == (stable.revision_id, candidate.revision_id)
    stable.release.set()
    assert (await asked).status == 200


async def test_a_new_envoy_serves_the_table_from_its_files_at_once(start: Start, stable: ModelServer) -> None:
    gateway = await start(table(7, routes(stable)))
    await gateway.stop()
    await gateway.start()
    assert (await gateway.ask()).revision == stable.revision_id
    assert readback.applied_version(await dump(gateway)) == 7


async def test_a_server_named_by_host_name_is_resolved(start: Start, stable: ModelServer) -> None:
    service = routes(stable)
    named = replace(service.stable, address=f"localhost:{stable.port}")
    gateway = await start(table(1, replace(service, stable=named)))
    assert (await gateway.ask()).revision == stable.revision_id


async def test_a_server_that_moved_is_found_at_its_new_address(start: Start, stable: ModelServer) -> None:
    gateway = await start(table(1, routes(stable)))
    assert (await gateway.ask()).status == 200
    await stable.die()
    old, stable.port = stable.port, 0
    await stable.start()
    assert stable.port != old
    await gateway.apply(table(2, routes(stable)))
    assert (await gateway.ask()).status == 200
    assert json.loads(render(table(2, routes(stable))).cds)["version_info"] == "2"
