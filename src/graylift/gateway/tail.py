"""The access log read line by line, through rotation, truncation and restarts of the reader.

Where the reader stands is a value (`LogPosition`) that the agent keeps together with what it has counted so far. It
knows nothing of what the lines mean.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 1024 * 1024
"""As much is read at a time; a line longer than this is broken."""


@dataclass(frozen=True, slots=True)
class LogPosition:
    """All lines up to byte `offset` of the file with this inode were read. Inode 0: nothing was, of any file."""

    inode: int
    offset: int


@dataclass(frozen=True, slots=True)
class Lines:
    """What one reading gave.

    broken: pieces that are no whole line
    at_end: there was nothing more to read
    lost:   why lines may be missing before these, None if none are
    """

    lines: tuple[bytes, ...] = ()
    broken: int = 0
    at_end: bool = False
    lost: str | None = None


class LogReader:
    """Reads the log at `path` on from `position`, or from what is written from now on if that is None.

    Rotation is by renaming: `rotate` moves the log aside, the agent tells Envoy to open it anew, and the reader reads
    the old file to its end before it begins the new one. So it also survives being rotated by somebody else.
    """

    def __init__(self, path: Path, position: LogPosition | None) -> None:
        self._path = path
        self._aside = path.with_name(path.name + ".1")
        self._fd = -1
        self._inode = 0
        self._offset = 0
        self._lost: str | None = None
        if position is None:
            self._aside.unlink(missing_ok=True)
            if self._open():
                self._offset = os.fstat(self._fd).st_size
        elif not (self._open_if(self._aside, position) or self._open_if(path, position)) and position.inode:
            self._lost = f"{path.name} is not the file that was read before: it was deleted or replaced"

    @property
    def position(self) -> LogPosition:
        return LogPosition(self._inode, self._offset)

    @property
    def is_missing(self) -> bool:
        """Is there no file of that name, so that Envoy must be told to open one?"""
        return not self._path.exists()

    def read(self) -> Lines:
        """The next lines, up to CHUNK_BYTES of them."""
        lost, self._lost = self._lost, None
        if self._fd < 0 and not self._open():
            return Lines(at_end=True, lost=lost)
        size = os.fstat(self._fd).st_size
        if size < self._offset:
            lost = f"{self._path.name} was cut from {self._offset} to {size} bytes"
            self._offset = 0
        replaced = self._is_replaced()  # asked before reading: once there is a new file the old one gets no more lines
        chunk = os.pread(self._fd, CHUNK_BYTES, self._offset)
        end = chunk.rfind(b"\n") + 1
        if end:
            self._offset += end
            return Lines(tuple(chunk[: end - 1].split(b"\n")), lost=lost)
        if len(chunk) == CHUNK_BYTES:
            self._offset += len(chunk)
            return Lines(broken=1, lost=lost)
        if replaced:
            self._close()
            self._open()
            return Lines(broken=1 if chunk else 0, lost=lost)
        return Lines(at_end=True, lost=lost)

    def rotate(self, max_bytes: int) -> None:
        """Move the log aside if it is longer than `max_bytes` and nothing is moved aside already."""
        if (
            self._fd >= 0
            and os.fstat(self._fd).st_size > max_bytes
            and not self._aside.exists()
            and not self.is_missing
        ):
            self._path.rename(self._aside)

    def forget(self) -> None:
        """Delete the file that was moved aside, if it was read to its end. Only once the position is kept safely."""
        if self._aside.exists() and self._fd >= 0 and self._aside.stat().st_ino != self._inode:
            self._aside.unlink()

    def close(self) -> None:
        self._close()

    def _is_replaced(self) -> bool:
        # A pipe or device under this name is never read: it would block, or never end.
        return self._path.is_file() and self._path.stat().st_ino != self._inode

    def _open_if(self, path: Path, position: LogPosition) -> bool:
        if not path.is_file() or position.inode not in (0, path.stat().st_ino):
            return False
        self._fd = os.open(path, os.O_RDONLY)
        self._inode, self._offset = os.fstat(self._fd).st_ino, position.offset
        return True

    def _open(self) -> bool:
        if not self._path.is_file():
            return False
        self._fd = os.open(self._path, os.O_RDONLY)
        self._inode, self._offset = os.fstat(self._fd).st_ino, 0
        return True

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def end_line(path: Path) -> None:
    """End a line that a killed Envoy left half-written, so that its successor's first line stays whole."""
    if path.is_file():
        with path.open("r+b") as log:
            size = log.seek(0, os.SEEK_END)
            if size and os.pread(log.fileno(), 1, size - 1) != b"\n":
                log.write(b"\n")
