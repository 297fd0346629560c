"""The parity check of language models: an engine's packing and its runtime cost no more than they must.

Texts that two models write part ways at the first near tie, which says nothing of either. So both read one text, and
are asked at each token how likely the next one is: the perplexity, exp(mean of -log p), is how many tokens a model
wavers between, and the ratio of two is what a change costs. The reference is the candidate's own source in 16 bits, run
by the same runtime; the text comes with Python: its own documentation, technical English that every machine has.

The runtime tells the probability of the text's own tokens alone, so neither KL nor the most likely token can be
compared; how many tokens became half as likely or less is shown as evidence. Called by `parity`.

Measured with SmolLM2-135M, which comes in Q4_1, on four texts: Q8_0 1.01, Q4_0 1.3, and the file as it comes 1.25: this
runtime makes whole numbers of Q4_1's minima when it loads them, and its answers still read well.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pydoc_data import topics

import orjson

from graylift.checks.build import Built
from graylift.checks.trials import said_by_engine
from graylift.checks.workplace import Workplace
from graylift.domain.engine import GgufSpec, Manifest, Packing
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import GgufModel, ParityCheck
from graylift.engine.child import build_engine
from graylift.engine.language_trial import log_probabilities_from
from graylift.errors import EngineError

_LIMIT = {
    Packing.F16: 1.002,
    Packing.Q8_0: 1.02,
    Packing.Q4_1: 1.05,
    Packing.Q4_0: 1.05,
    Packing.AS_STORED: 1.05,
}
"""Perplexity ratio at most. Sound packings of larger models lie well below; these are for small ones, which suffer
more."""
_TOPICS = ("assignment", "import", "lambda", "exceptions", "with")
_TOKENS = 320
"""Of each text."""
_Z = 1.96


@dataclass(frozen=True, slots=True)
class _Compared:
    """reference, given: nats, mean of -log p; difference: of their means, with its standard error; n: tokens;
    halved: tokens that became half as likely or less"""

    reference: float
    given: float
    error: float
    n: int
    halved: int

    @property
    def ratio(self) -> float:
        return math.exp(self.given - self.reference)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, as if tokens were independent; they nearly are, given the text before them."""
        difference = self.given - self.reference
        return math.exp(difference - _Z * self.error), math.exp(difference + _Z * self.error)


async def check_language_parity(
    wanted: ParityCheck, model: GgufModel, candidate: Built, workplace: Workplace, check: str
) -> CheckResult:
    """Is the candidate's engine as good a reader as its source?"""
    name = f"{candidate.spec.name} in {model.packing.value}"
    manifest = candidate.manifest
    assert manifest is not None, "a model that was built has a manifest"
    if wanted != ParityCheck():
        sentence = (
            f"{candidate.spec.name} is a language model and is compared by its perplexity: samples and limits of "
            'tensors mean nothing to it; delete them under checks.parity, or write {skip: "why"}'
        )
        return CheckResult(check, CheckOutcome.INCONCLUSIVE, sentence)
    try:
        given = await _read(workplace, manifest, model.threads)
    except EngineError as error:
        return CheckResult(check, CheckOutcome.FAIL, f"{name} cannot be tried: {error}")
    perplexity, n = _perplexity(given)
    vocabulary = manifest.language.vocabulary if manifest.language is not None else 0
    if not perplexity < vocabulary / 10:
        sentence = f"{name} has not learnt its language: perplexity {perplexity:,.0f} of {vocabulary:,} tokens"
        return CheckResult(check, CheckOutcome.FAIL, sentence)
    if model.packing is Packing.F16:
        sentence = (
            f"not compared: in 16 bits {candidate.spec.name} is what packings are compared with "
            f"(perplexity {perplexity:.2f}, n={n:,} tokens)"
        )
        return CheckResult(check, CheckOutcome.SKIPPED, sentence)
    try:
        in_16_bits = GgufSpec(model.gguf, model.runtime, Packing.F16, model.chat_template)
        source = await build_engine(in_16_bits, workplace.artefacts)
        reference = await _read(workplace, source, model.threads)
    except EngineError as error:
        sentence = f"{name} has nothing to be compared with: {error}"
        return CheckResult(check, CheckOutcome.INCONCLUSIVE, sentence)
    if [len(text) for text in reference] != [len(text) for text in given]:
        return CheckResult(check, CheckOutcome.FAIL, f"{name} divides a text into other tokens than its source")
    return _result(check, name, model.packing, _compared(reference, given), source)


def _result(check: str, name: str, packing: Packing, compared: _Compared, source: Manifest) -> CheckResult:
    limit = _LIMIT[packing]
    low, high = compared.interval
    shown = (
        f"perplexity {math.exp(compared.given):.2f} is {compared.ratio:.3f}x its source's "
        f"{math.exp(compared.reference):.2f} in 16 bits (95 %: {low:.3f}x to {high:.3f}x, limit {limit:g}x, "
        f"n={compared.n:,} tokens)"
    )
    evidence = (
        f"reference: engine {source.digest[:12]}, the source in f16 by {source.runtime.value}",
        f"{compared.halved:,} of {compared.n:,} tokens became half as likely or less",
        f"texts: Python's own documentation of {', '.join(_TOPICS)}, {_TOKENS} tokens each at most",
        "KL and the most likely tokens: not told by this runtime",
    )
    if compared.ratio <= limit:
        sentence = f"{name} reads as its source does: {shown}"
        return CheckResult(check, CheckOutcome.PASS, sentence, evidence)
    if low <= limit:
        sentence = f"whether {name} reads as its source does is not shown: {shown}"
        return CheckResult(check, CheckOutcome.INCONCLUSIVE, sentence, evidence)
    return CheckResult(check, CheckOutcome.FAIL, f"{name} does not read as its source does: {shown}", evidence)


async def _read(workplace: Workplace, manifest: Manifest, threads: int) -> Sequence[Sequence[float]]:
    file = workplace.scratch / "texts.json"
    await asyncio.to_thread(file.write_bytes, orjson.dumps([_text(topic) for topic in _TOPICS]))
    options = ("--texts", str(file), "--tokens", str(_TOKENS), "--threads", str(threads))
    try:
        return log_probabilities_from(await said_by_engine(workplace, "read", manifest, options))
    finally:
        file.unlink(missing_ok=True)


def _text(topic: str) -> str:
    found: str = topics.topics[topic]
    return found[: 8 * _TOKENS]  # a token has some four characters here; more would be cut off


def _perplexity(texts: Sequence[Sequence[float]]) -> tuple[float, int]:
    values = [value for text in texts for value in text]
    return math.exp(min(700.0, -statistics.fmean(values))), len(values)


def _compared(reference: Sequence[Sequence[float]], given: Sequence[Sequence[float]]) -> _Compared:
    one = [value for text in reference for value in text]
    other = [value for text in given for value in text]
    losses = [a - b for a, b in zip(one, other, strict=True)]
    return _Compared(
        reference=-statistics.fmean(one),
        given=-statistics.fmean(other),
        error=statistics.stdev(losses) / math.sqrt(len(losses)),
        n=len(losses),
        halved=sum(loss >= math.log(2) for loss in losses),
    )
