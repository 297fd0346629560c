"""What is wrong with a release file, and where: collected while it is read, shown all at once.

It must not know what a release is. The other modules of `spec/` add to it; people read its text.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import NoReturn

from graylift.errors import SpecError

MOST = 100
"""A file with more problems than this is not read on: nobody mends a hundred places in one go."""

UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""Characters that YAML forbids; a terminal might obey them, so they are not printed either."""

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_WIDEST = 160


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """line, column: from 1, in characters. width: how many of them to underline."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. `place` and `source` (its line) are absent when there is no text to point at."""

    file: str
    place: Place | None
    source: str
    what: str
    cure: str

    def __str__(self) -> str:
        if self.place is None:
            return f"{self.file}: {self.what}\n  {self.cure}"
        line, column = self.place.line, self.place.column
        start = max(0, column - 1 - _WIDEST // 2) if len(self.source) > _WIDEST else 0
        shown = UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", self.source[start : start + _WIDEST])
        before, marked = shown[: column - 1 - start], shown[column - 1 - start :][: self.place.width]
        indent = "".join("\t" if char == "\t" else " " * _columns(char) for char in before)
        caret = "^" * max(1, sum(map(_columns, marked)))
        gutter = " " * len(str(line))
        return (
            f"{self.file}:{line}:{column}: {self.what}\n"
            f"  {line} | {shown}\n"
            f"  {gutter} | {indent}{caret}\n"
            f"  {gutter} = {self.cure}"
        )


class Problems:
    """All problems of one file."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._lines = _LINE_BREAK.split(text)
        self._found: list[tuple[Place, Problem]] = []

    def add(self, place: Place, what: str, cure: str) -> None:
        """Note a problem. SpecError when it is one too many."""
        source = self._lines[place.line - 1] if place.line <= len(self._lines) else ""
        self._found.append((place, Problem(self._file, place, source, what, cure)))
        if len(self._found) >= MOST:
            self.raise_if_any()

    def fail(self, place: Place, what: str, cure: str) -> NoReturn:
        """Note a problem behind which nothing can be read, and raise all of them as SpecError."""
        self.add(place, what, cure)
        raise SpecError(self._in_order())

    def raise_if_any(self) -> None:
        """Raise what was found so far as SpecError, if anything was."""
        if self._found:
            raise SpecError(self._in_order())

    def _in_order(self) -> list[Problem]:
        return [problem for _, problem in sorted(self._found, key=lambda found: found[0])]


def _columns(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
