"""Ctrl-C and SIGTERM as an exception that a command can tidy up after. Called by the commands that take their time."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import TypeVar

from graylift.errors import GrayliftError

T = TypeVar("T")

INTERRUPTED = 130
"""The exit code, as shells say it."""


class Interrupted(GrayliftError):
    """A person or a supervisor asked this process to stop (SIGINT, SIGTERM). The data plane serves on."""


async def until_stopped(work: Coroutine[None, None, T], controller: asyncio.Task[None] | None = None) -> T:
    """The result of `work`; ended early by SIGINT or SIGTERM (Interrupted) and by the controller's own failure."""
    with _stop_signal() as stopped:
        task = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(stopped.wait())
        try:
            others = {waiting} if controller is None else {waiting, controller}
            await asyncio.wait({task, *others}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if controller is not None and controller.done():
                controller.result()
            raise Interrupted("stopped")
        finally:
            for ours in (task, waiting):
                ours.cancel()
            await asyncio.gather(task, waiting, return_exceptions=True)


@contextmanager
def _stop_signal() -> Generator[asyncio.Event]:
    """An event that SIGINT and SIGTERM set, while the block is open."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        yield stopped
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
