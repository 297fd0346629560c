"""The gates that are asked now: one owned task a gate, asked again and again while its question stands.

Nothing of it is stored: after a crash the gates are asked again. It decides nothing. Called by the controller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from graylift.domain.notices import GateAnswer, Question
from graylift.ports import Clock, Gates

ASK_EVERY_S = 10.0
"""How soon a gate that answered is asked again while the stage waits."""

Place = tuple[str, int]
"""A release, and the index of the stage that it wants to enter."""


@dataclass(slots=True)
class _Asked:
    task: asyncio.Task[GateAnswer]
    at_s: float
    answer: GateAnswer | None = None


class Gatekeeper:
    """Waits for no gate. What a gate said counts until it says something else, or its question is gone."""

    def __init__(self, gates: Gates, clock: Clock, when_one_answers: Callable[[], None]) -> None:
        self._gates = gates
        self._clock = clock
        self._when_one_answers = when_one_answers
        self._asked: dict[tuple[Place, str], _Asked] = {}
        self._leaving: set[asyncio.Task[GateAnswer]] = set()

    def answers(self) -> Mapping[Place, tuple[GateAnswer, ...]]:
        """What the gates before each stage said last."""
        said: dict[Place, tuple[GateAnswer, ...]] = {}
        for (place, _), asked in self._asked.items():
            if asked.task.done():
                asked.answer = asked.task.result()
            if asked.answer is not None:
                said[place] = (*said.get(place, ()), asked.answer)
        return said

    def ask(self, questions: Collection[Question]) -> None:
        """Ask these, each gate when its time has come, and no others."""
        wanted = {((q.release_id, q.stage), gate.name): (q, gate) for q in questions for gate in q.gates}
        for key in self._asked.keys() - wanted.keys():
            task = self._asked.pop(key).task
            task.cancel()
            self._leaving.add(task)
        self._leaving = {task for task in self._leaving if not task.done()}
        now = self._clock.monotonic()
        for key, (question, gate) in wanted.items():
            before = self._asked.get(key)
            if before is not None and (not before.task.done() or now - before.at_s < ASK_EVERY_S):
                continue
            task = asyncio.create_task(self._gates.ask(gate, question), name=f"gate {gate.name}")
            task.add_done_callback(lambda _: self._when_one_answers())
            self._asked[key] = _Asked(task, now, None if before is None else before.task.result())

    async def close(self) -> None:
        """Ask no more."""
        self.ask(())
        await asyncio.gather(*self._leaving, return_exceptions=True)
