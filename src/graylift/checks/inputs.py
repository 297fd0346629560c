"""What engines are asked in a check: real samples and made-up inputs, each with the source's own answer.

What the source cannot answer is no question. Called by the checks that compare answers.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graylift.checks.samples import VOCABULARIES, Point, batch_of, draws_integers, given, largest, made_up, points_of
from graylift.checks.trials import answers_of_source
from graylift.checks.workplace import Workplace
from graylift.domain.engine import Manifest
from graylift.domain.spec import OnnxModel
from graylift.engine.trial import Answer
from graylift.protocols.datatypes import DTYPES, Tensor

_MOST_BYTES = 2 * 2**30
"""Outputs of one case that are compared at most; the logits of a long batch would take the memory of the machine."""
_DRAWS = 3


@dataclass(frozen=True, slots=True)
class Question:
    """One inference. `case` under the model's own names, `outputs` what the source gives; real: from samples."""

    label: str
    real: bool
    case: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Inputs:
    """open: why a promised shape could not be asked about. evidence: what was left out, and why."""

    questions: tuple[Question, ...]
    open: tuple[str, ...]
    evidence: tuple[str, ...]

    @property
    def real(self) -> bool:
        """Are real samples among them?"""
        return any(question.real for question in self.questions)

    @property
    def counted(self) -> str:
        """How many, in words."""
        samples = sum(batch_of(question.case) for question in self.questions if question.real)
        shapes = sum(not question.real for question in self.questions)
        made = f"{shapes} made-up input{'s' * (shapes != 1)}"
        return f"n={samples} samples and {made}" if samples else f"n={made}, no samples"


async def inputs_of(
    workplace: Workplace, model: OnnxModel, manifest: Manifest, samples: str | None, revision: str
) -> Inputs:
    """All questions that the source of an engine answers.

    samples: path of an .npz, None: made-up inputs alone
    EngineError if the source cannot be run; ValueError with the cure if the samples do not fit, or nothing is left.
    """
    real: list[dict[str, Tensor]] = []
    if samples is not None:
        real = given(arrays_of(samples), manifest.interface, model.inputs, manifest.profiles, samples)
    points = points_of(manifest.interface, manifest.profiles)
    labels = [f"samples, batch {number}" for number in range(1, len(real) + 1)]
    vocabulary, evidence = await _vocabulary(workplace, model, manifest, points[0])
    notes = list(evidence)
    asked = list(points) if vocabulary is not None else []
    for point in [point for point in asked if _output_bytes(manifest, point) > _MOST_BYTES]:
        asked.remove(point)
        notes.append(f"left out, its outputs may take more than {_MOST_BYTES >> 30} GiB: {point.label}")
    # With one shape alone, several inputs of it: answers that are mixed up, or do not depend on the input, must differ.
    draws = [(point, draw) for point in asked for draw in range(_DRAWS if len(points) == 1 else 1)]
    cases = [*real, *(made_up(manifest.interface, point, vocabulary or 1, draw) for point, draw in draws)]
    labels += [f"made up, {point.label}" + (f", draw {draw + 1}" if len(points) == 1 else "") for point, draw in draws]
    answers = await answers_of_source(workplace, model.onnx, manifest, cases) if cases else []
    questions: list[Question] = []
    unsure: list[str] = []
    promised = [False] * len(real) + [point.promised for point, _ in draws]
    for number, (label, case, answer) in enumerate(zip(labels, cases, answers, strict=True)):
        if answer.outputs is not None:
            questions.append(Question(label, number < len(real), case, answer.outputs))
        elif number < len(real):
            raise ValueError(f"{samples}: {revision}'s own source cannot answer them: {answer.failure}")
        elif promised[number]:
            unsure.append(f"its source cannot run what is promised ({label}): {answer.failure}")
        else:
            notes.append(f"left out, its source does not take it: {label}: {answer.failure}")
    if not questions:
        why = (unsure or notes or ["it has no inputs"])[0]
        raise ValueError(
            f"{revision} cannot be asked anything: no made-up input is one for its source. Name real ones under "
            f'checks.parity: {{samples: samples.npz}}, or write {{skip: "why"}} there ({why})'
        )
    return Inputs(tuple(questions), tuple(unsure), tuple(notes))


async def _vocabulary(
    workplace: Workplace, model: OnnxModel, manifest: Manifest, point: Point
) -> tuple[int | None, list[str]]:
    """The largest range of integers that the source takes at the smallest point, and what to tell of that."""
    if not draws_integers(manifest.interface):
        return 1, []
    # The end of a range, because a few numbers drawn from it may all be small; and drawn ones, because a model may
    # refuse one in the middle.
    cases = [make(manifest.interface, point, vocabulary) for make in (largest, made_up) for vocabulary in VOCABULARIES]
    answers = await answers_of_source(workplace, model.onnx, manifest, cases)
    ends, drawn = answers[: len(VOCABULARIES)], answers[len(VOCABULARIES) :]
    for vocabulary, *both in zip(VOCABULARIES, ends, drawn, strict=True):
        if all(map(_is_sound, both)):
            return vocabulary, [f"made-up integers are from 0 to {vocabulary - 1}: the source takes those"]
    return None, [f"no made-up input is one for its source ({point.label}): {answers[-1].failure or 'NaN'}"]


def _output_bytes(manifest: Manifest, point: Point) -> int:
    """About the most that the outputs take: a dynamic dimension is taken for the longest of the inputs."""
    batch = max((shape[0] for shape in point.shapes.values() if shape), default=1)
    longest = max((size for shape in point.shapes.values() for size in shape[1:]), default=1)
    total = 0
    for spec in manifest.interface.outputs:
        sizes = [size if size >= 0 else (longest if axis else batch) for axis, size in enumerate(spec.shape)]
        total += math.prod(sizes) * DTYPES[spec.datatype].itemsize
    return total


def _is_sound(answer: Answer) -> bool:
    return answer.outputs is not None and all(
        tensor.dtype.kind != "f" or not np.isnan(tensor).any() for tensor in answer.outputs.values()
    )


def arrays_of(samples: str) -> dict[str, Tensor]:
    """What an .npz of samples holds, by name. ValueError if the file cannot be read as plain arrays."""
    try:
        archive: Any = np.load(Path(samples), allow_pickle=False)
        with archive:
            return {name: archive[name] for name in archive.files}
    except (AttributeError, TypeError) as error:  # a plain .npy
        raise ValueError(f"{samples} holds one array without a name; save numpy.savez(path, name=array)") from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{samples} cannot be read as an .npz: {error}") from error
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ValueError(
            f"{samples} holds pickled objects, which are not read: they could run any code. Save numbers as numbers "
            "and texts as fixed-width ones (numpy.bytes_)"
        ) from error
