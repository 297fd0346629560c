"""An agent with a real Envoy: every request is counted once, and what may be missing is said to be missing."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from gateway_parts import (
    Client,
    config_in,
    counted,
    end_envoy,
    load,
    reports_until,
    running,
    table,
    upstream,
)

from graylift.domain.weights import Role
from graylift.gateway.agent import GatewayAgent

pytestmark = pytest.mark.real


async def test_each_request_is_counted_for_the_arm_and_the_split_it_was_assigned_to(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, upstream(status=500) as candidate, running(config) as agent:
        await agent.apply(table(1, stable.address, candidate.address, 5_000))
        async with load(config.listen_port, clients=2) as clients:
            await asyncio.sleep(0.5)
            await agent.apply(table(2, stable.address, candidate.address, 0))
        sent = sum(len(client.statuses) for client in clients)
        reports = await reports_until(agent, sent)
    windows = [window for report in reports for window in report.windows]
    assert {status for client in clients for status in client.statuses} == {200}
    assert sum(window.requests for window in windows) == sent
    by_arm: Counter[Role] = Counter()
    for window in windows:
        by_arm[window.arm] += window.requests
        if window.arm is Role.CANDIDATE:
            assert (window.split, window.revision_id) == ("a-1/1", "a.v2.0")
            assert window.failed == window.requests
            assert window.unanswered == 0  # the retry saved every client
            assert window.reasons == (("HTTP 500", window.failed),)
        else:
            assert window.failed == 0
            assert window.latency.count == window.requests
    assert by_arm[Role.CANDIDATE] == candidate.answered
    assert {report.table_version for report in reports} >= {1, None, 2}
    assert all(report.gap is None and report.unreadable == 0 for report in reports)


async def test_a_quiet_gateway_reports_each_interval_once(tmp_path: Path) -> None:
    async with upstream() as stable, running(config_in(tmp_path, interval_s=0.1)) as agent:
        await agent.apply(table(1, stable.address))
        first = await reports_until(agent, holds=lambda report: report.table_version == 1)
        again = await agent.read([("g1", first[0].sequence)])
    assert [report.sequence for report in first] == list(range(first[0].sequence, first[0].sequence + len(first)))
    assert all(b.start_s == pytest.approx(a.start_s + a.length_s) for a, b in itertools.pairwise(first))
    assert again[-1].sequence >= first[-1].sequence
    assert first[-1].table_version == 1


async def test_no_request_is_lost_or_doubled_when_the_log_is_rotated_under_load(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25, max_log_bytes=20_000)
    async with upstream() as stable, running(config) as agent:
        await agent.apply(table(1, stable.address))
        files: set[int] = set()
        async with load(config.listen_port) as clients:
            for _ in range(60):
                await asyncio.sleep(0.025)
                if config.access_log.exists():
                    files.add(config.access_log.stat().st_ino)
        sent = sum(len(client.statuses) for client in clients)
        reports = await reports_until(agent, sent)
        assert counted(reports) == sent
        assert not any(report.gap or report.unreadable for report in reports)
        assert len(files) > 1
        assert not config.access_log.with_name("access.log.1").exists()


async def test_a_log_that_somebody_deletes_loses_nothing_while_the_agent_runs(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, running(config) as agent:
        await agent.apply(table(1, stable.address))
        async with load(config.listen_port) as clients:
            await asyncio.sleep(0.2)
            config.access_log.unlink()
            await asyncio.sleep(0.4)
        sent = sum(len(client.statuses) for client in clients)
        assert counted(await reports_until(agent, sent)) == sent
        assert config.access_log.exists()


@pytest.mark.parametrize("max_log_bytes", [10**8, 50_000])
async def test_every_request_is_counted_once_however_often_the_agent_is_killed(
    tmp_path: Path, max_log_bytes: int
) -> None:
    config = config_in(tmp_path, interval_s=0.25, max_log_bytes=max_log_bytes)
    chance = random.Random(max_log_bytes)
    async with upstream() as stable:
        try:
            async with GatewayAgent(config) as agent:
                await agent.apply(table(1, stable.address))
            async with load(config.listen_port, clients=2, pause_s=0.002) as clients:
                for _ in range(4):
                    killed = await asyncio.create_subprocess_exec(
                        *(sys.executable, str(Path(__file__).with_name("agent_process.py"))),
                        *(str(config.state_dir), str(config.listen_port), str(max_log_bytes)),
                        stdout=asyncio.subprocess.PIPE,
                    )
                    assert killed.stdout is not None
                    assert await killed.stdout.readline() == b"running\n"
                    await asyncio.sleep(chance.uniform(0, 0.7))
                    killed.kill()
                    await killed.communicate()
            sent = sum(len(client.statuses) for client in clients)
            async with running(config) as agent:
                reports = await reports_until(agent, sent)
        finally:
            end_envoy(config)
    assert sum(client.broken for client in clients) == 0
    assert counted(reports) == sent > 100
    assert not any(report.gap or report.unreadable for report in reports)
    first = reports[0].sequence
    assert [report.sequence for report in reports] == list(range(first, first + len(reports)))


async def test_lines_that_nobody_can_read_are_counted_and_stop_nothing(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, running(config) as agent:
        await agent.apply(table(1, stable.address))
        with config.access_log.open("ab") as log:
            log.write(b"no line of ours\n{}\n")
        client = Client(config.listen_port)
        await client.ask()
        await client.close()
        reports = await reports_until(agent, 1)
    assert sum(report.unreadable for report in reports) == 2
    assert counted(reports) == 1


async def test_a_log_that_envoy_cannot_write_is_a_gap(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, running(config) as agent:
        await agent.apply(table(1, stable.address))
        before = await reports_until(agent)
        config.access_log.unlink()
        config.access_log.symlink_to("/dev/full")
        await agent._supervisor.admin.post("/reopen_logs")  # what a rotation would do
        client = Client(config.listen_port)
        for _ in range(5):
            await client.ask()
            await asyncio.sleep(0.1)
        await client.close()
        reports = await reports_until(agent, holds=lambda report: report.gap is not None)
    assert before[-1].gap is None
    assert any(report.gap is not None and "could not write its access log" in report.gap for report in reports)


async def test_a_state_that_cannot_be_written_holds_the_evidence_back_and_loses_none(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, running(config) as agent:
        await agent.apply(table(1, stable.address))
        await reports_until(agent)
        lock = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "import sqlite3,sys; db=sqlite3.connect(sys.argv[1],isolation_level=None); db.execute('BEGIN IMMEDIATE');"
            "print('held',flush=True); sys.stdin.read()",
            str(config.state),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert lock.stdout is not None
        await lock.stdout.readline()
        client = Client(config.listen_port)
        for _ in range(10):
            await client.ask()
        await client.close()
        for _ in range(300):
            (state,) = await agent.observe()
            if state.problem is not None:
                break
            await asyncio.sleep(0.05)
        assert state.problem is not None
        assert "locked" in state.problem
        await lock.communicate(b"")
        reports = await reports_until(agent, 10)
        (state,) = await agent.observe()
    assert counted(reports) == 10
    assert state.problem is None


async def test_intervals_of_another_length_go_on_after_a_restart(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable:
        try:
            async with GatewayAgent(config) as agent:
                await agent.apply(table(1, stable.address))
                client = Client(config.listen_port)
                for _ in range(3):
                    await client.ask()
                    await asyncio.sleep(0.2)
                await client.close()
            async with running(replace(config, interval_s=0.5)) as agent:
                reports = await reports_until(agent, 3)
        finally:
            end_envoy(config)
    assert counted(reports) == 3
    assert {0.25, 0.5} <= {report.length_s for report in reports}
    assert os.listdir(config.xds_dir)
