"""What dies or fails during a release, and what users and the release make of it: real parts, really killed."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import tiny_models
from site_under_test import Site, failures, lookup_requests, release_text

from graylift.domain.release import Phase

pytestmark = pytest.mark.real

V1 = "revision: v1, model: {onnx: v1.onnx}"
V2 = "revision: v2, model: {onnx: v2.onnx}"


def two_models(site: Site) -> str:
    tiny_models.affine(site.folder / "v1.onnx", scale=2)
    tiny_models.affine(site.folder / "v2.onnx", scale=3)
    return str(site.write(release_text(V1, V2)))


@pytest.mark.parametrize(
    ("phase", "stage"),
    [
        (Phase.CHECKING, None),
        (Phase.STARTING, None),
        (Phase.PROGRESSING, 0),
        (Phase.PROGRESSING, 1),
        (Phase.PROMOTING, 2),
    ],
)
async def test_a_controller_killed_in_any_phase_changes_neither_outcome_nor_a_single_answer(
    site: Site, phase: Phase, stage: int | None
) -> None:
    file = two_models(site)
    run = site.start("run", file)
    if phase in (Phase.CHECKING, Phase.STARTING):
        await site.until_phase(phase)
        run.kill()
        run = site.start("run", file)
        async with site.traffic() as reports:
            assert await run.end() == 0, run.output()
    else:
        async with site.traffic() as reports:
            await site.until_phase(phase, stage=stage)
            run.kill()
            await asyncio.sleep(1)
            release = site.release()
            assert release is not None
            assert (release.phase, release.stage) == (phase, stage), "nobody decides while nobody is there"
            run = site.start("run", file)
            assert await run.end() == 0, run.output()
    release = site.release()
    assert release is not None
    assert release.id == "tiny-1"
    assert release.phase is Phase.PROMOTED
    assert [done.index for done in release.done] == [0, 1, 2]
    assert all(done.observed_s >= 2 for done in release.done)
    assert failures(reports[0]) == 0


async def test_a_controller_killed_while_paused_leaves_it_paused(site: Site) -> None:
    file = two_models(site)
    run = site.start("run", file)
    async with site.traffic() as reports:
        await site.until_phase(Phase.PROGRESSING)
        code, text = await site.tell("pause", "tiny")
        assert code == 0, text
        paused = await site.until_phase(Phase.PAUSED)
        run.kill()
        run = site.start("run", file)
        await asyncio.sleep(4)
        release = site.release()
        assert release is not None
        assert (release.phase, release.stage) == (Phase.PAUSED, paused.stage)
        code, text = await site.tell("resume", "tiny")
        assert code == 0, text
        assert await run.end() == 0, run.output()
    assert failures(reports[0]) == 0


async def test_a_controller_killed_while_it_takes_the_candidate_back_takes_it_back_when_it_returns(site: Site) -> None:
    tiny_models.lookup(site.folder / "v1.onnx", rows=10)
    tiny_models.lookup(site.folder / "v2.onnx", rows=5)
    file = str(site.write(release_text(V1, V2)))
    run = site.start("run", file)
    async with site.traffic(lookup_requests(range(10))) as reports:
        await site.until_phase(Phase.ROLLING_BACK, Phase.ROLLED_BACK)
        run.kill()
        run = site.start("run", file) if not _is_final(site) else run
        await site.until_phase(Phase.ROLLED_BACK)
    assert failures(reports[0]) == 0


def _is_final(site: Site) -> bool:
    release = site.release()
    return release is not None and release.phase.is_final


async def test_a_candidate_killed_at_half_of_the_traffic_costs_no_client_an_answer_and_is_rolled_back(
    site: Site,
) -> None:
    run = site.start("run", two_models(site))
    async with site.traffic(rate=100) as reports:
        await site.until_phase(Phase.PROGRESSING, stage=1)
        await asyncio.sleep(0.5)
        (candidate,) = site.pids("tiny.v2")
        os.kill(candidate, signal.SIGKILL)
        assert await run.end() == 3, run.output()
    release = site.release()
    assert release is not None
    assert "v2 ended" in release.reason
    assert failures(reports[0]) == 0


async def test_envoy_killed_comes_back_with_the_same_split_and_the_release_goes_on(site: Site) -> None:
    run = site.start("run", two_models(site))
    async with site.traffic() as reports:
        await site.until_phase(Phase.PROGRESSING)
        (envoy,) = site.pids("envoy/_bin/envoy")
        os.kill(envoy, signal.SIGKILL)
        assert await run.end() == 0, run.output()
        assert site.pids("envoy/_bin/envoy") not in ([], [envoy])
    assert reports[0].sent > failures(reports[0])


async def test_a_stable_that_is_sick_itself_holds_the_release_and_the_candidate_is_not_blamed(site: Site) -> None:
    tiny_models.lookup(site.folder / "v1.onnx", rows=5)
    tiny_models.lookup(site.folder / "v2.onnx", rows=5)
    run = site.start("run", str(site.write(release_text(V1, V2))))
    async with site.traffic(lookup_requests(range(10))):
        release = await site.until(lambda release: "stable itself" in release.reason)
        await asyncio.sleep(4)
        release = site.release()
        assert release is not None
        assert (release.phase, release.stage) == (Phase.PROGRESSING, 0)
        assert run.kill(signal.SIGINT) == 130
    assert "go on:" in run.output()
    assert (await site.tell("abort", "tiny"))[0] == 0


async def test_without_any_traffic_the_release_holds_and_says_so(site: Site) -> None:
    run = site.start("run", two_models(site))
    release = await site.until(lambda release: release.phase is Phase.PROGRESSING and release.observed_s > 3)
    assert release.stage == 0
    assert "no request to v2" in release.reason
    assert run.kill(signal.SIGTERM) == 130
    code, text = await site.tell("abort", "tiny", "-r", "nobody came")
    assert (code, "ROLLED_BACK" in text) == (0, True), text


async def test_a_store_that_is_locked_for_a_while_delays_the_release_and_loses_nothing(site: Site) -> None:
    run = site.start("run", two_models(site))
    async with site.traffic() as reports:
        await site.until_phase(Phase.PROGRESSING)
        async with site.locked_store():
            await asyncio.sleep(5)
        assert await run.end() == 0, run.output()
    release = site.release()
    assert release is not None
    assert [done.index for done in release.done] == [0, 1, 2]
    assert failures(reports[0]) == 0
