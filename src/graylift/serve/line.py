"""The line in front of the execution contexts: first come, first served, and bounded.

It must not know what is run. One event loop uses it; nothing here is safe between threads.
"""

from __future__ import annotations

import asyncio
from collections import deque

Turn = asyncio.Future[None]
"""Done once its holder may run."""


class Line:
    """`places` may run at once and up to `max_waiting` wait. The next one is refused: behind so many it would be
    answered after its client gave up, and everybody behind it as well.

    Whoever holds a turn ends it with `leave` after running, or with `give_up` without having run.
    """

    def __init__(self, places: int, max_waiting: int) -> None:
        self._places = places
        self._free = places
        self._max_waiting = max_waiting
        self._waiting: deque[Turn] = deque()

    @property
    def running(self) -> int:
        return self._places - self._free

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def join(self) -> Turn | None:
        """A turn, done already if a place is free; None if the line is full."""
        if self._free == 0 and len(self._waiting) >= self._max_waiting:
            return None
        turn: Turn = asyncio.get_running_loop().create_future()
        if self._free > 0:
            self._free -= 1
            turn.set_result(None)
        else:
            self._waiting.append(turn)
        return turn

    def leave(self) -> None:
        """Hand the place to the next in line, or back."""
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1

    def give_up(self, turn: Turn) -> None:
        """Leave before the turn came, or as it came."""
        if turn.done():
            self.leave()
        else:
            self._waiting.remove(turn)
