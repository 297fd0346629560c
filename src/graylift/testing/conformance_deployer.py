"""What every ports.Deployer must do. Subclass `DeployerConformance` in a test, give it the two fixtures and `kill`:

    class TestMyDeployer(DeployerConformance):
        @pytest.fixture
        def deployer(self) -> Deployer: ...
        @pytest.fixture
        def revisions(self) -> tuple[Revision, Revision]: ...       # two that can be served, of one service
        async def kill(self, deployer, revision): ...               # its server ends by itself

Nothing here imports pytest. A server may take up to `patience_s` for what it is told.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import replace

from graylift.domain.revision import Instance, InstanceState, Revision, RunningEndpoint
from graylift.ports import Deployer

Pair = tuple[Revision, Revision]


class DeployerConformance:
    """One test for each promise of the port."""

    patience_s = 20.0

    @abstractmethod
    async def kill(self, deployer: Deployer, revision: Revision) -> None:
        """Make the revision's server end by itself, as a crash does."""

    async def seen(self, deployer: Deployer, revision: Revision, state: InstanceState) -> Instance:
        """Look until the revision is in `state`."""
        instance = None

        async def matches() -> bool:
            nonlocal instance
            (instance,) = await deployer.observe([revision])
            return instance.state is state

        if not await self._until(matches):
            raise AssertionError(f"expected {revision.id} to become {state.name}; it is {instance}")
        assert instance is not None
        return instance

    async def _until(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        for _ in range(round(self.patience_s / 0.05)):
            if await condition():
                return True
            await asyncio.sleep(0.05)
        return False

    async def test_what_was_never_started_is_absent(self, deployer: Deployer, revisions: Pair) -> None:
        instances = await deployer.observe(revisions)
        assert [instance.state for instance in instances] == [InstanceState.ABSENT] * 2
        assert list(await deployer.running()) == []

    async def test_a_server_gets_ready_and_has_an_address(self, deployer: Deployer, revisions: Pair) -> None:
        await deployer.ensure(revisions[0])
        instance = await self.seen(deployer, revisions[0], InstanceState.READY)
        assert instance.address is not None
        assert list(await deployer.running()) == [revisions[0].id]

    async def test_instances_come_in_the_order_asked_each_with_an_address_of_its_own(
        self, deployer: Deployer, revisions: Pair
    ) -> None:
        first, second = revisions
        await deployer.ensure(first)
        await deployer.ensure(second)
        await self.seen(deployer, first, InstanceState.READY)
        await self.seen(deployer, second, InstanceState.READY)
        instances = await deployer.observe([second, first])
        assert [instance.revision_id for instance in instances] == [second.id, first.id]
        assert len({instance.address for instance in instances}) == 2
        assert sorted(await deployer.running()) == sorted([first.id, second.id])

    async def test_ensuring_twice_changes_nothing(self, deployer: Deployer, revisions: Pair) -> None:
        await deployer.ensure(revisions[0])
        await deployer.ensure(revisions[0])
        before = await self.seen(deployer, revisions[0], InstanceState.READY)
        await deployer.ensure(revisions[0])
        assert list(await deployer.observe([revisions[0]])) == [before]
        assert list(await deployer.running()) == [revisions[0].id]

    async def test_what_was_stopped_is_absent_and_runs_no_more(self, deployer: Deployer, revisions: Pair) -> None:
        first, second = revisions
        await deployer.ensure(first)
        await deployer.ensure(second)
        await self.seen(deployer, first, InstanceState.READY)
        await deployer.stop(first.id)
        await deployer.stop(first.id)
        await self.seen(deployer, first, InstanceState.ABSENT)
        assert list(await deployer.running()) == [second.id]

    async def test_stopping_what_is_not_known_does_nothing(self, deployer: Deployer) -> None:
        await deployer.stop("nobody.v1.0123456789ab")
        assert list(await deployer.running()) == []

    async def test_what_was_stopped_can_be_started_again_at_once(self, deployer: Deployer, revisions: Pair) -> None:
        await deployer.ensure(revisions[0])
        await self.seen(deployer, revisions[0], InstanceState.READY)
        await deployer.stop(revisions[0].id)
        await deployer.ensure(revisions[0])
        await self.seen(deployer, revisions[0], InstanceState.READY)
        assert list(await deployer.running()) == [revisions[0].id]

    async def test_a_server_that_ended_by_itself_is_dead_says_why_and_is_started_again(
        self, deployer: Deployer, revisions: Pair
    ) -> None:
        await deployer.ensure(revisions[0])
        await self.seen(deployer, revisions[0], InstanceState.READY)
        await self.kill(deployer, revisions[0])
        dead = await self.seen(deployer, revisions[0], InstanceState.DEAD)
        assert dead.detail
        assert list(await deployer.running()) == [revisions[0].id]
        await deployer.ensure(revisions[0])
        await self.seen(deployer, revisions[0], InstanceState.READY)

    async def test_a_dead_server_can_be_stopped(self, deployer: Deployer, revisions: Pair) -> None:
        await deployer.ensure(revisions[0])
        await self.seen(deployer, revisions[0], InstanceState.READY)
        await self.kill(deployer, revisions[0])
        await self.seen(deployer, revisions[0], InstanceState.DEAD)
        await deployer.stop(revisions[0].id)
        await self.seen(deployer, revisions[0], InstanceState.ABSENT)
        assert list(await deployer.running()) == []

    async def test_the_endpoint_of_somebody_else_is_never_ours(self, deployer: Deployer, revisions: Pair) -> None:
        endpoint = replace(revisions[0], backend=RunningEndpoint("http://127.0.0.1:1"), digest="e" * 64)
        await deployer.ensure(endpoint)
        (instance,) = await deployer.observe([endpoint])
        assert instance.address == "127.0.0.1:1"
        assert list(await deployer.running()) == []
        await deployer.stop(endpoint.id)
