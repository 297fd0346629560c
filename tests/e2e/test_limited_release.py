"""A release whose file has limits: they hold while it is on traffic and after it, and are evidence against nobody."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
import tiny_models
from site_under_test import Site, failures, release_text

from graylift.domain.release import Phase

pytestmark = pytest.mark.real

LIMITS = """  routing:
    limits:
      - {label: {header: x-tenant, exact: batch}, requests: 2/h}
    whenLimiterAway: allow
"""


async def batch_of(site: Site, requests: int) -> list[int]:
    """The statuses of so many requests of the limited tenant."""
    url, body = f"{site.url}/v2/models/tiny/infer", b"{}"
    async with aiohttp.ClientSession(headers={"x-tenant": "batch"}) as session:
        statuses: list[int] = []
        for _ in range(requests):
            async with session.post(url, data=body) as response:
                statuses.append(response.status)
        return statuses


async def test_limits_hold_in_a_release_and_after_it_and_stop_nobody_else(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx", scale=2)
    tiny_models.affine(site.folder / "v2.onnx", scale=3)
    v1, v2 = (f"revision: {name}, model: {{onnx: {name}.onnx}}" for name in ("v1", "v2"))
    run = site.start("run", str(site.write(release_text(v1, v2, extra=LIMITS))))
    async with site.traffic() as reports:
        await site.until_phase(Phase.PROGRESSING)
        limited = await batch_of(site, 12)
        assert await run.end() == 0, run.output()
    assert 429 not in limited[:2]
    assert set(limited[2:]) == {429}
    assert failures(reports[0]) == 0
    site.start("up")
    async with asyncio.timeout(60):
        # Until its agent is there nobody counts, and the file says allow.
        while (await batch_of(site, 1)) != [429]:
            await asyncio.sleep(0.2)
