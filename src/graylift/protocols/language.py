"""What a language model is asked and what it answers, whatever protocol carries it, whatever runtime writes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, and when to end.

    max_tokens:  written at most; None: as many as the context has room for
    temperature: 0 takes the likeliest token always
    top_p:       the likeliest tokens that have this probability together are drawn from
    seed:        equal seeds draw equally; None draws anew
    stop:        texts that end the answer, and are no part of it
    presence_penalty, frequency_penalty: taken from the logit of a token that was written, once and for each time
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


class Finish(Enum):
    """Why an answer ended: the model or a stop text ended it, or there was no more room."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer. tokens: written since the piece before it, those of withheld text included;
    finish: None unless it is the last one"""

    text: str
    tokens: int
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a prompt and of its answer."""

    prompt: int
    answer: int
