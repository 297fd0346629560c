"""Each pre-release check is stored and told when it ends, while the others still run."""

from __future__ import annotations

import asyncio

from release_scene import STAGES, Scene

from graylift.domain.release import CheckOutcome, CheckReport, CheckResult, Phase
from graylift.domain.spec import ReleaseSpec
from graylift.testing.samples import check_report, release_spec

SPEC = release_spec(stages=STAGES)
BUILD = CheckResult("build stable", CheckOutcome.PASS, "v1 is engine 0123")
PARITY = CheckResult("parity", CheckOutcome.PASS, "off by 0.001 at most; limit 0.01")


def both(spec: ReleaseSpec) -> CheckReport:
    found = check_report(spec)
    return CheckReport(found.stable, found.candidate, (BUILD, PARITY))


async def a_scene_whose_first_check_has_ended() -> Scene:
    scene = Scene()
    scene.checklist.found = both
    scene.checklist.early = (BUILD,)
    scene.checklist.may_end.clear()
    scene.starts(SPEC)
    while scene.checklist.begun == 0:
        await scene.controller.look()
        await asyncio.sleep(0)
    await scene.controller.look()
    return scene


async def test_a_check_that_has_ended_is_seen_while_the_others_run() -> None:
    scene = await a_scene_whose_first_check_has_ended()

    assert (scene.release.phase, scene.release.checks) == (Phase.CHECKING, (BUILD,))
    assert [event.text for event in scene.events("CHECK")] == ["build stable PASS: v1 is engine 0123"]

    scene.checklist.may_end.set()
    await scene.until(Phase.PROGRESSING)

    assert scene.release.checks == (BUILD, PARITY)
    assert [event.text.partition(" PASS")[0] for event in scene.events("CHECK")] == ["build stable", "parity"]


async def test_what_one_controller_saw_checked_stands_until_the_next_one_has_checked_it_again() -> None:
    scene = await a_scene_whose_first_check_has_ended()

    scene.checklist.early = ()
    await scene.controller.close()
    scene.controller = scene.new_controller()
    await scene.controller.look()
    await asyncio.sleep(0)
    await scene.controller.look()

    assert scene.checklist.begun == 2
    assert scene.release.checks == (BUILD,)

    again = CheckResult("build stable", CheckOutcome.FAIL, "the file is gone")
    scene.checklist.found = lambda spec: CheckReport(None, None, (again,))
    scene.checklist.may_end.set()
    await scene.until(Phase.REJECTED)
    assert scene.release.checks == (again,)
