"""One operating system process that outlives whoever started it: start, recognise, signal, and tell how it ended.

A pid alone names nothing: it is given away again. So a process is its pid and the moment it started, and nothing is
sent to a pid whose moment differs. It knows nothing of revisions or ports; `processes` calls it. Linux only (/proc).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graylift.errors import DeployError

UNKNOWN_END = "ended while no controller watched, so its exit status is not known"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """start_ticks: clock ticks from the boot of the machine to its start; boot: which boot that was."""

    pid: int
    start_ticks: int
    boot: str


def spawn(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> ProcessId:
    """Start `command` in a session of its own, without stdin, appending all that it says to `log`.

    DeployError if there is no such command or no such log. What ends later is told by `end_of`.
    """
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        # Not subprocess or asyncio: both tie the life of the child, or of its pipes, to an object of ours.
        pid = os.posix_spawn(
            command[0],
            tuple(command),
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores these and would hand that down
        )
    except OSError as error:
        raise DeployError(f"cannot start {command[0]} with its log in {log}: {error.strerror}") from error
    stat = _stat(pid)
    assert stat is not None, "a child that nobody waited for has an entry in /proc, ended or not"
    return ProcessId(pid, stat.start_ticks, _boot())


def find(command: Sequence[str]) -> ProcessId | None:
    """The process that runs exactly this command line, None if none does."""
    wanted = b"".join(os.fsencode(word) + b"\0" for word in command)
    for entry in Path("/proc").iterdir():
        # Processes come and go while we look.
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry / "cmdline").read_bytes() == wanted:
                stat = _stat(int(entry.name))
                if stat is not None:
                    return ProcessId(int(entry.name), stat.start_ticks, _boot())
    return None


def end_of(process: ProcessId) -> str | None:
    """How it ended, in words; None while it runs. A child of ours that ended is reaped, and tells this only once."""
    stat = _stat(process.pid)
    if stat is None or stat.start_ticks != process.start_ticks or _boot() != process.boot:
        return UNKNOWN_END
    if not stat.is_zombie:
        return None
    try:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:  # somebody else's child, whom its parent has not reaped yet
        return UNKNOWN_END
    return _said(os.waitstatus_to_exitcode(status)) if pid else None


def send(process: ProcessId, number: signal.Signals) -> None:
    """Signal exactly this process; nothing happens if it has ended, even when its pid lives on as another one."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # The handle holds the pid's present owner; checked after opening, nobody can slip in between.
        stat = _stat(process.pid)
        if stat is not None and stat.start_ticks == process.start_ticks and _boot() == process.boot:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class _Stat:
    is_zombie: bool
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the second field, the command in parentheses, may hold anything; state is the 3rd, starttime the 22nd.
    fields = text.rpartition(")")[2].split()
    return _Stat(is_zombie=fields[0] in "ZX", start_ticks=int(fields[19]))


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _said(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exited with status {exit_code}"
    name = signal.Signals(-exit_code).name if -exit_code in list(signal.Signals) else f"signal {-exit_code}"
    why = " (by a person, or because the machine ran out of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{why}"
