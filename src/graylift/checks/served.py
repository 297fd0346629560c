"""The checks that need running servers, on one pair: cold start, performance, capacity, boundary, in this order.

A server's first request can only be seen once, right after its start; boundary may take a server down, so it comes
last; between them the two are warm, which is what performance and capacity ask about. Called by `checklist`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from graylift.checks import boundary, capacity, cold_start, performance
from graylift.checks.boundary import check_boundary
from graylift.checks.build import Built
from graylift.checks.capacity import check_capacity
from graylift.checks.cold_start import check_cold_start
from graylift.checks.performance import check_performance
from graylift.checks.questions import NoQuestion, questions
from graylift.checks.servers import SERVE, serving
from graylift.checks.workplace import Workplace
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import ReleaseSpec, ServingProtocol, Skip
from graylift.errors import DeployError


async def check_served(
    spec: ReleaseSpec,
    stable: Built,
    candidate: Built,
    workplace: Workplace,
    *,
    serve: Sequence[str] = SERVE,
    tell: Callable[[CheckResult], None] = lambda _: None,
) -> tuple[CheckResult, ...]:
    """One result each. When it ends, also by being cancelled, no server of its is left.

    serve: how a model server is started; its options follow
    tell:  called with each result as its check ends
    """
    checks = spec.checks
    settings = {
        cold_start.CHECK: checks.cold_start,
        performance.CHECK: checks.performance,
        capacity.CHECK: checks.capacity,
        boundary.CHECK: checks.boundary,
    }
    results: dict[str, CheckResult] = {}

    def ended(result: CheckResult) -> None:
        results[result.check] = result
        tell(result)

    def rest(outcome: CheckOutcome, sentence: str) -> tuple[CheckResult, ...]:
        """All results, those that are not there yet with this one."""
        for name in settings:
            if name not in results:
                ended(CheckResult(name, outcome, sentence))
        return tuple(results[name] for name in settings)

    for name, setting in settings.items():
        if isinstance(setting, Skip):
            ended(CheckResult(name, CheckOutcome.SKIPPED, f"not run: {setting.reason}"))
    if len(results) == len(settings):
        return rest(CheckOutcome.SKIPPED, "")
    if spec.protocol is not ServingProtocol.OPEN_INFERENCE:
        return rest(CheckOutcome.SKIPPED, f"not run: it asks with tensors, and {spec.protocol.value} has none")
    async with AsyncExitStack() as stack:
        try:
            first = await stack.enter_async_context(serving(stable, "stable", workplace, serve))
        except DeployError as error:
            return rest(CheckOutcome.INCONCLUSIVE, f"stable, {stable.spec.name}, is not there to compare with: {error}")
        try:
            asked = await questions(first, None if isinstance(checks.parity, Skip) else checks.parity.samples)
        except NoQuestion as why:
            return rest(CheckOutcome.INCONCLUSIVE, f"there is nothing to ask the two: {why}")
        try:
            second = await stack.enter_async_context(serving(candidate, "candidate", workplace, serve))
        except DeployError as error:
            # Whoever skips the check of a start has not asked for a server that does not start.
            sentence = f"{candidate.spec.name} does not start: {error}"
            ended(CheckResult(cold_start.CHECK, CheckOutcome.FAIL, sentence))
            return rest(CheckOutcome.INCONCLUSIVE, f"not measured: {candidate.spec.name} does not start")
        if not isinstance(checks.cold_start, Skip):
            ended(
                await check_cold_start(
                    checks.cold_start, second, asked[0], lambda: serving(candidate, "candidate", workplace, serve)
                )
            )
        if not isinstance(checks.performance, Skip):
            ended(await check_performance(checks.performance, first, second, asked))
        if not isinstance(checks.capacity, Skip):
            ended(await check_capacity(checks.capacity, first, second, asked[0]))
        if not isinstance(checks.boundary, Skip):
            ended(await check_boundary(second, asked[0]))
    return tuple(results[name] for name in settings)
