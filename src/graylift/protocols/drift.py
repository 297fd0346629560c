"""How far the candidate's answer to a request is from stable's: two answers in, one `Comparison` out.

It judges nothing: how many pairs must agree is the judge's business. It must not know how answers travel. Called by
`gateway/`, for shadow traffic.

Tensors (Open Inference Protocol). An output agrees if its numbers are close, or, where each row chooses (its largest
element along the last axis), if the choices are the same: a new version of a classifier has other logits. What is no
float agrees if it is equal. Drift: the mean error, or the share of other choices if that is more, at most 1.

Texts (OpenAI). In this order: number of choices, finish reason, refusal, tool calls (names, and arguments as JSON),
JSON that is none any more, words. Words are what white space separates: no tokeniser is asked, since the two revisions
may have different ones. Drift is the share of words that the two do not have in common, wherever they stand (1 - 2
common / (ours + theirs)); where the first other word stands is told. Embeddings are compared as tensors are.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from itertools import takewhile
from typing import TypeVar, assert_never

import numpy as np
import orjson

from graylift.domain.shadow import Answer, Comparison
from graylift.domain.spec import ServingProtocol, Tolerance
from graylift.errors import ProtocolError
from graylift.protocols.asking import outputs_from_body
from graylift.protocols.closeness import Closeness, closeness
from graylift.protocols.completions import EVENTS, Choice, Completion, completion_from
from graylift.protocols.datatypes import Tensor

T = TypeVar("T")

TRUNCATED = "truncated stream"
_MOST_BYTES = 8 * 1024 * 1024
"""Of an answer that came compressed."""
_MOST_TOLD = 4_000
_REFUSALS = ("i'm sorry, but", "i am sorry, but", "i cannot", "i can't", "as an ai")
"""How models begin to refuse in words. A heuristic, and English: both sides are held to the same one."""


def failure_of(protocol: ServingProtocol, answer: Answer) -> str | None:
    """Why an answer is a failure, in few words; None if it is none. A status of 200 alone says nothing of a stream."""
    if answer.failed:
        return f"HTTP {answer.status}"
    if protocol is not ServingProtocol.OPENAI or not _content_type(answer).startswith(EVENTS):
        return None
    body = _plain_body(answer)
    if body is None:
        return None
    try:
        return None if completion_from(body, EVENTS).ended else TRUNCATED
    except ProtocolError as exc:
        return str(exc)


def compare(protocol: ServingProtocol, stable: Answer, candidate: Answer, tolerance: Tolerance) -> Comparison | None:
    """None where nothing can be said: stable's answer cannot be read, or one of them was too long to be copied."""
    theirs, ours = _plain_body(stable), _plain_body(candidate)
    if theirs is None or ours is None:
        return None
    if theirs == ours:
        return Comparison(0.0, None)
    match protocol:
        case ServingProtocol.OPEN_INFERENCE:
            return _compared(_outputs, _of_outputs, (stable, theirs), (candidate, ours), tolerance)
        case ServingProtocol.OPENAI:
            return _compared(_completion, _of_completions, (stable, theirs), (candidate, ours), tolerance)
        case _:
            assert_never(protocol)


def _compared(
    read: Callable[[Answer, bytes], T],
    of: Callable[[T, T, Tolerance], Comparison],
    stable: tuple[Answer, bytes],
    candidate: tuple[Answer, bytes],
    tolerance: Tolerance,
) -> Comparison | None:
    try:
        theirs = read(*stable)
    except ProtocolError:
        return None
    try:
        ours = read(*candidate)
    except ProtocolError:
        return Comparison(1.0, "unreadable answer")
    return of(theirs, ours, tolerance)


def told(protocol: ServingProtocol, answer: Answer) -> str:
    """An answer as people can read it, cut to a page."""
    body = _plain_body(answer)
    if body is None:
        return "(too long, or compressed in a way that is not read here)"
    try:
        match protocol:
            case ServingProtocol.OPEN_INFERENCE:
                outputs = _outputs(answer, body)
                text = "\n".join(f"{name}: {_told_tensor(tensor)}" for name, tensor in outputs.items())
            case ServingProtocol.OPENAI:
                text = "\n".join(map(_told_choice, _completion(answer, body).choices))
            case _:
                assert_never(protocol)
    except ProtocolError:
        text = body.decode(errors="replace")
    return text if len(text) <= _MOST_TOLD else text[:_MOST_TOLD] + " ..."


# ---- tensors


def _of_outputs(theirs: dict[str, Tensor], ours: dict[str, Tensor], tolerance: Tolerance) -> Comparison:
    if theirs.keys() != ours.keys():
        return Comparison(1.0, "outputs")
    worst = Comparison(0.0, None)
    for name, reference in theirs.items():
        given = ours[name]
        if reference.shape != given.shape or reference.dtype.kind != given.dtype.kind:
            return Comparison(1.0, f"shape of {name}", detail=f"{list(given.shape)} instead of {list(reference.shape)}")
        samples = reference.shape[0] if reference.ndim else 1
        found = _of_output(name, closeness(reference, given, samples), reference.dtype.kind == "f", tolerance)
        worst = max(worst, found, key=lambda one: (not one.agrees, one.drift))
    return worst


def _of_output(name: str, close: Closeness, is_float: bool, tolerance: Tolerance) -> Comparison:
    chosen = close.agreement
    drift = min(1.0, max(close.mean_error, 0.0 if chosen is None else 1 - chosen))
    if close.broken:
        return Comparison(1.0, f"{name} is no number", detail=f"{close.broken} elements are NaN or infinite")
    near = is_float and close.max_error <= tolerance.max_relative_error
    if near or chosen == 1:
        return Comparison(drift, None)
    if chosen is None:
        return Comparison(drift, f"numbers of {name}", detail=f"largest relative error {close.max_error:.3g}")
    detail = f"{close.rows - close.agreeing} of {close.rows} differ"
    return Comparison(drift, f"choice of {name}" if is_float else f"values of {name}", detail=detail)


def _outputs(answer: Answer, body: bytes) -> dict[str, Tensor]:
    length = answer.header("inference-header-content-length")
    return outputs_from_body(body, None if length is None else int(length))


def _told_tensor(tensor: Tensor) -> str:
    with np.printoptions(threshold=40, edgeitems=8, precision=5, suppress=True):
        return f"{list(tensor.shape)} {tensor}"


# ---- texts


def _completion(answer: Answer, body: bytes) -> Completion:
    return completion_from(body, _content_type(answer))


def _of_completions(theirs: Completion, ours: Completion, tolerance: Tolerance) -> Comparison:
    if theirs.vectors or ours.vectors:
        return _of_outputs({"embedding": np.array(theirs.vectors)}, {"embedding": np.array(ours.vectors)}, tolerance)
    if len(theirs.choices) != len(ours.choices):
        return Comparison(1.0, "number of choices", detail=f"{len(ours.choices)} instead of {len(theirs.choices)}")
    pairs = zip(theirs.choices, ours.choices, strict=True)
    found = [_of_choices(reference, given, tolerance) for reference, given in pairs]
    return max(found, key=lambda one: (not one.agrees, one.drift), default=Comparison(0.0, None))


def _of_choices(reference: Choice, given: Choice, tolerance: Tolerance) -> Comparison:
    theirs, ours = reference.text.split(), given.text.split()
    drift = _drift(theirs, ours)
    ratio = len(ours) / len(theirs) if theirs else None
    if reference.finish != given.finish:
        detail = f"{given.finish} instead of {reference.finish}"
        return Comparison(max(drift, 0.5), "finish reason", ratio, detail)
    if _refuses(reference) != _refuses(given):
        return Comparison(
            1.0, "refusal", ratio, "only the candidate refuses" if _refuses(given) else "only stable does"
        )
    if (calls := _of_tool_calls(reference, given)) is not None:
        return Comparison(1.0, calls, ratio)
    if _is_json(reference.text) and not _is_json(given.text):
        return Comparison(1.0, "JSON validity", ratio, "stable's text is JSON, the candidate's is not")
    # Without any tolerance, the same words in another order are other words.
    if theirs == ours or 0 < tolerance.max_text_drift >= drift:
        return Comparison(drift, None, ratio)
    # Where one is how the other begins, the first word beyond it is the first other one.
    same = sum(1 for _ in takewhile(lambda words: words[0] == words[1], zip(theirs, ours, strict=False)))
    return Comparison(drift, "words", ratio, f"the first other word is number {same + 1:,} of {len(theirs):,}")


def _of_tool_calls(reference: Choice, given: Choice) -> str | None:
    """In what the tool calls disagree."""
    if [call.name for call in reference.tool_calls] != [call.name for call in given.tool_calls]:
        return "tool calls"
    for theirs, ours in zip(reference.tool_calls, given.tool_calls, strict=True):
        try:
            value = ours.value
        except ValueError:
            return None if theirs.arguments == ours.arguments else "tool call validity"
        try:
            if value != theirs.value:
                return "tool call arguments"
        except ValueError:
            return "tool call validity"
    return None


def _drift(theirs: list[str], ours: list[str]) -> float:
    if not theirs and not ours:
        return 0.0
    common = (Counter(theirs) & Counter(ours)).total()
    return 1 - 2 * common / (len(theirs) + len(ours))


def _refuses(choice: Choice) -> bool:
    return choice.refusal is not None or choice.text.strip().lower().startswith(_REFUSALS)


def _is_json(text: str) -> bool:
    """An object or a list; a number or a word by itself is text that happens to be JSON."""
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _told_choice(choice: Choice) -> str:
    calls = "".join(f"\n{call.name}({call.arguments})" for call in choice.tool_calls)
    return f"{choice.refusal or choice.text}{calls}\n[{choice.finish}]"


# ---- bodies


def _content_type(answer: Answer) -> str:
    return answer.header("content-type") or ""


def _plain_body(answer: Answer) -> bytes | None:
    """The body without its compression; None if that is not one of zlib's, or it is too long."""
    coding = answer.header("content-encoding") or "identity"
    if answer.body is None or coding == "identity":
        return answer.body
    if coding not in ("gzip", "deflate"):
        return None
    expander = zlib.decompressobj(wbits=47)  # of gzip or zlib, whichever it is
    try:
        body = expander.decompress(answer.body, _MOST_BYTES)
    except zlib.error:
        return None
    return body if expander.eof else None
