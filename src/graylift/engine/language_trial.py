"""A trial of a language engine: how likely it takes given texts to be. Happens in the process that `__main__` is.

The other side is `checks/language_parity.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from graylift.engine.artefacts import ArtefactStore
from graylift.engine.language import LanguageSettings
from graylift.engine.load import load_language_engine
from graylift.errors import EngineError


def try_texts(artefacts: Path, artefact: str, texts: Path, most_tokens: int, threads: int) -> bytes:
    """texts: a file with a list of texts in JSON, of which each is cut to `most_tokens`. The line that
    `log_probabilities_from` reads. EngineError if the engine cannot be loaded, or gives no probabilities."""
    settings = LanguageSettings(threads, most_tokens + 1, max_streams=1)
    runner = load_language_engine(ArtefactStore(artefacts), artefact, settings)
    try:
        given: list[str] = orjson.loads(texts.read_bytes())
        found = [runner.log_probabilities(runner.tokens_from_text(text)[:most_tokens]) for text in given]
    finally:
        runner.close()
    return orjson.dumps(found)


def log_probabilities_from(line: bytes) -> Sequence[Sequence[float]]:
    """Of each token of each text but its first, in nats. EngineError if these are none."""
    try:
        found: list[list[float]] = orjson.loads(line)
        return [[float(value) for value in text] for text in found]
    except (orjson.JSONDecodeError, TypeError, ValueError) as exc:
        raise EngineError(f"the trial gave no probabilities but {line[:200].decode(errors='replace')!r}") from exc
