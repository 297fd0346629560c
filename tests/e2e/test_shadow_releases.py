"""Releases with a shadow stage as a user runs them: both revisions answer, users get stable's answers alone."""

from __future__ import annotations

import asyncio
import json

import pytest
import tiny_models
from site_under_test import Site, failures, release_text

from graylift.domain.release import Phase, Release

pytestmark = pytest.mark.real

REVISIONS = ("revision: v1, model: {onnx: v1.onnx}", "revision: v2, model: {onnx: v2.onnx}")
STAGES = """
    - {{shadow: 50%, observe: 2s, minRequests: 40{more}}}
    - {{weight: 50, observe: 1s, minRequests: 20, promoteIfWithin: {{errors: 20pp, latency p50: 20x}}}}
    - {{weight: 100, watch: 1s}}
"""
# Two revisions and their traffic on busy cores: time says nothing here unless it is off by an order of magnitude.
JUDGE = """
    shadow:
      errors: {rollbackIfWorse: 2pp, promoteIfWithin: 10pp}
      latency: {rollbackIfWorse: 10x, promoteIfWithin: 15x}
      agreement: {rollbackIfBelow: 90%, promoteIfAbove: 80%}
      keepExamples: text
"""


def text(more: str = "") -> str:
    return release_text(*REVISIONS, stages=STAGES.format(more=more), extra=JUDGE)


async def test_a_candidate_that_answers_as_stable_does_passes_its_shadow_stage_and_goes_on_to_users(
    site: Site,
) -> None:
    tiny_models.affine(site.folder / "v1.onnx", scale=2)
    tiny_models.affine(site.folder / "v2.onnx", scale=2.0001)
    run = site.start("run", str(site.write(text())))
    async with site.traffic() as reports:
        assert await run.end() == 0, run.output()

    release = site.release()
    assert release is not None
    assert release.phase is Phase.PROMOTED, release.reason
    assert failures(reports[0]) == 0
    seen = release.done[0].shadow
    assert seen is not None
    assert seen.pairs >= 40
    assert (seen.agreement, seen.examples) == (1.0, ())
    assert [verdict.check for verdict in release.done[0].verdicts] == [
        "shadow errors",
        "shadow latency",
        "shadow agreement",
    ]
    code, report = await site.tell("report", "tiny")
    assert code == 0
    assert "Stage 1 of 3: shadow 50 %" in report
    assert "compared: 100 % agree" in report


async def test_a_candidate_that_answers_otherwise_is_rejected_before_any_user_sees_it(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx", scale=2)
    tiny_models.affine(site.folder / "v2.onnx", scale=-2)
    run = site.start("run", str(site.write(text())))
    async with site.traffic() as reports:
        assert await run.end() != 0, run.output()

    release = site.release()
    assert release is not None
    assert release.phase is Phase.REJECTED
    assert "shadow answers agree in 0.0 %" in release.reason
    assert failures(reports[0]) == 0
    assert {r.revision.split(".")[1] for r in reports[0].revisions if r.revision} == {"v1"}
    code, report = await site.tell("report", "tiny", "--format", "json")
    assert code == 0
    stage = json.loads(report)["stages"][0]
    assert stage["shadow"]["agreement"] == 0
    assert stage["shadow"]["examples"][0]["stable"] != stage["shadow"]["examples"][0]["candidate"]
    async with asyncio.timeout(30):
        while len(site.pids("graylift.serve")) != 1:
            await asyncio.sleep(0.1)


async def test_a_shadow_stage_that_no_request_fits_says_so_and_holds(site: Site) -> None:
    tiny_models.affine(site.folder / "v1.onnx", scale=2)
    tiny_models.affine(site.folder / "v2.onnx", scale=2.0001)
    site.start("run", str(site.write(text(', match: [{header: x-dry-run, exact: "yes"}]'))))

    def observed(release: Release) -> bool:
        return release.phase is Phase.PROGRESSING and release.observed_s > 3

    async with site.traffic():
        release = await site.until(observed)
    assert release.stage == 0
    assert release.reason.startswith("no shadow request arrived in the ")
