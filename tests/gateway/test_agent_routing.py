"""An agent with a real Envoy: it applies tables without failing a request, and refuses those it must not apply."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from gateway_parts import Client, config_in, load, running, table, upstream

from graylift.errors import TableRefused

pytestmark = pytest.mark.real


async def test_a_table_is_applied_and_read_back_from_envoy(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with upstream() as stable, running(config) as agent:
        (state,) = await agent.observe()
        assert (state.gateway, state.applied_version, state.problem) == ("g1", None, None)
        await agent.apply(table(1, stable.address))
        (state,) = await agent.observe()
        assert (state.applied_version, state.refused) == (1, None)
        assert state.healthy == ("a.v1.0",)
        assert state.open_requests == (("a.v1.0", 0),)
        client = Client(config.listen_port)
        assert await client.ask() == 200
        assert client.revisions == ["a.v1.0"]
        await client.close()


async def test_a_table_of_weight_zero_leaves_the_candidate_without_a_request(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with upstream() as stable, upstream() as candidate, running(config) as agent:
        await agent.apply(table(1, stable.address, candidate.address, 5_000))
        async with load(config.listen_port):
            await asyncio.sleep(0.3)
            await agent.apply(table(2, stable.address, candidate.address, 0))
            answered = candidate.answered
            await asyncio.sleep(0.3)
        assert 0 < answered == candidate.answered


async def test_no_request_fails_while_candidates_come_are_shifted_to_and_go(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with upstream() as v1, upstream() as v2, running(config) as agent:
        await agent.apply(table(1, v1.address))
        version = 1
        arms = ((v1.address, v2.address, "12"), (v2.address, v1.address, "21"))
        async with load(config.listen_port) as clients:
            for cycle in range(12):
                old, new, names = arms[cycle % 2]
                for weight in (0, 500, 10_000):
                    version += 1
                    await agent.apply(table(version, old, new, weight, names=names))
                version += 1
                await agent.apply(table(version, new, names=names[::-1]))  # promoted; the old stable goes
        statuses = [status for client in clients for status in client.statuses]
        assert set(statuses) == {200}
        assert sum(client.broken for client in clients) == 0
        assert sum(client.connections for client in clients) == len(clients)
        assert min(v1.answered, v2.answered) > 50


async def test_a_table_that_envoy_refuses_leaves_the_last_good_one_in_force(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with upstream() as stable, running(config) as agent:
        await agent.apply(table(1, stable.address))
        wrong = table(2, stable.address)
        wrong = replace(wrong, services=(replace(wrong.services[0], timeout_s=1e13),))
        async with load(config.listen_port) as clients:
            with pytest.raises(TableRefused, match="Envoy refuses it"):
                await agent.apply(wrong)
            (state,) = await agent.observe()
            assert state.applied_version == 1
            assert state.refused is not None
        assert {status for client in clients for status in client.statuses} == {200}
        await agent.apply(table(3, stable.address))
        (state,) = await agent.observe()
        assert (state.applied_version, state.refused) == (3, None)


async def test_a_first_table_that_envoy_refuses_leaves_none_in_force(tmp_path: Path) -> None:
    async with upstream() as stable, running(config_in(tmp_path)) as agent:
        wrong = table(1, stable.address)
        with pytest.raises(TableRefused):
            await agent.apply(replace(wrong, services=(replace(wrong.services[0], timeout_s=1e13),)))
        (state,) = await agent.observe()
        assert state.applied_version is None


async def test_an_inconsistent_table_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with upstream() as stable, running(config) as agent:
        await agent.apply(table(1, stable.address))
        files = (config.xds_dir / "rds.json").read_bytes()
        with pytest.raises(TableRefused, match="nowhere"):
            await agent.apply(table(2, "nowhere"))
        assert (config.xds_dir / "rds.json").read_bytes() == files
        (state,) = await agent.observe()
        assert state.applied_version == 1
        assert state.refused is not None


async def test_a_table_that_cannot_be_written_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with upstream() as stable, running(config) as agent:
        await agent.apply(table(1, stable.address))
        (config.xds_dir / "cds.json.new").mkdir()
        with pytest.raises(TableRefused, match=r"cds\.json cannot be written"):
            await agent.apply(table(2, stable.address))
        (state,) = await agent.observe()
        assert state.applied_version == 1


async def test_a_writer_that_lost_its_lease_is_refused(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with upstream() as stable:
        async with running(config) as agent:
            await agent.apply(table(5, stable.address, token=7))
            with pytest.raises(TableRefused, match="fencing token 6, but one with token 7"):
                await agent.apply(table(6, stable.address, token=6))
            with pytest.raises(TableRefused, match="table 4 is older than table 5"):
                await agent.apply(table(4, stable.address, token=7))
            with pytest.raises(TableRefused, match="differs"):
                await agent.apply(table(5, "127.0.0.1:1", token=7))
            await agent.apply(table(5, stable.address, token=7))
            (state,) = await agent.observe()
            assert (state.applied_version, state.refused) == (5, None)
        async with running(config) as agent:  # and after a restart of everything
            with pytest.raises(TableRefused, match="fencing token 6, but one with token 7"):
                await agent.apply(table(6, stable.address, token=6))
            await agent.apply(table(5, stable.address, token=8))
