"""ports.Checklist on this machine: see that both sides fit it, build them, then run every check in order.

Called by the controller.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from graylift.checks.build import Built, build_side
from graylift.checks.compatibility import check_compatibility
from graylift.checks.concurrency import check_concurrency
from graylift.checks.interface import check_interface
from graylift.checks.parity import check_parity
from graylift.checks.served import check_served
from graylift.checks.workplace import Workplace
from graylift.domain.release import CheckOutcome, CheckReport, CheckResult
from graylift.domain.spec import ReleaseSpec, RevisionSpec
from graylift.domain.weights import Role
from graylift.engine.child import BUILD, CHECK
from graylift.engine.progress import Progress, unheard

PreReleaseCheck = Callable[[ReleaseSpec, Built, Built, Workplace], Awaitable[CheckResult]]

CHECKS: tuple[PreReleaseCheck, ...] = (check_interface, check_parity, check_concurrency)
"""Of stable and candidate, cheapest first. All run, so that a report shows everything that is wrong."""


class LocalChecklist:
    """artefacts: folder of the artefact store; build, check: how either is started, its options follow; progress: of
    what runs now, for somebody who watches."""

    def __init__(
        self,
        artefacts: Path,
        *,
        build: Sequence[str] = BUILD,
        check: Sequence[str] = CHECK,
        progress: Progress = unheard,
    ) -> None:
        self._artefacts = artefacts.resolve()
        self._build = tuple(build)
        self._check = tuple(check)
        self._progress = progress

    async def run(self, spec: ReleaseSpec, tell: Callable[[CheckResult], None] = lambda _: None) -> CheckReport:
        results: list[CheckResult] = []

        def ended(result: CheckResult) -> None:
            results.append(result)
            tell(result)

        sides = ((Role.STABLE, spec.stable), (Role.CANDIDATE, spec.candidate))
        self._progress("compatibility", 0.0)
        compatible = await asyncio.gather(*(check_compatibility(*side, self._check) for side in sides))
        for result in compatible:
            ended(result)
        built: list[Built | None] = []
        # One after the other: each build may want all of the memory, and an A/A release builds but once.
        for (role, side), known in zip(sides, compatible, strict=True):
            engine, result = await self._built(spec, role, side, known)
            built.append(engine)
            ended(result)
        stable, candidate = built
        if stable is not None and candidate is not None:
            with tempfile.TemporaryDirectory(prefix="graylift-checks-") as scratch:
                workplace = Workplace(self._artefacts, Path(scratch))
                for number, check in enumerate(CHECKS):
                    self._progress(f"check {number + 1} of {len(CHECKS)}", number / len(CHECKS))
                    ended(await check(spec, stable, candidate, workplace))
                self._progress("checks of running servers", 0.0)
                await check_served(spec, stable, candidate, workplace, tell=ended)
        return CheckReport(
            stable=None if stable is None else stable.revision,
            candidate=None if candidate is None else candidate.revision,
            results=tuple(results),
        )

    async def _built(
        self, spec: ReleaseSpec, role: Role, side: RevisionSpec, compatible: CheckResult
    ) -> tuple[Built | None, CheckResult]:
        if not compatible.lets_through:
            sentence = f"{side.name} was not built, for the reason that {compatible.check} gives"
            return None, CheckResult(f"build {role.value}", CheckOutcome.SKIPPED, sentence)

        def progress(step: str, done: float) -> None:
            self._progress(f"build {role.value}: {step}", done)

        return await build_side(spec.service, role, side, self._artefacts, self._build, progress, spec.protocol)
