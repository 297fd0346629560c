"""Where requests go and who answers them, on the real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from envoy_lab import Gateway, Mode, ModelServer, routes, table

from graylift.domain.evidence import Outcome
from graylift.domain.routing import RoutingTable
from graylift.domain.spec import LabelRule
from graylift.domain.weights import Role
from graylift.envoy.bootstrap import MAX_BODY_BYTES

pytestmark = pytest.mark.real
Start: TypeAlias = Callable[[RoutingTable], Awaitable[Gateway]]

TO_CANDIDATE = LabelRule("x-tenant", "internal", Role.CANDIDATE)
TO_STABLE = LabelRule("x-tenant", "careful", Role.STABLE)


async def test_a_weight_of_zero_sends_no_request_not_even_a_labelled_one(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 0, match=[TO_CANDIDATE])))
    await gateway.until_healthy(stable, candidate)
    answers = [await gateway.ask() for _ in range(200)] + [await gateway.ask(x_tenant="internal") for _ in range(20)]
    assert Counter(answer.revision for answer in answers) == {stable.revision_id: 220}
    assert candidate.asked == 0


async def test_the_full_weight_sends_stable_no_request(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    answers = [await gateway.ask() for _ in range(100)]
    assert Counter(answer.revision for answer in answers) == {candidate.revision_id: 100}
    assert stable.asked == 0


async def test_label_rules_win_over_weights_and_are_told_in_the_record(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 1, match=[TO_STABLE, TO_CANDIDATE])))
    for _ in range(5):
        assert (await gateway.ask(x_tenant="internal")).revision == candidate.revision_id
    await gateway.apply(table(2, routes(stable, candidate, 9_999, match=[TO_STABLE, TO_CANDIDATE])))
    for _ in range(5):
        assert (await gateway.ask(x_tenant="careful")).revision == stable.revision_id
    assert (await gateway.ask(x_tenant="INTERNAL")).revision in {stable.revision_id, candidate.revision_id}
    records = await gateway.read_log(11)
    assert [(record.arm, record.label) for record in records[:10]] == [
        *[(Role.CANDIDATE, "x-tenant=internal")] * 5,
        *[(Role.STABLE, "x-tenant=careful")] * 5,
    ]
    assert records[10].label is None


async def test_a_record_tells_all_of_a_good_request(start: Start, stable: ModelServer) -> None:
    gateway = await start(table(1, routes(stable)))
    await gateway.ask(body=b"x" * 100)
    (record,) = await gateway.read_log(1)
    assert (record.service, record.split, record.arm) == ("m", "m-1/0", Role.STABLE)
    assert (record.revision_id, record.answered_by) == (stable.revision_id, stable.revision_id)
    assert (record.outcome, record.reason, record.status, record.attempts) == (Outcome.OK, None, 200, 1)
    assert (record.request_bytes, record.response_bytes, record.label) == (100, 2, None)
    assert record.ttfb_s is not None
    assert 0 < record.ttfb_s <= record.duration_s
    assert gateway.attempts == []


async def test_only_the_gateway_says_who_answered_and_no_software_is_named(start: Start, stable: ModelServer) -> None:
    gateway = await start(table(1, routes(stable)))
    answer = await gateway.ask(x_graylift_revision="forged", x_request_id="mine")
    assert answer.revision == stable.revision_id
    assert "server" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("x-envoy")]
    assert answer.headers["x-request-id"] == "mine"
    assert b"forged" not in stable.heads[0]


async def test_a_client_cannot_set_its_own_timeouts(start: Start, stable: ModelServer) -> None:
    gateway = await start(table(1, routes(stable)))
    stable.mode = Mode.HANG
    asked = asyncio.create_task(
        gateway.ask(x_envoy_upstream_rq_timeout_ms="1", x_envoy_upstream_stream_duration_ms="1", x_envoy_retry_on="5xx")
    )
    while not stable.asked:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    stable.release.set()
    assert (await asked).status == 200
    assert b"x-envoy-upstream" not in stable.heads[0]


async def test_services_share_a_gateway_and_unknown_ones_are_told_what_there_is(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, service="m"), routes(candidate, service="m-2")))
    assert (await gateway.ask("/v2/models/m/infer")).revision == stable.revision_id
    assert (await gateway.ask("/v2/models/m-2/infer")).revision == candidate.revision_id
    assert (await gateway.ask("/v2/models/m-2/versions/1/infer")).revision == candidate.revision_id
    unknown = await gateway.ask("/v2/models/m-3/infer")
    assert unknown.status == 404
    assert unknown.headers["content-type"] == "application/json"
    error = json.loads(unknown.body)["error"]
    assert error == "no service at this path; services here: m, m-2; a path is /v2/models/SERVICE/infer"
    records = await gateway.read_log(3)
    assert [record.service for record in records] == ["m", "m-2", "m-2"]


async def test_the_gateway_is_ready_once_it_has_a_service(start: Start, stable: ModelServer) -> None:
    gateway = await start(table(1))
    assert (await gateway.request("GET", "/v2/health/live", None, {})).status == 200
    not_ready = await gateway.request("GET", "/v2/health/ready", None, {})
    assert not_ready.status == 503
    assert "no service" in json.loads(not_ready.body)["error"]
    await gateway.apply(table(2, routes(stable)))
    assert (await gateway.request("GET", "/v2/health/ready", None, {})).status == 200
    about = await gateway.request("GET", "/v2", None, {})
    assert json.loads(about.body) == {"name": "graylift", "version": "routing table 2", "extensions": []}
    assert about.headers["content-type"] == "application/json"


async def test_a_large_body_reaches_the_second_server_when_the_first_fails(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    candidate.mode = Mode.FAIL
    body = b"x" * (20 * 1024 * 1024)
    answer = await gateway.ask(body=body)
    assert (answer.status, answer.revision) == (200, stable.revision_id)
    assert (candidate.body_bytes, stable.body_bytes) == (len(body), len(body))


async def test_a_body_beyond_the_limit_is_refused_and_no_arms_failure(start: Start, stable: ModelServer) -> None:
    gateway = await start(table(1, routes(stable)))
    answer = await gateway.ask(body=b"x" * (MAX_BODY_BYTES + 1))
    assert answer.status == 413
    assert stable.asked == 0
    (record,) = await gateway.read_log(1)
    assert record.outcome is Outcome.ABANDONED


async def test_promotion_and_rollback_leave_open_requests_counted_and_unharmed(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 5_000)))
    stable.mode = candidate.mode = Mode.HANG
    asked = [asyncio.create_task(gateway.ask()) for _ in range(20)]
    while stable.asked + candidate.asked < 20:
        await asyncio.sleep(0.01)
    open_then = ((stable.revision_id, stable.asked), (candidate.revision_id, candidate.asked))
    await gateway.apply(table(2, routes(stable, candidate, 10_000)))
    await gateway.apply(table(3, routes(candidate, draining=[stable])))
    assert await gateway.open_requests() == open_then
    await gateway.apply(table(4, routes(stable, draining=[candidate])))
    assert await gateway.open_requests() == open_then
    stable.release.set()
    candidate.release.set()
    assert {(await answer).status for answer in asked} == {200}
    assert [count for _, count in await gateway.open_requests()] == [0, 0]


async def test_http_2_without_tls_is_spoken_on_the_same_port(start: Start, stable: ModelServer) -> None:
    gateway = await start(table(1, routes(stable)))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    frame = await reader.readexactly(9)
    assert frame[3] == 4, "the answer is a SETTINGS frame"
    writer.close()
