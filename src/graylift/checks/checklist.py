"""ports.Checklist on this machine: build both sides, then run every check in order. Called by the controller."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from graylift.checks.build import Built, build_side
from graylift.checks.concurrency import check_concurrency
from graylift.checks.interface import check_interface
from graylift.checks.parity import check_parity
from graylift.checks.served import check_served
from graylift.checks.workplace import Workplace
from graylift.domain.release import CheckReport, CheckResult
from graylift.domain.spec import ReleaseSpec
from graylift.domain.weights import Role
from graylift.engine.child import BUILD

PreReleaseCheck = Callable[[ReleaseSpec, Built, Built, Workplace], Awaitable[CheckResult]]

CHECKS: tuple[PreReleaseCheck, ...] = (check_interface, check_parity, check_concurrency)
"""Of stable and candidate, cheapest first. All run, so that a report shows everything that is wrong."""


class LocalChecklist:
    """artefacts: folder of the artefact store; build: how a build is started, its options follow."""

    def __init__(self, artefacts: Path, *, build: Sequence[str] = BUILD) -> None:
        self._artefacts = artefacts.resolve()
        self._build = tuple(build)

    async def run(self, spec: ReleaseSpec) -> CheckReport:
        # One after the other: each build may want all of the memory, and an A/A release builds but once.
        stable, stable_result = await build_side(spec.service, Role.STABLE, spec.stable, self._artefacts, self._build)
        candidate, candidate_result = await build_side(
            spec.service, Role.CANDIDATE, spec.candidate, self._artefacts, self._build
        )
        results = [stable_result, candidate_result]
        if stable is not None and candidate is not None:
            with tempfile.TemporaryDirectory(prefix="graylift-checks-") as scratch:
                workplace = Workplace(self._artefacts, Path(scratch))
                results += [await check(spec, stable, candidate, workplace) for check in CHECKS]
                results += await check_served(spec, stable, candidate, workplace)
        return CheckReport(
            stable=None if stable is None else stable.revision,
            candidate=None if candidate is None else candidate.revision,
            results=tuple(results),
        )
