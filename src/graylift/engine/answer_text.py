"""Tokens of an answer into text that may be shown: whole characters, and nothing of a text that ends the answer.

A token may be a piece of a character, and a stop text may begin in one token and end in another; so text is withheld
until it is certain. Pure. Called by the runtimes that give tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER = 4
"""Tokens that one character may take: it has at most four bytes. Beyond it the model wrote bytes that are no text."""


class AnswerText:
    """The text of one answer, as its tokens come. decode: tokens -> text, with U+FFFD for what is no character."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = stop
        self._tokens: list[int] = []
        self._context = 0
        """Where the decoder starts: some tokens are written differently at the beginning of a text."""
        self._told = 0
        self._held = ""
        self.stopped = False
        """A stop text came: nothing more will be given."""

    def add(self, tokens: Sequence[int]) -> str:
        """What may be shown now."""
        return "".join(map(self._with, tokens))

    def _with(self, token: int) -> str:
        """One by one: how long a character may be waited for depends on where it began."""
        if self.stopped:
            return ""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._context : self._told])
        now = self._decode(self._tokens[self._context :])
        if now.endswith(_BROKEN) and len(self._tokens) - self._told < _LONGEST_CHARACTER:
            return ""
        self._context, self._told = self._told, len(self._tokens)
        self._held += now[len(before) :]
        return self._released()

    def end(self) -> str:
        """The rest, once no more tokens come."""
        if self.stopped:
            return ""
        before = self._decode(self._tokens[self._context : self._told])
        self._held += self._decode(self._tokens[self._context :])[len(before) :]
        self._context = self._told = len(self._tokens)
        text = self._released()
        if self.stopped:
            return text
        text, self._held = text + self._held, ""
        return text

    def _released(self) -> str:
        places = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            text, self._held = self._held[: min(places)], ""
            return text
        kept = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - kept
        text, self._held = self._held[:cut], self._held[cut:]
        return text


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` may be the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
