"""The parity check: the candidate's engine computes what its source model computes, and on request what stable does.

Building an engine fuses, reorders, lowers precision; most of that is harmless and some of it ruins a model without a
word. So the engine answers real samples, and made-up inputs at every promised shape, beside its own source as it is
stored. Called by `checklist`.

The limits where the release file names none (`_ERROR`, `_TEXT`) were measured: Magika v3_2 and v3_3 (probabilities of
214 types) on 96 files, PP-OCRv3 and v4 recognition (6,625 characters) on 24 drawn lines, SmolLM2-135M on 3,072 tokens.
Largest errors on those samples: fp32 1e-3 (OpenVINO; ONNX Runtime 3e-5); fp16 0.14; bf16 0.57 where 1 % of the choices
changed, and 1.0 where 10 % did; 8 bits from 0.09 (2 % changed) over 0.23 (none changed) to 2.9 (all changed). So an
error limit tells sound from unsound down to 16 bits; below, one probability that moves across a near tie is as large an
error as a ruined model's, and the share of equal choices has to tell, which takes real samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graylift.checks.build import Built
from graylift.checks.forced_text import LEAST_POSITIONS, Forced, forced, summed
from graylift.checks.inputs import Inputs, Question, inputs_of
from graylift.checks.language_parity import check_language_parity
from graylift.checks.samples import batch_of
from graylift.checks.trials import answers_of_engine
from graylift.checks.workplace import Workplace
from graylift.domain.engine import Manifest, Precision
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import GgufModel, OnnxModel, ParityCheck, ReleaseSpec, Skip, TensorName
from graylift.engine.trial import Answer
from graylift.errors import EngineError
from graylift.protocols.closeness import Closeness, closeness, merged
from graylift.protocols.datatypes import Tensor

CHECK = "parity"

_ERROR = {
    Precision.FP32: 0.01,
    Precision.FP16: 0.2,
    Precision.BF16: 0.75,
    Precision.INT8: 1.0,
    Precision.INT8_DYNAMIC: 1.0,
    Precision.INT4_WEIGHTS: 1.0,
}
"""maxRelativeError where none is named."""
_TEXT = {
    Precision.FP32: (1.001, 0.001),
    Precision.FP16: (1.002, 0.002),
    Precision.BF16: (1.005, 0.005),
    Precision.INT8: (1.02, 0.02),
    Precision.INT8_DYNAMIC: (1.02, 0.02),
    Precision.INT4_WEIGHTS: (1.05, 0.05),
}
"""(perplexity ratio, KL in nats) of decoders at most. Sound builds of SmolLM2 were at 1.000 and 8e-4 (bf16), 1.010 and
0.009 (8-bit weights); ruined ones at 1.2 and 0.27 and beyond, while their texts still read well."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One model of the comparison: `name` as people call it."""

    name: str
    model: OnnxModel
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class _Compared:
    """One output of one question, or of several under one label."""

    output: str
    label: str
    real: bool
    closeness: Closeness


async def check_parity(spec: ReleaseSpec, stable: Built, candidate: Built, workplace: Workplace) -> CheckResult:
    """Does the candidate's engine answer as its source does, within the limits?"""
    match spec.checks.parity:
        case Skip(reason):
            return CheckResult(CHECK, CheckOutcome.SKIPPED, f"not run: {reason}")
        case wanted:
            pass
    if isinstance(candidate.spec.model, GgufModel):
        return await check_language_parity(wanted, candidate.spec.model, candidate, workplace, CHECK)
    if not isinstance(candidate.spec.model, OnnxModel) or candidate.manifest is None:
        return _of_endpoint(wanted, candidate)
    side = _Side(candidate.spec.name, candidate.spec.model, candidate.manifest)
    try:
        inputs = await inputs_of(workplace, side.model, side.manifest, wanted.samples, side.name)
    except EngineError as error:
        return CheckResult(CHECK, CheckOutcome.INCONCLUSIVE, f"{side.name} has nothing to be compared with: {error}")
    except ValueError as error:
        return CheckResult(CHECK, CheckOutcome.INCONCLUSIVE, str(error))
    try:
        answers = await answers_of_engine(workplace, side.manifest, [question.case for question in inputs.questions])
    except EngineError as error:
        return CheckResult(CHECK, CheckOutcome.FAIL, f"{side.name}'s engine cannot be tried: {error}")
    with_source = _compare(side, wanted, inputs, answers)
    with_stable = await _against_stable(wanted, stable, side, inputs, answers, workplace)
    return _result(side, stable.spec.name, inputs, with_source, with_stable)


@dataclass(frozen=True, slots=True)
class _Findings:
    """wrong: what shows a difference; open: what could not be shown; good: what was; evidence: all of it in detail."""

    wrong: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    good: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()


def _compare(side: _Side, wanted: ParityCheck, inputs: Inputs, answers: Sequence[Answer]) -> _Findings:
    """The engine's answers with its source's."""
    wrong: list[str] = []
    compared: list[_Compared] = []
    texts: list[Forced] = []
    served = _served_outputs(side.model.outputs)
    for question, answer in zip(inputs.questions, answers, strict=True):
        if answer.outputs is None:
            wrong.append(f"its engine cannot run what its source can ({question.label}): {answer.failure}")
            continue
        for name, reference in question.outputs.items():
            try:
                result = closeness(reference, answer.outputs[name], batch_of(question.case))
            except ValueError as error:
                wrong.append(f"its engine gives {served.get(name, name)!r} of {error} ({question.label})")
                continue
            compared.append(_Compared(served.get(name, name), question.label, question.real, result))
        text = _text_of(side.model, question, answer.outputs)
        if text is not None:
            texts.append(text)
    text = summed(texts)
    decoder = text.positions + text.broken >= LEAST_POSITIONS
    limit = _ERROR[side.model.precision] if wanted.max_relative_error is None else wanted.max_relative_error
    # A decoder's logits are judged along the text, where it counts; all else by the size of the error.
    logits = served.get(_logits(side.model), _logits(side.model))
    sized = [c for c in compared if not (decoder and c.real and c.output == logits)]
    findings = [_broken(compared), _errors(sized, limit)]
    if decoder:
        findings.append(_along_the_text(text, side.model.precision))
    else:
        findings.append(_choices(compared, wanted.min_top1_agreement))
    wrong += [sentence for finding in findings for sentence in finding.wrong]
    return _Findings(
        wrong=tuple(wrong),
        open=tuple(sentence for finding in findings for sentence in finding.open),
        good=tuple(sentence for finding in findings for sentence in finding.good),
        evidence=(
            *(line for finding in findings for line in finding.evidence),
            *(_line(c) for c in _by_output(compared)),
        ),
    )


def _broken(compared: Sequence[_Compared]) -> _Findings:
    broken = [c for c in compared if c.closeness.broken]
    if not broken:
        return _Findings()
    worst = max(broken, key=lambda c: c.closeness.broken)
    shown = (
        f"{worst.closeness.broken} elements of {worst.output!r} are NaN or infinite where its source gives numbers "
        f"({worst.label}; {len(broken)} of {len(compared)} comparisons have such)"
    )
    return _Findings(wrong=(shown,))


def _errors(compared: Sequence[_Compared], limit: float) -> _Findings:
    if not compared:
        return _Findings()
    worst = max(compared, key=lambda c: c.closeness.max_error)
    found = worst.closeness.max_error
    shown = f"largest error {found:.2g} of {worst.output!r} ({worst.label}), limit {limit:g}"
    return _Findings(wrong=(shown,)) if found > limit else _Findings(good=(shown,))


def _choices(compared: Sequence[_Compared], limit: float) -> _Findings:
    """The share of equal choices, of the output that has the lowest: on real samples if there are any."""
    real = any(c.real for c in compared)
    of_outputs = [c for c in _merged([c for c in compared if c.real or not real]) if c.closeness.rows]
    if not of_outputs:
        return _Findings()
    worst = min(of_outputs, key=lambda c: c.closeness.agreement or 0.0)
    share = worst.closeness.agreement or 0.0
    shown = (
        f"{worst.closeness.agreeing:,} of {worst.closeness.rows:,} choices of {worst.output!r} agree ({share:.2%}), at "
        f"least {limit:.2%}"
    )
    if share >= limit:
        return _Findings(good=(shown,))
    if real:
        return _Findings(wrong=(shown,))
    return _Findings(
        open=(f"on made-up inputs, {shown}. Name real ones (`samples`) under checks.parity: they decide",),
    )


def _along_the_text(text: Forced, precision: Precision) -> _Findings:
    most_ratio, most_divergence = _TEXT[precision]
    if text.broken:
        return _Findings(wrong=(f"at {text.broken:,} of {text.positions + text.broken:,} tokens it gives no logits",))
    ratio, divergence = text.perplexity_ratio or 0.0, text.mean_divergence or 0.0
    shown = (
        f"perplexity {(text.perplexity or 0.0) * ratio:.3f} is {ratio:.4f}x its source's {text.perplexity:.3f}, limit "
        f"{most_ratio:g}x, and KL {divergence:.2g}, limit {most_divergence:g} (n={text.positions:,} tokens)"
    )
    evidence = (f"forced text: {text.top1:,} of {text.positions:,} tokens have the same most likely next one",)
    if ratio > most_ratio or divergence > most_divergence:
        return _Findings(wrong=(shown,), evidence=evidence)
    return _Findings(good=(shown,), evidence=evidence)


async def _against_stable(
    wanted: ParityCheck,
    stable: Built,
    side: _Side,
    inputs: Inputs,
    answers: Sequence[Answer],
    workplace: Workplace,
) -> _Findings:
    """Does the candidate choose as stable does? Only if the release file asks."""
    limit = wanted.min_stable_agreement
    if limit is None:
        return _Findings()
    name = stable.spec.name
    if not isinstance(stable.spec.model, OnnxModel) or stable.manifest is None:
        return _Findings(open=(f"{name} runs elsewhere already and is not tried here; delete minStableAgreement",))
    cases = [question.case for question in inputs.questions if question.real or not inputs.real]
    ours = [a for q, a in zip(inputs.questions, answers, strict=True) if q.real or not inputs.real]
    to_stable = _renaming(side.model.inputs, stable.spec.model.inputs)
    try:
        theirs = await answers_of_engine(
            workplace,
            stable.manifest,
            [{to_stable.get(own, own): tensor for own, tensor in case.items()} for case in cases],
        )
    except EngineError as error:
        return _Findings(open=(f"{name}'s engine cannot be tried: {error}",))
    from_stable = _renaming(stable.spec.model.outputs, side.model.outputs)
    served = _served_outputs(side.model.outputs)
    compared: list[_Compared] = []
    for case, mine, other in zip(cases, ours, theirs, strict=True):
        if mine.outputs is None or other.outputs is None:
            continue
        for own, tensor in other.outputs.items():
            output = from_stable.get(own, own)
            if output in mine.outputs and mine.outputs[output].shape == tensor.shape:
                result = closeness(tensor, mine.outputs[output], batch_of(case))
                compared.append(_Compared(served.get(output, output), "", True, result))
    of_outputs = [c for c in _merged(compared) if c.closeness.rows]
    if not of_outputs:
        return _Findings(open=(f"no output of {name} chooses anything that could agree; delete minStableAgreement",))
    worst = min(of_outputs, key=lambda c: c.closeness.agreement or 0.0)
    share = worst.closeness.agreement or 0.0
    shown = (
        f"{worst.closeness.agreeing:,} of {worst.closeness.rows:,} choices of {worst.output!r} are {name}'s "
        f"({share:.2%}), at least {limit:.2%}"
    )
    evidence = tuple(f"against {name}: {_line(c)}" for c in of_outputs)
    if share >= limit:
        return _Findings(good=(shown,), evidence=evidence)
    return _Findings(wrong=(shown,), evidence=evidence)


def _result(side: _Side, stable: str, inputs: Inputs, source: _Findings, versions: _Findings) -> CheckResult:
    """Of the comparison with its source, and of that with stable."""
    name = f"{side.name} at {side.model.precision.value}"
    evidence = (*source.evidence, *versions.evidence, *inputs.evidence)
    parts: list[str] = []
    if source.wrong:
        parts.append(f"{name} does not compute what its source computes: {'; '.join(source.wrong)}")
    if versions.wrong:
        parts.append(f"{side.name} does not answer as {stable} does: {'; '.join(versions.wrong)}")
    if parts:
        return CheckResult(CHECK, CheckOutcome.FAIL, f"{'; '.join(parts)} ({inputs.counted})", evidence)
    if unsure := (*inputs.open, *source.open):
        parts.append(f"whether {name} computes what its source computes is not shown: {'; '.join(unsure)}")
    if versions.open:
        parts.append(f"whether {side.name} answers as {stable} does is not shown: {'; '.join(versions.open)}")
    if parts:
        return CheckResult(CHECK, CheckOutcome.INCONCLUSIVE, f"{'; '.join(parts)} ({inputs.counted})", evidence)
    sentence = f"{name} computes what its source computes: {'; '.join((*source.good, *versions.good))}"
    return CheckResult(CHECK, CheckOutcome.PASS, f"{sentence} ({inputs.counted})", evidence)


def _of_endpoint(wanted: ParityCheck, candidate: Built) -> CheckResult:
    name = candidate.spec.name
    if wanted == ParityCheck():
        sentence = f"not run: {name} runs elsewhere already, and what it was made from is not known here"
        return CheckResult(CHECK, CheckOutcome.SKIPPED, sentence)
    sentence = (
        f"{name} runs elsewhere already, and what it was made from is not known here: it cannot be compared as the "
        'release file asks; write checks.parity: {skip: "why"}'
    )
    return CheckResult(CHECK, CheckOutcome.INCONCLUSIVE, sentence)


def _merged(compared: Sequence[_Compared]) -> list[_Compared]:
    """Each output once."""
    outputs = dict.fromkeys(c.output for c in compared)
    return [
        _Compared(output, "", True, merged([c.closeness for c in compared if c.output == output])) for output in outputs
    ]


def _by_output(compared: Sequence[_Compared]) -> list[_Compared]:
    """One entry for each output and point: the batches of real samples count as one point."""
    found: list[_Compared] = []
    for output in dict.fromkeys(c.output for c in compared):
        real = [c.closeness for c in compared if c.output == output and c.real]
        if real:
            found.append(_Compared(output, "samples", True, merged(real)))
        found += [c for c in compared if c.output == output and not c.real]
    return found


def _line(compared: _Compared) -> str:
    of = compared.closeness
    where = f"{compared.output!r}, {compared.label}" if compared.label else f"{compared.output!r}"
    choices = "" if not of.rows else f", choices {of.agreeing:,}/{of.rows:,}"
    broken = f", NaN or infinite {of.broken:,}" if of.broken else ""
    return (
        f"{where}: error max {of.max_error:.2g} mean {of.mean_error:.2g}, cosine {of.cosine:.6f}{choices}{broken}, "
        f"n={of.samples}"
    )


def _text_of(model: OnnxModel, question: Question, outputs: Mapping[str, Tensor]) -> Forced | None:
    """How the two go along the text of a real sample, if the model is a decoder: input_ids in, logits out."""
    own_inputs = {name.served: name.own for name in model.inputs}
    tokens = question.case.get(own_inputs.get("input_ids", "input_ids"))
    mask = question.case.get(own_inputs.get("attention_mask", "attention_mask"))
    logits = _logits(model)
    if not question.real or tokens is None or logits not in outputs:
        return None
    reference, given = question.outputs[logits], outputs[logits]
    if mask is not None and mask.shape != tokens.shape:
        mask = None
    if tokens.ndim != 2 or reference.ndim != 3 or reference.shape[:2] != tokens.shape or given.shape != reference.shape:
        return None
    return forced(tokens, mask, reference, given)


def _logits(model: OnnxModel) -> str:
    """The model's own name of what is served as a decoder's logits."""
    return {name.served: name.own for name in model.outputs}.get("logits", "logits")


def _served_outputs(names: Sequence[TensorName]) -> dict[str, str]:
    return {name.own: name.served for name in names}


def _renaming(of: Sequence[TensorName], to: Sequence[TensorName]) -> dict[str, str]:
    """One model's own names -> another's, both serving the same names."""
    own = {name.served: name.own for name in to}
    pairs = {name.own: own.get(name.served, name.served) for name in of}
    return {served: name for served, name in own.items() if served not in pairs} | pairs
