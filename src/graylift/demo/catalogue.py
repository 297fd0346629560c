"""What the demo has to offer, in words: for `graylift demo --help`, which must not wait for numpy and onnx."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Entry:
    """One scenario as people see it."""

    name: str
    title: str
    what: str


FILE_TYPES = Entry(
    "file-types",
    "File types",
    "Magika's file type model, standard_v3_2 -> standard_v3_3, on files of this machine. The bad candidate is "
    "an optimised build that fails on short files.",
)
CONTAINER_NUMBERS = Entry(
    "container-numbers",
    "Container numbers",
    "PP-OCR text recognition, v3 -> v4, on drawn freight container numbers, whose check digit scores every "
    "answer. The bad candidate is an export that does four times the work.",
)
LLM = Entry(
    "llm",
    "Language model",
    "SmolLM2-135M on this processor, 16-bit -> 8-bit weights, in streamed chats. The bad candidates are a 4-bit build, "
    "which reads a third worse and is rejected, and a server that writes one answer at a time, in 16 bits again.",
)
ENTRIES = (FILE_TYPES, CONTAINER_NUMBERS, LLM)
"""The first one is the default."""


class Variant(Enum):
    """The releases of a scenario; see `demo.scenario.Prepared`."""

    GOOD = "good"
    BAD = "bad"
    SLOW = "slow"
    SAME = "same"
