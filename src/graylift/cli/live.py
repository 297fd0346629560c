"""Shows a release while it runs: a picture that redraws itself on a terminal, plain lines anywhere else.

Both only read the store, so they work the same beside a controller in this process and one in another.
"""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console
from rich.live import Live

from graylift.cli.view import View, line_from_event, line_from_view, render

console = Console(highlight=False)
"""Standard output, for everything that is not JSON."""

PLAIN_EVERY_S = 5.0
"""How often a plain screen repeats where things stand while nothing happens."""


class Screen(Protocol):
    """Where a release is shown."""

    def show(self, view: View) -> None: ...

    def close(self) -> None:
        """Leave the terminal as it was, with the last picture standing."""
        ...


class LiveScreen:
    """Redraws one picture in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()

    def show(self, view: View) -> None:
        self._live.update(render(view, time.time()), refresh=True)

    def close(self) -> None:
        self._live.stop()


class PlainScreen:
    """Each event as a line, and every few seconds where things stand."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = 0
        self._last = time.monotonic()

    def show(self, view: View) -> None:
        for event in view.events[self._told :]:
            self._say(line_from_event(event))
        if len(view.events) > self._told or time.monotonic() - self._last >= PLAIN_EVERY_S:
            if len(view.events) == self._told:
                self._say("          " + line_from_view(view))
            self._last = time.monotonic()
        self._told = len(view.events)

    def close(self) -> None:
        """Nothing to restore."""

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def screen_for(console: Console, *, plain: bool) -> Screen:
    """The screen that fits the console; `plain` asks for lines even on a terminal."""
    if plain or not console.is_terminal:
        return PlainScreen(console)
    return LiveScreen(console)


def print_event(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
