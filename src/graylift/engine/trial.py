"""A trial: an engine, or its source, on given cases. What happens in the process that `__main__` is; checks start it.

An inference that fails is a finding about its case and ends nothing; native code that crashes ends the process.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import orjson

from graylift.engine.artefacts import ArtefactStore
from graylift.engine.cases import read_cases, write_cases
from graylift.engine.load import load
from graylift.engine.runner import Runner
from graylift.engine.vendors import reference_runner
from graylift.errors import EngineError
from graylift.protocols.datatypes import Tensor


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one case: the outputs by name, or why there are none."""

    outputs: Mapping[str, Tensor] | None
    failure: str | None = None


def try_engine(artefacts: Path, artefact: str, inputs: Path, outputs: Path, contexts: int) -> bytes:
    """Run the artefact on the cases of `inputs` one after the other and write what it gives to `outputs`.

    With several `contexts`, run all cases in each of as many threads at once after that; their answers follow those
    of the sequence, thread by thread. Returns the line that `answers_from` reads. EngineError if it cannot be loaded.
    """
    cases = read_cases(inputs)
    runner = load(ArtefactStore(artefacts), artefact, contexts)
    try:
        answers = [_answer(runner, case) for case in cases]
        if contexts > 1:
            answers += _at_once(runner, cases, contexts)
    finally:
        runner.close()
    return _written(answers, outputs)


def try_source(onnx: Path, sha256: str, inputs: Path, outputs: Path) -> bytes:
    """The same for a source model as it is stored: by ONNX Runtime, none of its graph optimised away.

    EngineError also if the file is not the one of that digest any more.
    """
    from graylift.engine.sources import sha256_of  # imports onnx, which running an engine does not need

    if (actual := sha256_of(onnx)) != sha256:
        raise EngineError(f"{onnx} has changed since its engine was built: its sha256 is {actual}, it was {sha256}")
    cases = read_cases(inputs)
    runner = reference_runner(onnx)
    try:
        return _written([_answer(runner, case) for case in cases], outputs)
    finally:
        runner.close()


def answers_from(line: bytes, outputs: Path, count: int) -> list[Answer]:
    """What a trial that should have given `count` answers gave. EngineError if these are none."""
    try:
        failures: dict[str, str] = orjson.loads(line)["failures"]
        why = {int(number): str(text) for number, text in failures.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise EngineError(f"the trial gave no answers but {line[:200].decode(errors='replace').strip()!r}") from exc
    return [
        Answer(None, why[number]) if number in why else Answer(case)
        for number, case in enumerate(read_cases(outputs, count))
    ]


def _written(answers: Sequence[Answer], outputs: Path) -> bytes:
    write_cases(outputs, [answer.outputs for answer in answers])
    failures = {str(number): answer.failure for number, answer in enumerate(answers) if answer.failure is not None}
    return orjson.dumps({"failures": failures})


def _answer(runner: Runner, case: Mapping[str, Tensor]) -> Answer:
    try:
        return Answer(runner.infer(case))
    except EngineError as exc:
        return Answer(None, str(exc))


def _at_once(runner: Runner, cases: Sequence[Mapping[str, Tensor]], contexts: int) -> list[Answer]:
    """Each thread begins with another case, and all go on together: different inputs meet in every step."""
    step = threading.Barrier(contexts)

    def run(context: int) -> list[Answer]:
        answers: dict[int, Answer] = {}
        try:
            for offset in range(len(cases)):
                number = (context + offset) % len(cases)
                step.wait()
                answers[number] = _answer(runner, cases[number])
        except BaseException:
            step.abort()
            raise
        return [answers[number] for number in range(len(cases))]

    with ThreadPoolExecutor(contexts) as threads:
        return [answer for answers in threads.map(run, range(contexts)) for answer in answers]
