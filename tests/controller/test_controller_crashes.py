"""kill -9 before and after every call of every port: the next controller goes on as if nothing had been."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from release_scene import GOOD_WAY, STAGES, Scene

from graylift.controller import Controller
from graylift.domain.release import Phase
from graylift.testing.samples import release_spec

SPEC = release_spec(stages=STAGES)
BAD_WAY = [*GOOD_WAY[:4], (Phase.ROLLING_BACK, 0), (Phase.ROLLED_BACK, 0)]


class Killed(BaseException):
    """Nothing that the controller may catch."""


class Fuse:
    """Burns through at the moment `at`: there is one before and one after each call of a port."""

    def __init__(self, at: int | None) -> None:
        self.moments = 0
        self._at = at

    def moment(self) -> None:
        self.moments += 1
        if self.moments - 1 == self._at:
            raise Killed

    def around(self, port: Any) -> Any:
        return _Fused(port, self)


class _Fused:
    def __init__(self, port: Any, fuse: Fuse) -> None:
        self._port = port
        self._fuse = fuse

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._port, name)
        if inspect.iscoroutinefunction(call):
            return self._waiting(call)

        def fused(*arguments: Any) -> Any:
            self._fuse.moment()
            result = call(*arguments)
            self._fuse.moment()
            return result

        return fused

    def _waiting(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def fused(*arguments: Any) -> Any:
            self._fuse.moment()
            result = await call(*arguments)
            self._fuse.moment()
            return result

        return fused


def fused_controller(scene: Scene, fuse: Fuse) -> Controller:
    return Controller(
        store=fuse.around(scene.store),
        router=fuse.around(scene.router),
        evidence=fuse.around(scene.evidence),
        deployer=fuse.around(scene.deployer),
        checklist=scene.checklist,
        clock=scene.clock,
        holder="the one that is killed",
    )


async def play(killed_at: int | None, *, failed: float) -> tuple[Scene, int]:
    """A release whose controller is killed at that moment; and how many moments there were."""
    scene = Scene()
    scene.behaves("v2", failed=failed)
    fuse = Fuse(killed_at)
    scene.controller = fused_controller(scene, fuse)
    scene.starts(SPEC)
    try:
        await scene.until(Phase.PROMOTED, Phase.ROLLED_BACK)
        await scene.seconds(3)
    except Killed:
        await scene.is_killed()
        await scene.until(Phase.PROMOTED, Phase.ROLLED_BACK)
        await scene.seconds(3)
    return scene, fuse.moments


async def moments_of(*, failed: float) -> int:
    _, moments = await play(None, failed=failed)
    return moments


@pytest.mark.parametrize("part", range(4))
async def test_a_kill_at_any_moment_of_a_good_release_changes_neither_outcome_nor_way(part: int) -> None:
    moments = await moments_of(failed=0.0)
    assert moments > 200
    for moment in range(part, moments, 4):
        scene, _ = await play(moment, failed=0.0)

        assert scene.stages() == GOOD_WAY, f"killed at moment {moment}"
        assert scene.weight_at() == 0
        assert scene.running() == {"v2"}
        assert len(scene.deployer.started) == 2, "no server was started twice"
        assert all(
            record.observed_s >= stage.observe_s for record, stage in zip(scene.release.done, STAGES, strict=True)
        )
        versions = [table.version for table in scene.router.applied]
        assert versions == sorted(versions)


async def test_a_kill_at_any_moment_of_a_bad_release_still_takes_users_back() -> None:
    moments = await moments_of(failed=0.5)
    for moment in range(moments):
        scene, _ = await play(moment, failed=0.5)

        assert scene.stages() == BAD_WAY, f"killed at moment {moment}"
        assert scene.weight_at() == 0
        assert scene.running() == {"v1"}


async def test_a_controller_that_is_killed_in_every_phase_loses_nothing() -> None:
    scene = Scene(ready_after_s=2.0)
    scene.starts(SPEC)
    seen: set[tuple[Phase, int]] = set()
    for _ in range(200):
        await scene.controller.look()
        place = (scene.release.phase, scene.release.stage)
        if place not in seen:
            seen.add(place)
            await scene.is_killed()
        scene.traffic()
    assert scene.stages() == GOOD_WAY
    assert seen == set(GOOD_WAY)
