"""The concurrency check: several inferences at once give what the same inferences give one after the other.

An engine that shares memory between contexts where it must not, mixes answers up under load and never in a test of one
request at a time. Called by `checklist`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graylift.checks.build import Built
from graylift.checks.inputs import Question, inputs_of
from graylift.checks.samples import batch_of
from graylift.checks.trials import answers_of_engine
from graylift.checks.workplace import Workplace
from graylift.domain.engine import Precision, Runtime
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import GgufModel, OnnxModel, ParityCheck, ReleaseSpec, Skip
from graylift.engine.trial import Answer
from graylift.errors import EngineError
from graylift.protocols.closeness import closeness

CHECK = "concurrency"

_EXACT = frozenset({Runtime.ONNXRUNTIME})
"""They add in a fixed order, so that equal inputs give equal bits. The others may choose another kernel, or another
order of adding, while a second inference runs."""
_REORDERED = {Precision.FP32: 1e-4}
_REORDERED_LOWERED = 2e-2
"""What another order of adding may make of an element, relative to the largest of its output and sample: some hundred
roundings, which are larger where numbers have fewer bits. A mixed-up answer is off by about 1."""
_MOST_QUESTIONS = 16
_MOST_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class _Difference:
    output: str
    context: int
    label: str
    error: float


async def check_concurrency(spec: ReleaseSpec, stable: Built, candidate: Built, workplace: Workplace) -> CheckResult:
    """Does the candidate's engine give the same answers to several at once as to one?"""
    del stable
    match spec.checks.concurrency:
        case Skip(reason):
            return CheckResult(CHECK, CheckOutcome.SKIPPED, f"not run: {reason}")
        case wanted:
            contexts = wanted.contexts
    name, model, manifest = candidate.spec.name, candidate.spec.model, candidate.manifest
    if isinstance(model, GgufModel):
        sentence = f"not run: {name} writes all its answers in one loop, and boundary asks for several at once"
        return CheckResult(CHECK, CheckOutcome.SKIPPED, sentence)
    if not isinstance(model, OnnxModel) or manifest is None:
        return CheckResult(
            CHECK, CheckOutcome.SKIPPED, f"not run: {name} runs elsewhere already, with its own contexts"
        )
    samples = spec.checks.parity.samples if isinstance(spec.checks.parity, ParityCheck) else None
    try:
        inputs = await inputs_of(workplace, model, manifest, samples, name)
    except (EngineError, ValueError) as error:
        return CheckResult(CHECK, CheckOutcome.INCONCLUSIVE, f"{name} cannot be asked several things at once: {error}")
    questions = _few(inputs.questions, contexts)
    try:
        answers = await answers_of_engine(workplace, manifest, [q.case for q in questions], contexts)
    except EngineError as error:
        sentence = f"{name}'s engine does not survive {contexts} inferences at once: {error}"
        return CheckResult(CHECK, CheckOutcome.FAIL, sentence)
    limit = 0.0 if manifest.runtime in _EXACT else _REORDERED.get(manifest.precision, _REORDERED_LOWERED)
    alone, at_once = answers[: len(questions)], answers[len(questions) :]
    problems, differences = _compared(questions, alone, at_once)
    wrong = problems + [
        f"{d.output!r} differs by {d.error:.2g} of its largest magnitude (context {d.context}, {d.label})"
        for d in differences
        if d.error > limit
    ]
    allowed = "bit by bit" if limit == 0.0 else f"within {limit:g} of the largest magnitude"
    count = f"{len(questions)} inferences in each of {contexts} contexts"
    if wrong:
        sentence = f"{name} answers {contexts} at once otherwise than one after the other, not {allowed}: {wrong[0]}"
        return CheckResult(CHECK, CheckOutcome.FAIL, f"{sentence} ({len(wrong)} differ; {count})", tuple(wrong))
    worst = max((d.error for d in differences), default=0.0)
    evidence = (f"largest difference {worst:.2g}", f"asked: {inputs.counted}")
    sentence = f"{name} answers {contexts} at once as it answers one after the other, {allowed} ({count})"
    return CheckResult(CHECK, CheckOutcome.PASS, sentence, evidence)


def _few(questions: Sequence[Question], contexts: int) -> tuple[Question, ...]:
    """As many as fit: each is answered once alone and once in each context, and all answers are kept."""
    kept: list[Question] = []
    room = _MOST_BYTES
    for question in sorted(questions, key=_size):
        room -= _size(question) * (1 + contexts)
        if len(kept) == _MOST_QUESTIONS or (kept and room < 0):
            break
        kept.append(question)
    return tuple(kept)


def _size(question: Question) -> int:
    return sum(tensor.nbytes for tensor in question.outputs.values())


def _compared(
    questions: Sequence[Question], alone: Sequence[Answer], at_once: Sequence[Answer]
) -> tuple[list[str], list[_Difference]]:
    """What failed only at once, and how far each output is from the one given alone. An inference that fails alone,
    too, is a matter of parity."""
    problems: list[str] = []
    differences: list[_Difference] = []
    for number, answer in enumerate(at_once):
        context, place = divmod(number, len(questions))
        question, expected = questions[place], alone[place].outputs
        if expected is None:
            continue
        if answer.outputs is None:
            problems.append(f"it fails (context {context + 1}, {question.label}): {answer.failure}")
            continue
        for output, tensor in expected.items():
            given = answer.outputs[output]
            if tensor.shape == given.shape and np.array_equal(tensor, given, equal_nan=tensor.dtype.kind == "f"):
                differences.append(_Difference(output, context + 1, question.label, 0.0))
                continue
            try:
                close = closeness(tensor, given, batch_of(question.case))
            except ValueError as error:
                problems.append(f"{output!r} is of {error} (context {context + 1}, {question.label})")
                continue
            # What is no float, or no number, is the same or it is not.
            error_of = close.max_error if tensor.dtype.kind == "f" and not close.broken else 1.0
            differences.append(_Difference(output, context + 1, question.label, error_of))
    return problems, differences
