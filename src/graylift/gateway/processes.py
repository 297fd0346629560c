"""Processes and ports of this machine, as /proc shows them: find, watch and end what was started earlier."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from graylift.errors import GatewayError


class WatchedProcess:
    """A process of this machine, our child or not, pinned so that its pid cannot come to mean another one.

    identity: pid and start time; no two processes of a machine share it
    """

    def __init__(self, pid: int) -> None:
        """ProcessLookupError if there is none of that pid."""
        self._pidfd = os.pidfd_open(pid)
        self.pid = pid
        try:
            self.identity = f"{pid}:{_stat(pid)[19]}"
        except OSError:
            os.close(self._pidfd)
            raise
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._end)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    async def wait(self) -> None:
        """Return when it has ended."""
        await self._ended.wait()

    def send(self, number: signal.Signals) -> None:
        if not self.ended:
            signal.pidfd_send_signal(self._pidfd, number)

    def release(self) -> None:
        """Watch it no longer; it runs on."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        with suppress(ChildProcessError):  # then it was started by an agent before us, and is buried by init
            os.waitpid(self.pid, os.WNOHANG)
        self._ended.set()


def find(*arguments: str) -> int | None:
    """Pid of the process of this user that has these arguments next to each other in its command line."""
    wanted = b"\0" + b"\0".join(os.fsencode(argument) for argument in arguments) + b"\0"
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and wanted in _read(folder / "cmdline") and not _is_dead(int(folder.name)):
            return int(folder.name)
    return None


def command_line(pid: int) -> tuple[str, ...]:
    """The command line of a process, empty if it is gone."""
    return tuple(os.fsdecode(part) for part in _read(Path(f"/proc/{pid}/cmdline")).split(b"\0")[:-1])


def require_free(host: str, port: int) -> None:
    """GatewayError, naming who holds it, if somebody listens on the port.

    Must be asked before Envoy starts: it binds with SO_REUSEPORT and would share the port with a second Envoy, each
    getting half of the connections.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise GatewayError(f"the gateway cannot listen on {host}:{port}: {exc.strerror}") from exc
            raise GatewayError(
                f"the gateway cannot listen on {host}:{port}: {_holder(port)} listens there already. "
                "End it, or let the gateway listen elsewhere (--listen)"
            ) from exc


def _holder(port: int) -> str:
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and inodes.intersection(_open_files(folder)):
            return f"process {folder.name} ({_read(folder / 'comm').decode(errors='replace').strip()})"
    return "another process"


def _open_files(folder: Path) -> Iterator[str]:
    with suppress(OSError):  # another user's process, or one that has just ended
        for link in (folder / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                yield os.readlink(link)


def _listening_inodes(port: int) -> list[str]:
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    fields = [row.split() for table in tables for row in _read(table).decode().splitlines()[1:]]
    return [row[9] for row in fields if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]


def _is_dead(pid: int) -> bool:
    try:
        return _stat(pid)[0] in ("Z", "X")
    except OSError:
        return True


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on, which is field 3 there."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
