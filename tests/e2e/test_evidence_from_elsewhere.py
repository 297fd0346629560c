"""Whole releases whose candidate is as quick and as faultless as stable, and still worse: only others can tell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
import tiny_models
from site_under_test import Site, affine_requests, free_port, release_text

from graylift.domain.release import Phase

sys.path.insert(0, str(Path(__file__).parents[1] / "sources"))
from prometheus_lab import PROMETHEUS, Exporter, exporters, prometheus

pytestmark = pytest.mark.real

HELPFUL = "      - {name: helpful, rollbackIfWorse: -0.05, promoteIfWithin: -0.1}\n"
SLOW_QUEUE = """
      - name: slow-queue
        prometheus: {url: %s, histogram: queue, above: 0.5, labels: {revision: "{revision}"}, every: 1s}
        rollbackIfWorse: 2pp
        promoteIfWithin: 5pp
"""


async def api_of(site: Site) -> str:
    """Where the API is, as `status` tells it."""
    for _ in range(100):
        code, text = await site.tell("status", "--json")
        if code == 0 and (url := json.loads(text)["api"]) is not None:
            return url
        await asyncio.sleep(0.1)
    raise AssertionError(f"no API: {site.children[0].output()}")


async def test_a_candidate_whose_answers_are_scored_lower_is_rolled_back_for_its_scores(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx", scale=2)
    tiny_models.affine(site.folder / "v2.onnx", scale=3)
    revisions = ("revision: v1, model: {onnx: v1.onnx}", "revision: v2, model: {onnx: v2.onnx}")
    run = site.start("run", str(site.write(release_text(*revisions, extra=HELPFUL))), f"--api=127.0.0.1:{free_port()}")
    await site.until_answering()
    url, fates = await api_of(site), Counter[str]()
    request = next(affine_requests())

    async def ask_and_score(session: aiohttp.ClientSession) -> None:
        async with session.post(site.url + request.path, data=request.body, headers=request.headers) as answer:
            request_id, revision = answer.headers["x-request-id"], answer.headers["x-graylift-revision"]
        score = {"request_id": request_id, "name": "helpful", "value": 0.4 if ".v2." in revision else 0.9}
        with contextlib.suppress(aiohttp.ClientConnectionError):  # the API ends with the command
            async with session.post(f"{url}/v1/scores", json=score) as answer:
                told = await answer.json()
                fates[f"{told['status']} {told.get('reason', '')}"] += 1

    async with aiohttp.ClientSession() as session:
        while run.process.poll() is None:
            await asyncio.gather(*(ask_and_score(session) for _ in range(8)), asyncio.sleep(0.1))
    release = site.release()
    assert release is not None
    assert run.process.returncode == 3, run.output()
    assert release.phase is Phase.ROLLED_BACK
    assert "mean helpful 0.400" in release.reason
    assert "stable's 0.900" in release.reason
    assert fates["counted "] > 20


@pytest.mark.skipif(PROMETHEUS is None, reason="no `prometheus` on the path; Debian has a package of that name")
async def test_a_candidate_whose_queue_is_longer_in_prometheus_is_rolled_back_for_it(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx", scale=2)
    tiny_models.affine(site.folder / "v2.onnx", scale=3)
    revisions = ("revision: v1, model: {onnx: v1.onnx}", "revision: v2, model: {onnx: v2.onnx}")
    with exporters() as (stable, candidate), prometheus(site.folder, stable, candidate) as url:
        run = site.start("run", str(site.write(release_text(*revisions, extra=SLOW_QUEUE % url))))
        async with site.traffic():
            counting = asyncio.create_task(queue_up(stable, candidate))
            code = await run.end()
            counting.cancel()
            await asyncio.wait([counting])
    release = site.release()
    assert release is not None
    assert (code, release.phase) == (3, Phase.ROLLED_BACK), run.output()
    assert "slow-queue" in release.reason
    assert "against stable's" in release.reason
    code, text = await site.tell("explain", "tiny")
    assert (code, "slow-queue" in text) == (0, True), text


async def queue_up(stable: Exporter, candidate: Exporter) -> None:
    """Of the candidate's requests a third wait too long, of stable's one in a hundred; and each restarts once."""
    for number in range(10_000):
        stable.serve(0.05, 99)
        stable.serve(0.7, 1)
        candidate.serve(0.05, 20)
        candidate.serve(0.7, 10)
        if number == 10:
            await asyncio.to_thread(stable.restart)
            await asyncio.to_thread(candidate.restart)
        await asyncio.sleep(0.2)
