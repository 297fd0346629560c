"""A process is its pid and the moment it started; a pid alone is nobody."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from graylift.adapters.server_process import UNKNOWN_END, ProcessId, end_of, find, send, spawn
from graylift.errors import DeployError

pytestmark = pytest.mark.real

Start = Callable[[str], ProcessId]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(code)` runs Python code, which is ended with the test."""
    started: list[ProcessId] = []

    def run(code: str) -> ProcessId:
        started.append(spawn((sys.executable, "-c", code), tmp_path / "log", os.environ))
        return started[-1]

    yield run
    for process in started:
        send(process, signal.SIGKILL)
        end(process)


def end(process: ProcessId) -> str:
    while (ended := end_of(process)) is None:
        time.sleep(0.005)
    return ended


SLEEPS = "import time; time.sleep(60)"


def test_a_running_process_has_no_end_and_takes_signals(start: Start) -> None:
    process = start(SLEEPS)
    assert end_of(process) is None
    send(process, signal.SIGTERM)
    assert end(process) == "was killed by SIGTERM"
    assert end_of(process) == UNKNOWN_END, "it was reaped, and its pid is free"


@pytest.mark.parametrize("difference", [{"start_ticks": 1}, {"boot": "another"}])
def test_a_process_that_started_at_another_moment_is_not_signalled(
    start: Start, difference: dict[str, int | str]
) -> None:
    process = start(SLEEPS)
    stranger = replace(process, **difference)  # type: ignore[arg-type]
    send(stranger, signal.SIGKILL)
    assert end_of(stranger) == UNKNOWN_END
    time.sleep(0.05)
    assert end_of(process) is None


def test_a_process_that_is_gone_is_not_signalled(start: Start) -> None:
    process = start("")
    assert end(process) == "exited with status 0"
    send(process, signal.SIGKILL)


def test_the_status_and_the_signal_are_told(start: Start) -> None:
    assert end(start("raise SystemExit(7)")) == "exited with status 7"
    killed = "import os, signal; os.kill(os.getpid(), signal.{})"
    assert end(start(killed.format("SIGABRT"))) == "was killed by SIGABRT"
    assert end(start(killed.format("SIGKILL"))).startswith("was killed by SIGKILL (by a person, or")
    assert end(start("import os; os.kill(os.getpid(), 40)")) == "was killed by signal 40"


def test_a_process_is_found_by_its_whole_command_alone(start: Start) -> None:
    code = f"{SLEEPS}  # {time.time_ns()}"
    process = start(code)
    while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.005)  # the kernel shows a new program a moment before its arguments
    assert find((sys.executable, "-c", code)) == process
    assert find((sys.executable, "-c")) is None
    assert find((sys.executable, "-c", code, "more")) is None


def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"cannot start /no/such/file with its log in .*: No such file"):
        spawn(("/no/such/file",), tmp_path / "log", {})
