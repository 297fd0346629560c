"""The line in front of the contexts, in every order of joining, leaving and giving up."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from graylift.serve.line import Line, Turn

steps = st.lists(st.tuples(st.sampled_from(["join", "leave", "give up"]), st.integers(0, 9)), max_size=60)


@given(places=st.integers(1, 3), max_waiting=st.integers(0, 3), steps=steps)
def test_turns_come_in_order_and_never_more_run_or_wait_than_may(
    places: int, max_waiting: int, steps: list[tuple[str, int]]
) -> None:
    async def walk() -> None:
        line = Line(places, max_waiting)
        running: list[Turn] = []
        waiting: list[Turn] = []

        def take_turns() -> None:
            while waiting and waiting[0].done():  # the oldest first, and nobody else
                running.append(waiting.pop(0))
            assert not any(turn.done() for turn in waiting)
            assert (line.running, line.waiting) == (len(running), len(waiting))
            assert len(running) <= places
            assert len(waiting) <= max_waiting
            assert not waiting or len(running) == places

        for step, which in steps:
            if step == "join":
                was_full = len(running) == places and len(waiting) == max_waiting
                turn = line.join()
                assert (turn is None) == was_full
                if turn is not None:
                    (running if turn.done() else waiting).append(turn)
            elif step == "leave" and running:
                running.pop(which % len(running))
                line.leave()
            elif step == "give up" and running + waiting:
                turn = (running + waiting)[which % len(running + waiting)]
                (running if turn in running else waiting).remove(turn)
                line.give_up(turn)
            take_turns()

    asyncio.run(walk())
