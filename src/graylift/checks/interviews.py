"""How the two running servers are asked, in the protocol that they speak: with tensors, or in conversations.

`served` starts the servers and orders the checks; what a question is, and which module measures with it, stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

import aiohttp

from graylift.bench.load import PreparedRequest
from graylift.checks.boundary import check_boundary
from graylift.checks.conversations import ANSWER_WITHIN_S, QUESTIONS, chat_request, model_of, written
from graylift.checks.language_boundary import check_language_boundary
from graylift.checks.language_performance import check_language_performance
from graylift.checks.performance import check_performance
from graylift.checks.questions import NoQuestion, Question, answer_to, questions
from graylift.checks.servers import RunningServer
from graylift.domain.release import CheckResult
from graylift.domain.spec import PerformanceCheck, ReleaseSpec, ServingProtocol, Skip
from graylift.errors import ProtocolError

_TOKENS = 16
"""Of an answer that is timed: enough for a pace, and little enough to be measured often."""


class Interview(Protocol):
    """Questions that stable is known to answer."""

    async def ask(self, session: aiohttp.ClientSession, server: RunningServer) -> None:
        """One plain question, answered. ProtocolError, aiohttp.ClientError or TimeoutError if it is not."""
        ...

    async def performance(
        self, wanted: PerformanceCheck, stable: RunningServer, candidate: RunningServer
    ) -> CheckResult: ...

    async def boundary(self, candidate: RunningServer) -> CheckResult: ...


async def interview_of(spec: ReleaseSpec, stable: RunningServer) -> Interview:
    """NoQuestion if stable answers none."""
    match spec.protocol:
        case ServingProtocol.OPEN_INFERENCE:
            samples = None if isinstance(spec.checks.parity, Skip) else spec.checks.parity.samples
            return WithTensors(await questions(stable, samples))
        case ServingProtocol.OPENAI:
            return await _conversation(stable)
        case _:
            assert_never(spec.protocol)


@dataclass(frozen=True, slots=True)
class WithTensors:
    """An `Interview`."""

    asked: Sequence[Question]

    async def ask(self, session: aiohttp.ClientSession, server: RunningServer) -> None:
        await answer_to(session, server, self.asked[0])

    async def performance(
        self, wanted: PerformanceCheck, stable: RunningServer, candidate: RunningServer
    ) -> CheckResult:
        return await check_performance(wanted, stable, candidate, self.asked)

    async def boundary(self, candidate: RunningServer) -> CheckResult:
        return await check_boundary(candidate, self.asked[0])


@dataclass(frozen=True, slots=True)
class InConversation:
    """An `Interview`. short: answered by one token; timed: by several"""

    model: str
    short: PreparedRequest
    timed: Sequence[PreparedRequest]

    async def ask(self, session: aiohttp.ClientSession, server: RunningServer) -> None:
        await written(session, server, self.short)

    async def performance(
        self, wanted: PerformanceCheck, stable: RunningServer, candidate: RunningServer
    ) -> CheckResult:
        return await check_language_performance(wanted, stable, candidate, self.timed)

    async def boundary(self, candidate: RunningServer) -> CheckResult:
        return await check_language_boundary(candidate, self.model)


async def _conversation(stable: RunningServer) -> InConversation:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)) as session:
        try:
            model = await model_of(session, stable)
            short = chat_request(model, [("user", QUESTIONS[0])], 1)
            await written(session, stable, short)
        except (ProtocolError, aiohttp.ClientError, TimeoutError) as error:
            raise NoQuestion(f"{stable.name} answers {error or type(error).__name__}") from error
    return InConversation(model, short, [chat_request(model, [("user", text)], _TOKENS) for text in QUESTIONS])
