"""Trials in real processes: answers come back case by case, and what ends a trial ends it alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from graylift.checks import trials
from graylift.checks.trials import answers_of_engine, answers_of_source
from graylift.checks.workplace import Workplace
from graylift.domain.engine import EngineSpec, Manifest, Runtime
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.cases import read_cases, write_cases
from graylift.errors import EngineError
from graylift.protocols.datatypes import DTYPES, Tensor


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    (tmp_path / "scratch").mkdir()
    return Workplace(tmp_path / "artefacts", tmp_path / "scratch")


def built(workplace: Workplace, model: Path) -> Manifest:
    return ArtefactStore(workplace.artefacts).build(EngineSpec(str(model), Runtime.ONNXRUNTIME))


def texts(elements: list[bytes], shape: tuple[int, ...]) -> Tensor:
    tensor = np.empty(len(elements), DTYPES["BYTES"])
    tensor[:] = elements
    return tensor.reshape(shape)


async def test_engine_and_source_answer_every_case_and_say_why_where_they_cannot(
    workplace: Workplace, tmp_path: Path
) -> None:
    model = tiny_models.lookup(tmp_path / "m.onnx", rows=4)
    manifest = built(workplace, model)
    cases = [{"id": np.int64([0, 3])}, {"id": np.int64([7])}, {"id": np.int64([[1]])}, {"id": np.int64([2])}]
    for answers in (
        await answers_of_engine(workplace, manifest, cases),
        await answers_of_source(workplace, str(model), manifest, cases),
    ):
        first, beyond, misshapen, last = answers
        assert first.outputs is not None
        assert first.outputs["row"].tolist() == [[0.0, 1.0], [6.0, 7.0]]
        assert (beyond.outputs, misshapen.outputs) == (None, None)
        assert "embedding" in (beyond.failure or "")
        assert "expected shape [?], got [1,1]" in (misshapen.failure or "")
        assert last.outputs is not None
        assert last.outputs["row"].tolist() == [[4.0, 5.0]]
    assert list(workplace.scratch.iterdir()) == []


async def test_with_several_contexts_the_cases_are_run_once_more_in_each(workplace: Workplace, tmp_path: Path) -> None:
    manifest = built(workplace, tiny_models.affine(tmp_path / "m.onnx"))
    cases = [{"x": np.full((1, 4), number, np.float32)} for number in range(3)]
    answers = await answers_of_engine(workplace, manifest, cases, contexts=2)
    assert [answer.outputs["y"][0, 0] for answer in answers if answer.outputs] == [1.0, 3.0, 5.0] * 3


async def test_a_source_that_was_changed_since_the_build_is_not_compared_with(
    workplace: Workplace, tmp_path: Path
) -> None:
    model = tiny_models.affine(tmp_path / "m.onnx")
    manifest = built(workplace, model)
    tiny_models.affine(model, scale=3.0)
    with pytest.raises(EngineError, match="has changed since its engine was built"):
        await answers_of_source(workplace, str(model), manifest, [])


async def test_an_engine_that_is_not_there_is_told_in_the_words_of_the_child(
    workplace: Workplace, tmp_path: Path
) -> None:
    manifest = replace(built(workplace, tiny_models.affine(tmp_path / "m.onnx")), digest="a" * 64)
    with pytest.raises(EngineError, match="no artefact aaaa"):
        await answers_of_engine(workplace, manifest, [])


async def test_a_crash_ends_the_child_alone(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = built(workplace, tiny_models.affine(tmp_path / "m.onnx"))
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(trials, "ENGINE", (trials.ENGINE[0], "-c", crash))
    with pytest.raises(EngineError, match="the run was killed by SIGSEGV"):
        await answers_of_engine(workplace, manifest, [])


async def test_a_cancelled_trial_leaves_no_process(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = built(workplace, tiny_models.affine(tmp_path / "m.onnx"))
    pid_file = tmp_path / "pid"
    wait = f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(600)"
    monkeypatch.setattr(trials, "ENGINE", (trials.ENGINE[0], "-c", wait))
    trial = asyncio.create_task(answers_of_engine(workplace, manifest, []))
    while not (pid_file.exists() and pid_file.read_text()):
        await asyncio.sleep(0.01)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert not Path(f"/proc/{pid_file.read_text()}").exists()


TENSORS = st.one_of(
    hnp.arrays(st.sampled_from([np.float16, np.float32, np.int64, np.uint8, np.bool_]), hnp.array_shapes(min_dims=0)),
    st.lists(st.binary(max_size=4), max_size=4).map(lambda elements: texts(elements, (len(elements),))),
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@given(st.lists(st.dictionaries(NAMES, TENSORS, min_size=1, max_size=3), max_size=3))
def test_cases_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, cases: list[dict[str, Tensor]]
) -> None:
    file = tmp_path_factory.getbasetemp() / "cases.npz"
    write_cases(file, cases)
    read = read_cases(file, len(cases))
    assert [list(case) for case in read] == [list(case) for case in cases]
    for before, after in zip(cases, read, strict=True):
        for name, tensor in before.items():
            assert after[name].dtype == tensor.dtype
            assert after[name].shape == tensor.shape
            assert after[name].tobytes() == tensor.tobytes() or tensor.dtype == DTYPES["BYTES"]
            assert tensor.dtype != DTYPES["BYTES"] or after[name].tolist() == tensor.tolist()


def test_a_file_without_cases_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"not a zip", np.lib.format.magic(1, 0)):
        (tmp_path / "broken.npz").write_bytes(content)
        with pytest.raises(EngineError, match=r"holds no cases|cannot read"):
            read_cases(tmp_path / "broken.npz")
    with pytest.raises(EngineError, match="No such file"):
        read_cases(tmp_path / "absent.npz")
