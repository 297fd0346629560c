"""The pre-release checks that run now: one owned task a release. Called by the controller.

Nothing of it is stored: after a crash the checks are asked for again and find again what was built.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from graylift.domain.release import CheckReport, CheckResult, Release
from graylift.errors import GrayliftError
from graylift.ports import Checklist


class Checklists:
    """Tasks by release. A task lives until its release needs no checks any more."""

    def __init__(self, checklist: Checklist, when_one_ends: Callable[[], None]) -> None:
        """when_one_ends: called after each check, and after the last one of a release"""
        self._checklist = checklist
        self._when_one_ends = when_one_ends
        self._tasks: dict[str, asyncio.Task[CheckReport]] = {}
        self._ended: dict[str, list[CheckResult]] = {}
        self._leaving: set[asyncio.Task[CheckReport]] = set()

    def report(self, release: Release) -> CheckReport | None:
        """What the checks found; None while they run. They are begun if they do not run.

        GrayliftError if they could not be carried out; the next call begins them again.
        """
        task = self._tasks.get(release.id)
        if task is None:
            task = asyncio.create_task(self._run(release), name=f"checks of {release.id}")
            task.add_done_callback(lambda _: self._when_one_ends())
            self._tasks[release.id] = task
            return None
        if not task.done():
            return None
        try:
            return task.result()
        except GrayliftError:
            del self._tasks[release.id]
            raise

    def results(self, release: Release) -> tuple[CheckResult, ...]:
        """Of the checks that have ended, in their order, while the others run."""
        return tuple(self._ended.get(release.id, ()))

    async def _run(self, release: Release) -> CheckReport:
        ended = self._ended[release.id] = []

        def tell(result: CheckResult) -> None:
            ended.append(result)
            self._when_one_ends()

        return await self._checklist.run(release.spec, tell)

    def keep_only(self, release_ids: Iterable[str]) -> None:
        """Cancel the checks of every other release."""
        for release_id in self._tasks.keys() - set(release_ids):
            task = self._tasks.pop(release_id)
            self._ended.pop(release_id, None)
            task.cancel()
            self._leaving.add(task)
        self._leaving = {task for task in self._leaving if not task.done()}

    async def close(self) -> None:
        """Cancel all and wait for their end."""
        self.keep_only(())
        await asyncio.gather(*self._leaving, return_exceptions=True)
