"""Two controllers on one store: only the one that holds the lease acts, and the other takes over when it is silent."""

from __future__ import annotations

from release_scene import GOOD_WAY, STAGES, Scene

from graylift.controller.controller import LEASE_S
from graylift.domain.release import Phase
from graylift.testing.samples import release_spec

SPEC = release_spec(stages=STAGES)


async def test_only_the_holder_of_the_lease_acts() -> None:
    scene = Scene()
    other = scene.new_controller()
    scene.starts(SPEC)
    await scene.looks()
    for _ in range(60):
        scene.traffic()
        assert await scene.controller.look() is not None
        commits, applied, started = len(scene.store.commits), len(scene.router.applied), len(scene.deployer.started)
        assert await other.look() is None
        assert (len(scene.store.commits), len(scene.router.applied)) == (commits, applied)
        assert len(scene.deployer.started) == started

    assert scene.stages() == GOOD_WAY
    assert {table.token for table in scene.router.applied} == {1}


async def test_the_other_one_takes_over_and_its_token_rises() -> None:
    scene = Scene()
    first, other = scene.controller, scene.new_controller()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    silent_s = 0.0
    while await other.look() is None:
        scene.traffic()
        silent_s += 1.0
    assert LEASE_S / 2 <= silent_s <= LEASE_S

    assert await first.look() is None
    scene.controller = other
    await scene.until(Phase.PROMOTED)

    assert scene.stages() == GOOD_WAY
    assert [table.token for table in scene.router.applied] == sorted(table.token for table in scene.router.applied)


async def test_a_takeover_where_nothing_changes_still_locks_the_old_holder_out_of_the_gateways() -> None:
    scene = Scene()
    scene.starts(SPEC)
    await scene.until(Phase.PROMOTED)
    await scene.seconds(3)
    table = scene.table
    await scene.is_killed()

    await scene.looks()

    assert scene.table == table, "nothing new is stored"
    assert scene.router.gateways["g1"].newest_token == 2
    assert scene.router.applied[-1].version == table.version


async def test_a_holder_that_slept_through_its_lease_stores_and_does_nothing() -> None:
    scene = Scene()
    first, other = scene.controller, scene.new_controller()
    scene.starts(SPEC)
    await scene.until(Phase.PROGRESSING)
    # Its own clock has not moved, so it believes in its lease; only the store knows better.
    scene.memory.acquire("another host", scene.clock.now() + LEASE_S + 1, LEASE_S)
    scene.evidence.add("g1", scene.clock.now(), table_version=scene.table.version)
    applied = len(scene.router.applied)

    assert await first.look() is None
    assert len(scene.router.applied) == applied
    assert await other.look() is None


async def test_the_checks_of_a_lost_release_are_cancelled() -> None:
    scene = Scene()
    scene.checklist.may_end.clear()
    scene.starts(SPEC)
    await scene.until(Phase.CHECKING)
    await scene.looks()
    scene.memory.acquire("another host", scene.clock.now() + LEASE_S + 1, 10 * LEASE_S)
    scene.clock.pass_time(LEASE_S)

    assert await scene.controller.look() is None
    await scene.controller.close()

    assert (scene.checklist.begun, scene.checklist.cancelled) == (1, 1)
