"""ports.Checklist on this machine: see that both sides fit it, build them, then run every check in order.

Called by the controller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from graylift.checks.build import Built, build_side
from graylift.checks.compatibility import check_compatibility
from graylift.checks.interface import check_interface
from graylift.domain.release import CheckOutcome, CheckReport, CheckResult
from graylift.domain.spec import ReleaseSpec, RevisionSpec
from graylift.domain.weights import Role
from graylift.engine.child import BUILD, CHECK

PreReleaseCheck = Callable[[ReleaseSpec, Built, Built], Awaitable[CheckResult]]

CHECKS: tuple[PreReleaseCheck, ...] = (check_interface,)
"""Of stable and candidate, cheapest first. All run, so that a report shows everything that is wrong."""


class LocalChecklist:
    """artefacts: folder of the artefact store; build, check: how either is started, its options follow."""

    def __init__(self, artefacts: Path, *, build: Sequence[str] = BUILD, check: Sequence[str] = CHECK) -> None:
        self._artefacts = artefacts.resolve()
        self._build = tuple(build)
        self._check = tuple(check)

    async def run(self, spec: ReleaseSpec) -> CheckReport:
        sides = ((Role.STABLE, spec.stable), (Role.CANDIDATE, spec.candidate))
        results = list(await asyncio.gather(*(check_compatibility(*side, self._check) for side in sides)))
        built: list[Built | None] = []
        # One after the other: each build may want all of the memory, and an A/A release builds but once.
        for (role, side), compatible in zip(sides, tuple(results), strict=True):
            engine, result = await self._built(spec.service, role, side, compatible)
            built.append(engine)
            results.append(result)
        stable, candidate = built
        if stable is not None and candidate is not None:
            results += [await check(spec, stable, candidate) for check in CHECKS]
        return CheckReport(
            stable=None if stable is None else stable.revision,
            candidate=None if candidate is None else candidate.revision,
            results=tuple(results),
        )

    async def _built(
        self, service: str, role: Role, spec: RevisionSpec, compatible: CheckResult
    ) -> tuple[Built | None, CheckResult]:
        if not compatible.lets_through:
            sentence = f"{spec.name} was not built, for the reason that {compatible.check} gives"
            return None, CheckResult(f"build {role.value}", CheckOutcome.SKIPPED, sentence)
        return await build_side(service, role, spec, self._artefacts, self._build)
