"""Server-sent events as OpenAI's servers use them: `data:` lines and blank ones. Bytes in, bytes out; no I/O.

Called by `serve/`, which writes them, and by those who read a server's stream.
"""

from __future__ import annotations

DONE = b"[DONE]"
CONTENT_TYPE = b"text/event-stream; charset=utf-8"


def event(data: bytes) -> bytes:
    """One event. `data` has no line breaks, as JSON has none."""
    return b"data: " + data + b"\n\n"


class EventReader:
    """The data of each event, from bytes cut anywhere. Comments and fields other than `data` are passed over."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that this chunk completes."""
        events: list[bytes] = []
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in (line.removesuffix(b"\r") for line in lines):
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events
