"""The loop around the looks: when it looks, and what it leaves when it stops."""

from __future__ import annotations

import asyncio

import pytest
from release_scene import STAGES, Scene

from graylift.controller.controller import COMMANDS_EVERY, LOOK_S, POLL_S
from graylift.testing.samples import release_spec

SPEC = release_spec(stages=STAGES)


async def test_run_looks_until_it_is_stopped_and_cancels_its_checks() -> None:
    scene = Scene()
    scene.checklist.may_end.clear()
    scene.starts(SPEC)
    stop = asyncio.Event()
    running = asyncio.create_task(scene.controller.run(stop))
    while scene.checklist.begun == 0:
        await asyncio.sleep(0)

    stop.set()
    await running

    assert scene.checklist.cancelled == 1


async def test_run_lets_a_cancellation_pass() -> None:
    scene = Scene()
    running = asyncio.create_task(scene.controller.run(asyncio.Event()))
    await asyncio.sleep(0)
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running


async def rested(scene: Scene) -> float:
    before = scene.clock.monotonic()
    await scene.controller.rest(asyncio.Event())
    return scene.clock.monotonic() - before


async def test_nothing_new_is_looked_at_once_a_second() -> None:
    scene = Scene()
    for _ in range(10):
        await scene.controller.look()

    assert await rested(scene) == pytest.approx(LOOK_S)


async def test_after_a_change_the_next_look_comes_soon() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.controller.look()

    assert await rested(scene) == pytest.approx(POLL_S)


async def test_new_reports_and_nudges_are_looked_at_at_once() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.seconds(30)
    for _ in range(10):
        await scene.controller.look()

    scene.evidence.add("g1", scene.clock.now(), table_version=scene.table.version)
    assert await rested(scene) == pytest.approx(POLL_S)
    await scene.controller.look()
    scene.controller.nudge()
    assert await rested(scene) == 0.0


async def test_what_cannot_be_stored_is_tried_again_with_patience() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.seconds(3)
    scene.store.locked = "the disk is full"
    scene.traffic()
    for _ in range(10):
        await scene.controller.look()

    assert await rested(scene) == pytest.approx(LOOK_S)


async def test_a_command_is_looked_at_soon() -> None:
    scene = Scene()
    for _ in range(10):
        await scene.controller.look()
    scene.starts(SPEC)

    assert await rested(scene) == pytest.approx(POLL_S * COMMANDS_EVERY)


async def test_checks_that_end_are_looked_at_at_once() -> None:
    scene = Scene()
    scene.checklist.may_end.clear()
    scene.starts(SPEC)
    await scene.looks()
    for _ in range(10):
        await scene.controller.look()
    scene.checklist.may_end.set()

    assert await rested(scene) < LOOK_S / 2


async def test_a_controller_that_ends_hands_over_at_once() -> None:
    scene = Scene()
    await scene.controller.look()
    other = scene.new_controller()
    assert await other.look() is None

    await scene.controller.close()

    assert await other.look() is not None
