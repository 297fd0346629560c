"""Shows how far a piece of work is that takes its time: a bar that redraws itself on a terminal, plain lines elsewhere.

It draws what it is told (`engine.progress`: a step, the share done) and knows nothing of the work. Called by the
commands that build, check and measure.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

_FURTHER = 0.1
"""A plain line within one step comes at each further tenth: a vendor may tell of every layer."""


@contextmanager
def steps(console: Console, *, quiet: bool = False) -> Generator[Callable[[str, float], None]]:
    """What to call with (step, share done) while the block is open. `quiet`: no plain lines, for output that scripts
    read. The bar is drawn on `console` if that is a terminal and not quiet, else on standard error if that is one."""
    bar = console if console.is_terminal and not quiet else Console(stderr=True)
    if bar.is_terminal:
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=bar,
            transient=True,
            redirect_stdout=bar is console,
        ) as progress:
            task = progress.add_task("starting", total=1.0)
            yield lambda step, done: progress.update(task, description=step, completed=done)
        return
    last = ("", 0.0)

    def line(step: str, done: float) -> None:
        nonlocal last
        if not quiet and (step != last[0] or done - last[1] >= _FURTHER):
            last = (step, done)
            console.print(f"  {done:4.0%}  {step}", markup=False, soft_wrap=True)

    yield line
