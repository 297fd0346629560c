"""Servers that fail, hang, reset, cut and die behind the real Envoy: what the client gets, what the arm is charged."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TypeAlias

import pytest
from envoy_lab import Gateway, Mode, ModelServer, Ready, routes, table, until

from graylift.domain.evidence import Outcome
from graylift.domain.routing import RoutingTable
from graylift.domain.weights import Role

pytestmark = pytest.mark.real
Start: TypeAlias = Callable[[RoutingTable], Awaitable[Gateway]]


@pytest.mark.parametrize(
    ("mode", "status", "reason"),
    [(Mode.FAIL, 500, "HTTP 500"), (Mode.RESET, 0, "connection reset")],
)
async def test_a_candidates_failure_behind_a_retry_counts_against_it_while_the_client_is_served(
    start: Start, stable: ModelServer, candidate: ModelServer, mode: Mode, status: int, reason: str
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    candidate.mode = mode
    answer = await gateway.ask()
    assert (answer.status, answer.revision) == (200, stable.revision_id)
    (record,) = await gateway.read_log(1)
    assert (record.arm, record.revision_id) == (Role.CANDIDATE, candidate.revision_id)
    assert (record.outcome, record.attempts, record.status) == (Outcome.FAILED, 2, 200)
    assert record.answered_by == stable.revision_id
    (attempt,) = gateway.attempts
    assert (attempt.revision_id, attempt.status, attempt.reason) == (candidate.revision_id, status, reason)


async def test_a_stable_request_is_never_retried_on_the_candidate_nor_asked_twice(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 1, sticky_header="x-user-id", salt="m-1")))
    users = [f"user-{n}" for n in range(20)]
    stable.mode = Mode.FAIL
    assert {(await gateway.ask(x_user_id=user)).status for user in users} == {500}
    stable.mode = Mode.RESET
    assert {(await gateway.ask(x_user_id=user)).status for user in users} == {503}
    assert (stable.asked, candidate.asked) == (40, 0)
    records = await gateway.read_log(40)
    assert Counter((record.outcome, record.reason, record.attempts) for record in records) == {
        (Outcome.FAILED, "HTTP 500", 1): 20,
        (Outcome.FAILED, "connection reset", 1): 20,
    }


async def test_what_a_model_refuses_is_its_failure_and_not_retried(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    candidate.mode = Mode.REFUSE_INPUT
    assert (await gateway.ask()).status == 400
    (record,) = await gateway.read_log(1)
    assert (record.outcome, record.reason, record.attempts) == (Outcome.FAILED, "HTTP 400", 1)
    assert record.answered_by == candidate.revision_id
    assert stable.asked == 0


async def test_what_a_candidate_cannot_compute_is_its_failure_and_stable_is_asked(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    candidate.mode = Mode.CANNOT_COMPUTE
    answer = await gateway.ask()
    assert (answer.status, answer.revision) == (200, stable.revision_id)
    (record,) = await gateway.read_log(1)
    assert (record.arm, record.outcome, record.attempts) == (Role.CANDIDATE, Outcome.FAILED, 2)
    assert [(attempt.revision_id, attempt.reason) for attempt in gateway.attempts] == [
        (candidate.revision_id, "HTTP 422")
    ]
    stable.mode = Mode.CANNOT_COMPUTE
    await gateway.apply(table(2, routes(stable, candidate, 0)))
    assert (await gateway.ask()).status == 422
    assert (stable.asked, candidate.asked) == (2, 1)


async def test_an_answer_that_breaks_off_is_a_failure_that_nobody_answered(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    candidate.mode = Mode.CUT
    with pytest.raises(Exception, match="payload"):
        await gateway.ask()
    (record,) = await gateway.read_log(1)
    assert (record.outcome, record.reason, record.status) == (Outcome.FAILED, "connection reset", 200)
    assert record.answered_by is None


async def test_a_hung_candidate_costs_half_of_the_time_and_stable_answers(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000, timeout_s=0.6)))
    candidate.mode = Mode.HANG
    answer = await gateway.ask()
    assert (answer.status, answer.revision) == (200, stable.revision_id)
    (record,) = await gateway.read_log(1)
    assert (record.outcome, record.reason, record.attempts) == (Outcome.FAILED, "timeout", 2)
    assert 0.28 < record.duration_s < 0.6


async def test_a_dead_candidate_is_ejected_after_five_refused_connections(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    await candidate.die()
    assert {(await gateway.ask()).status for _ in range(30)} == {200}
    records = await gateway.read_log(30)
    assert {record.outcome for record in records} == {Outcome.FAILED}
    refused = [record for record in records if record.attempts == 2]
    passed_over = [record for record in records if record.attempts == 1]
    assert 5 <= len(refused) < 30
    assert {record.reason for record in passed_over} == {"no healthy server"}
    assert [attempt.reason for attempt in gateway.attempts] == ["connection refused"] * len(refused)


@pytest.mark.parametrize("mode", [Mode.FAIL, Mode.RESET])
async def test_a_candidate_that_answers_badly_is_not_ejected_so_that_only_its_own_failures_count(
    start: Start, stable: ModelServer, candidate: ModelServer, mode: Mode
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    candidate.mode = mode
    assert {(await gateway.ask()).status for _ in range(30)} == {200}
    assert candidate.asked == 30
    assert await gateway.healthy() == (stable.revision_id, candidate.revision_id)


async def test_a_hung_stable_is_given_the_whole_time(start: Start, stable: ModelServer) -> None:
    gateway = await start(table(1, routes(stable, timeout_s=0.5)))
    stable.mode = Mode.HANG
    assert (await gateway.ask()).status == 504
    (record,) = await gateway.read_log(1)
    assert (record.outcome, record.reason, record.attempts) == (Outcome.FAILED, "timeout", 1)
    assert record.duration_s >= 0.49
    assert stable.asked == 1


@pytest.mark.parametrize("ready", [Ready.NO, Ready.SILENT])
async def test_a_candidate_that_is_not_ready_is_passed_over(
    start: Start, stable: ModelServer, candidate: ModelServer, ready: Ready
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    await gateway.until_healthy(stable, candidate)
    candidate.ready = ready
    await gateway.until_healthy(stable)
    answer = await gateway.ask()
    assert (answer.status, answer.revision) == (200, stable.revision_id)
    assert candidate.asked == 0
    (record,) = await gateway.read_log(1)
    assert (record.outcome, record.reason) == (Outcome.FAILED, "no healthy server")
    candidate.ready = Ready.YES
    await gateway.until_healthy(stable, candidate)
    assert (await gateway.ask()).revision == candidate.revision_id


async def test_a_stable_that_is_not_ready_still_gets_its_requests(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 5_000)))
    stable.ready = candidate.ready = Ready.NO
    await gateway.until_healthy()
    answers = [await gateway.ask() for _ in range(40)]
    assert {(answer.status, answer.revision) for answer in answers} == {(200, stable.revision_id)}
    records = await gateway.read_log(40)
    assert {(record.arm, record.outcome) for record in records} == {
        (Role.STABLE, Outcome.OK),
        (Role.CANDIDATE, Outcome.FAILED),
    }


async def test_a_candidate_killed_at_half_of_the_traffic_loses_no_unary_request(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 5_000)))
    statuses: Counter[int] = Counter()
    total = 1_500

    async def client() -> None:
        while statuses.total() < total:
            statuses[(await gateway.ask()).status] += 1

    # More at a time than the three retries that Envoy allows by default.
    clients = [asyncio.create_task(client()) for _ in range(32)]
    await until(lambda: statuses.total() > total / 4, "a quarter of the load")
    await candidate.die()
    await until(lambda: statuses.total() > total * 3 / 4, "three quarters of the load")
    await candidate.start()
    await asyncio.gather(*clients)
    assert set(statuses) == {200}
    await gateway.until_healthy(stable, candidate)
    records = await gateway.read_log(statuses.total())
    failed = [record for record in records if record.outcome is Outcome.FAILED]
    assert {record.arm for record in failed} == {Role.CANDIDATE}
    assert {record.status for record in failed} == {200}
    assert {record.reason for record in failed} <= {None, "no healthy server"}
    assert {attempt.reason for attempt in gateway.attempts} <= {"connection refused", "connection reset"}


async def test_a_server_that_accepts_no_connection_is_a_timeout(start: Start, stable: ModelServer) -> None:
    await stable.die()
    with socket.create_server(("127.0.0.1", stable.port), backlog=0) as full, ExitStack() as queue:
        for _ in range(2):  # as many as the system queues; the next one waits for an answer that does not come
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        gateway = await start(table(1, routes(stable)))
        assert (await gateway.ask()).status == 503
        (record,) = await gateway.read_log(1)
        assert record.outcome is Outcome.FAILED
        assert {attempt.reason for attempt in gateway.attempts} == {"timeout"}


async def test_many_failures_at_once_are_all_retried(start: Start, stable: ModelServer, candidate: ModelServer) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    candidate.mode = Mode.FAIL
    answers = await asyncio.gather(*(gateway.ask() for _ in range(100)))
    assert Counter((answer.status, answer.revision) for answer in answers) == {(200, stable.revision_id): 100}


async def test_both_dead_is_a_failure_of_each_arm(start: Start, stable: ModelServer, candidate: ModelServer) -> None:
    gateway = await start(table(1, routes(stable, candidate, 5_000)))
    await stable.die()
    await candidate.die()
    answers = [await gateway.ask() for _ in range(20)]
    assert {answer.status for answer in answers} == {503}
    records = await gateway.read_log(20)
    assert {record.outcome for record in records} == {Outcome.FAILED}
    assert {record.answered_by for record in records} == {None}


async def test_a_client_that_leaves_is_nobodys_failure(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    candidate.mode = Mode.HANG
    asked = asyncio.create_task(gateway.ask())
    await until(lambda: candidate.asked, "the candidate is asked")
    asked.cancel()
    (record,) = await gateway.read_log(1)
    assert (record.outcome, record.reason, record.status, record.answered_by) == (Outcome.ABANDONED, None, 0, None)
    assert gateway.attempts == []
    assert stable.asked == 0


async def test_a_client_that_leaves_after_the_candidate_failed_does_not_hide_the_failure(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    candidate.mode = Mode.FAIL
    stable.mode = Mode.HANG
    asked = asyncio.create_task(gateway.ask())
    await until(lambda: stable.asked, "the retry")
    asked.cancel()
    (record,) = await gateway.read_log(1)
    assert (record.outcome, record.attempts, record.answered_by) == (Outcome.FAILED, 2, None)
    assert [attempt.reason for attempt in gateway.attempts] == ["HTTP 500"]


async def test_a_slow_upload_takes_nothing_from_the_time_of_the_arm(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000, timeout_s=0.4)))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nha")
    await asyncio.sleep(0.5)
    assert candidate.asked == 0
    writer.write(b"lf")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    (record,) = await gateway.read_log(1)
    assert (record.outcome, record.answered_by) == (Outcome.OK, candidate.revision_id)


async def test_a_broken_or_unfinished_request_never_reaches_an_arm(
    start: Start, stable: ModelServer, candidate: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable, candidate, 10_000)))
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\n"
    for text in (head + b"transfer-encoding: chunked\r\n\r\nzz\r\n", head + b"content-length: 100\r\n\r\nonly this"):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(text)
        await writer.drain()
        writer.write_eof()
        await reader.read()
        writer.close()
    records = await gateway.read_log(2)
    assert {record.outcome for record in records} == {Outcome.ABANDONED}
    assert candidate.asked == stable.asked == 0


async def test_bytes_that_are_no_http_and_health_checks_of_the_gateway_are_no_evidence(
    start: Start, stable: ModelServer
) -> None:
    gateway = await start(table(1, routes(stable)))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"\x16\x03\x01\x02\x00\r\n\r\n")
    await reader.read()
    writer.close()
    await gateway.request("GET", "/v2/health/ready", None, {})
    await gateway.ask()
    (record,) = await gateway.read_log(1)
    assert record.outcome is Outcome.OK


async def test_the_log_holds_nothing_that_a_client_sent(start: Start, stable: ModelServer) -> None:
    gateway = await start(table(1, routes(stable, sticky_header="x-user-id")))
    await gateway.ask("/v2/models/m/infer?token=secret", b"secret", authorization="secret", x_user_id="secret")
    await gateway.read_log(1)
    assert b"secret" not in gateway.log.read_bytes()
