"""An agent and the process of its Envoy: started, adopted, restarted, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gateway_parts import Client, config_in, end_envoy, envoy_pid, load, reports_until, running, table, upstream

from graylift.errors import GatewayError
from graylift.gateway.agent import GatewayAgent

pytestmark = pytest.mark.real


async def test_envoy_outlives_its_agent_and_the_next_one_adopts_it_without_a_dropped_connection(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable:
        try:
            async with GatewayAgent(config) as agent:
                await agent.apply(table(1, stable.address))
            pid = envoy_pid(config)
            assert pid is not None
            async with load(config.listen_port) as clients:
                for _ in range(3):
                    async with GatewayAgent(config) as agent:
                        (state,) = await agent.observe()
                        assert (state.applied_version, state.problem) == (1, None)
                        assert envoy_pid(config) == pid
                        await asyncio.sleep(0.1)
            sent = sum(len(client.statuses) for client in clients)
            assert [client.broken for client in clients] == [0, 0, 0, 0]
            async with running(config) as agent:
                reports = await reports_until(agent, sent)
            assert sum(window.requests for report in reports for window in report.windows) == sent
            assert not any(report.gap for report in reports)
            assert {report.table_version for report in reports if report.windows} <= {1, None}
        finally:
            end_envoy(config)


async def test_an_envoy_that_dies_comes_back_with_the_last_good_table_and_a_gap(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, upstream() as candidate, running(config) as agent:
        await agent.apply(table(1, stable.address, candidate.address, 5_000))
        pid = envoy_pid(config)
        assert pid is not None
        # Whatever lies on the disk by then, the last good table is what comes back.
        (config.xds_dir / "rds.json").write_text("{half")
        os.kill(pid, signal.SIGKILL)
        client = Client(config.listen_port)
        for _ in range(500):
            if await client.ask() == 200:
                break
            await asyncio.sleep(0.02)
        assert client.statuses[-1] == 200
        await client.close()
        assert envoy_pid(config) not in (pid, None)
        assert await version_until(agent, 1) == 1
        reports = await reports_until(agent, 1, lambda report: report.gap is not None)
        assert any(report.gap is not None and "Envoy ended by itself" in report.gap for report in reports)
        assert reports[-1].gap is None


async def version_until(agent: GatewayAgent, version: int) -> int | None:
    """What the gateway runs, once it is `version`; or what it runs after ten seconds."""
    for _ in range(500):
        (state,) = await agent.observe()
        if state.applied_version == version:
            break
        await asyncio.sleep(0.02)
    return state.applied_version


async def test_a_table_that_comes_while_envoy_is_away_is_applied_when_it_is_back(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with upstream() as stable, running(config) as agent:
        await agent.apply(table(1, stable.address))
        pid = envoy_pid(config)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await agent.apply(table(2, stable.address))
        assert await version_until(agent, 2) == 2


async def test_a_shutdown_finishes_what_runs_and_leaves_no_process(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with upstream(delay_s=0.5) as stable, GatewayAgent(config) as agent:
        await agent.apply(table(1, stable.address))
        client = Client(config.listen_port)
        asked = asyncio.create_task(client.ask())
        await asyncio.sleep(0.2)
        await agent.shutdown()
        assert await asked == 200
        await client.close()
        assert envoy_pid(config) is None
        await agent.shutdown()


async def test_an_agent_can_end_an_envoy_that_it_never_watched(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    try:
        async with GatewayAgent(config):
            pass
        assert envoy_pid(config) is not None
        await GatewayAgent(config).shutdown()
        assert envoy_pid(config) is None
    finally:
        end_envoy(config)


async def test_time_without_an_envoy_is_a_gap_and_not_an_observation(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with running(config) as agent:
        seen = await reports_until(agent)
    await asyncio.sleep(0.5)
    async with running(config) as agent:
        back_s = time.time()
        reports = await reports_until(agent, holds=lambda report: report.start_s > back_s)
    gaps = [report for report in reports if report.gap == "Envoy ended while its agent was away"]
    assert gaps
    assert all(report.table_version is None for report in gaps)
    assert reports[-1].gap is None
    assert seen[-1].gap is None


async def test_a_port_that_is_taken_is_named_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        agent = GatewayAgent(config_in(tmp_path, listen_port=port))
        with pytest.raises(GatewayError, match=rf"127\.0\.0\.1:{port}: process {os.getpid()} \(.+\) listens there"):
            await agent.start()


async def test_an_envoy_of_another_version_is_refused_naming_both(tmp_path: Path) -> None:
    other = tmp_path / "envoy"
    other.write_text("#!/bin/sh\necho 'envoy  version: abc/1.31.2/Clean/RELEASE/BoringSSL'\n")
    other.chmod(0o700)
    with pytest.raises(GatewayError, match=r"is Envoy 1\.31 .* expected 1\.40\.x"):
        await GatewayAgent(config_in(tmp_path, envoy=other)).start()
    with pytest.raises(GatewayError, match="cannot be run from"):
        await GatewayAgent(config_in(tmp_path, envoy=tmp_path / "none")).start()


async def test_an_envoy_that_runs_with_other_settings_is_not_adopted(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with running(config) as agent:
        await agent.close()
        other = replace(config, listen_port=config.listen_port + 1)
        with pytest.raises(GatewayError, match=rf"port_value is {config.listen_port}, asked for {other.listen_port}"):
            await GatewayAgent(other).start()
        with pytest.raises(GatewayError, match="--concurrency 2"):
            await GatewayAgent(replace(config, workers=2)).start()


async def test_a_second_agent_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with running(config):
        with pytest.raises(GatewayError, match=rf"another agent \(process {os.getpid()}\)"):
            await GatewayAgent(config).start()


async def test_an_envoy_that_cannot_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    config.access_log.mkdir(parents=True)
    try:
        with pytest.raises(GatewayError, match="It last said"):
            await GatewayAgent(config).start()
        assert envoy_pid(config) is None
    finally:
        end_envoy(config)
