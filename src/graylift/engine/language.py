"""What every language engine looks like once it is loaded, and which module stands for which runtime.

A runtime keeps its own loop and its own thread: it takes prompts at any moment, writes many answers at once, and tells
each piece as it comes. A new one is a member of `Runtime`, a module beside `openvino_genai_runtime`, and a case here.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from graylift.domain.engine import Manifest, Runtime
from graylift.errors import EngineError
from graylift.protocols.language import Message, Piece, Sampling


@dataclass(frozen=True, slots=True)
class LanguageSettings:
    """How an engine is run: see `GgufModel`."""

    threads: int
    context_length: int
    max_streams: int


Tell = Callable[[Piece | EngineError], None]
"""Called in the engine's thread, in order; the last call has a `finish` or is an error. It must return at once."""


class Answering(Protocol):
    """One answer on its way."""

    def cancel(self) -> None:
        """Nobody wants it any more: it ends soon, and nothing more is told. From any thread; harmless when over."""
        ...


class LanguageRunner(Protocol):
    """A loaded language engine. All may be called from any thread."""

    @property
    def running(self) -> int:
        """Answers being written."""
        ...

    @property
    def waiting(self) -> int:
        """Answers that wait for a free stream."""
        ...

    @property
    def failure(self) -> str | None:
        """Why it cannot be used any more; None while it can."""
        ...

    @property
    def vocabulary(self) -> int:
        """Tokens are from 0 up to below this."""
        ...

    @property
    def longest_token_bytes(self) -> int:
        """A text of n bytes has at least n / this many tokens."""
        ...

    def prompt_from_messages(self, messages: Sequence[Message]) -> str:
        """By the model's chat template, ready for the answer. InputError if it refuses them."""
        ...

    def tokens_from_text(self, text: str) -> list[int]:
        """InputError if the text cannot be told in tokens."""
        ...

    def answer(self, prompt: Sequence[int], sampling: Sampling, tell: Tell) -> Answering:
        """Begin an answer, or let it wait. prompt and max_tokens together must be within the context length."""
        ...

    def log_probabilities(self, tokens: Sequence[int]) -> list[float]:
        """Of each token but the first, given all before it; in nats. EngineError if they cannot be had."""
        ...

    def close(self) -> None:
        """End the thread; what is being written ends with an error."""
        ...


class LanguageVendor(Protocol):
    """Stateless; implemented by modules."""

    def versions(self) -> tuple[tuple[str, str], ...]:
        """(package, version) of the runtime and what it needs, ascending by name."""
        ...

    def why_not_here(self, manifest: Manifest) -> str | None:
        """As `Vendor.why_not_here`."""
        ...

    def load(self, engine: Path, manifest: Manifest | None, settings: LanguageSettings) -> LanguageRunner:
        """manifest: None while it is being built. EngineError if the runtime refuses the file."""
        ...


def language_vendor_of(runtime: Runtime) -> LanguageVendor:
    """The module of a runtime, imported now. EngineError with the install command if the runtime is not there."""
    if runtime is not Runtime.OPENVINO_GENAI:
        raise EngineError(f"{runtime.value} runs no language models; write openvino-genai")
    try:
        from graylift.engine import openvino_genai_runtime
    except ImportError as exc:
        cure = f"pip install {shlex.quote('graylift[llm]')}"  # a shell would take brackets for a pattern
        raise EngineError(f"the runtime {runtime.value} cannot be imported ({exc}); install it with: {cure}") from exc
    return openvino_genai_runtime
