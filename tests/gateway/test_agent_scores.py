"""Scores of answers, joined by request id to the requests that a real Envoy routed, and counted once."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from gateway_parts import config_in, reports_until, running, table, upstream

from graylift.domain.evidence import IntervalReport
from graylift.domain.scores import Score, Scored, ScoreFate
from graylift.domain.weights import Role
from graylift.gateway.agent import GatewayAgent

pytestmark = pytest.mark.real

KNOWN = {"a": ("helpful",)}


async def asked(port: int, times: int) -> dict[str, str]:
    """Requests through the gateway: the revision that answered each, by the request id that its answer carries."""
    answers: dict[str, str] = {}
    async with aiohttp.ClientSession() as session:
        for _ in range(times):
            async with session.post(f"http://127.0.0.1:{port}/v2/models/a/infer", data=b"hi") as response:
                answers[response.headers["x-request-id"]] = response.headers["x-graylift-revision"]
    assert len(answers) == times
    return answers


async def scores_until(agent: GatewayAgent, count: int) -> Counter[tuple[Role, str, str]]:
    """How many scores arrived for each (arm, revision, split), once there are `count`, and no more came after."""

    def scored(reports: list[IntervalReport]) -> Counter[tuple[Role, str, str]]:
        found: Counter[tuple[Role, str, str]] = Counter()
        for report in reports:
            for window in report.windows:
                for name, counts in window.scores:
                    assert name == "helpful"
                    found[window.arm, window.revision_id, window.split] += counts.count
        return found

    reports: list[IntervalReport] = []
    for _ in range(20):
        reports += await reports_until(agent)
        if scored(reports).total() >= count:
            break
    return scored(reports)


async def test_a_score_counts_for_the_arm_that_its_request_was_assigned_to(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, upstream() as candidate, running(config) as agent:
        await agent.apply(table(1, stable.address, candidate.address, 5_000))
        answers = await asked(config.listen_port, 40)
        # At once, while the log may not be written yet; and all of them again.
        given = [Score(request_id, "helpful", 0.8) for request_id in answers]
        fates = await agent.score(given, KNOWN)
        again = await agent.score(given, KNOWN)
        # The split has changed; the scores belong to the one that assigned the requests.
        await agent.apply(table(2, stable.address, candidate.address, 0))
        found = await scores_until(agent, len(answers))
    assert {one.fate for one in fates} == {ScoreFate.COUNTED}
    assert {one.fate for one in again} == {ScoreFate.REPEATED}
    revisions = Counter(answers.values())
    assert found == {
        (Role.STABLE, "a.v1.0", "a-1/1"): revisions["a.v1.0"],
        (Role.CANDIDATE, "a.v2.0", "a-1/1"): revisions["a.v2.0"],
    }


async def test_a_request_that_a_retry_saved_is_scored_for_the_arm_it_was_assigned_to(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, upstream(status=500) as candidate, running(config) as agent:
        await agent.apply(table(1, stable.address, candidate.address, 9_999))
        answers = await asked(config.listen_port, 5)
        fates = await agent.score([Score(request_id, "helpful", 1.0) for request_id in answers], KNOWN)
        found = await scores_until(agent, 5)
    assert set(answers.values()) == {"a.v1.0"}
    assert {one.fate for one in fates} == {ScoreFate.COUNTED}
    assert found[Role.CANDIDATE, "a.v2.0", "a-1/1"] == 5


async def test_what_cannot_be_joined_is_told_and_not_counted(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, running(config) as agent:
        await agent.apply(table(1, stable.address))
        (request_id,) = await asked(config.listen_port, 1)
        unknown, unnamed = await agent.score(
            [Score("no-such-request", "helpful", 0.5), Score(request_id, "polite", 0.5)], KNOWN
        )
        found = await scores_until(agent, 0)
    assert unknown.fate is ScoreFate.UNKNOWN
    assert "x-request-id" in str(unknown.why)
    assert unnamed.fate is ScoreFate.REFUSED
    assert "judged of a now: helpful" in str(unnamed.why)
    assert not found


async def test_an_id_that_clients_share_between_arms_is_refused(tmp_path: Path) -> None:
    config = config_in(tmp_path, interval_s=0.25)
    async with upstream() as stable, upstream() as candidate, running(config) as agent:
        await agent.apply(table(1, stable.address, candidate.address, 5_000))
        revisions: set[str] = set()
        async with aiohttp.ClientSession(headers={"x-request-id": "mine"}) as session:
            while len(revisions) < 2:
                async with session.post(f"http://127.0.0.1:{config.listen_port}/v2/models/a/infer") as response:
                    revisions.add(response.headers["x-graylift-revision"])
        fate: Scored | None = None
        for _ in range(100):
            (fate,) = await agent.score([Score("mine", "helpful", 0.5)], KNOWN)
            if fate.fate is not ScoreFate.COUNTED and fate.fate is not ScoreFate.REPEATED:
                break
            await asyncio.sleep(0.02)
    assert fate is not None
    assert fate.fate is ScoreFate.REFUSED
    assert "an id of its own" in str(fate.why)
