"""Real models, real samples: sound builds pass, and a quantisation that really ruins its model is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graylift.checks.checklist import LocalChecklist
from graylift.demo.containers import draw_number, render
from graylift.demo.filetypes import FOLDERS, choose_samples
from graylift.demo.models import default_cache
from graylift.demo.scenario import SCENARIOS, Scenario
from graylift.domain.engine import EngineSpec, Precision, Runtime
from graylift.domain.release import CheckOutcome, CheckReport, CheckResult
from graylift.domain.spec import ChecksSpec, ConcurrencyCheck, OnnxModel, ParityCheck, ReleaseSpec, Skip
from graylift.engine.vendors import vendor_of
from graylift.errors import EngineError
from graylift.spec import load

pytestmark = pytest.mark.real

SKIP = Skip("not what this is about")


def scenario(name: str) -> Scenario:
    return next(scenario for scenario in SCENARIOS if scenario.entry.name == name)


def judged(spec: ReleaseSpec, parity: ParityCheck, **candidate: object) -> ReleaseSpec:
    """The good release of a scenario with other settings of its candidate's engine, its servers left out."""
    model = spec.candidate.model
    assert isinstance(model, OnnxModel)
    return replace(
        spec,
        candidate=replace(spec.candidate, model=replace(model, **candidate)),
        checks=ChecksSpec(parity, SKIP, SKIP, SKIP, SKIP, ConcurrencyCheck()),
    )


def of(report: CheckReport, check: str) -> CheckResult:
    return next(result for result in report.results if result.check == check)


def text_recognition(folder: Path) -> ReleaseSpec:
    """A release of PP-OCRv3 recognition beside itself, and eight lines to read in `lines.npz`."""
    spec = load(scenario("container-numbers").prepare(default_cache(), folder, lambda _: None).good)
    chance = np.random.default_rng(1)
    np.savez(folder / "lines.npz", x=np.stack([render(draw_number(chance), chance) for _ in range(8)]))
    return replace(spec, candidate=replace(spec.candidate, model=spec.stable.model))


async def test_magika_computes_what_its_source_computes_and_mostly_what_stable_does(tmp_path: Path) -> None:
    spec = load(scenario("file-types").prepare(default_cache(), tmp_path, lambda _: None).good)
    np.savez(tmp_path / "files.npz", bytes=np.stack([sample.tokens for sample in choose_samples(FOLDERS, 64, 0.3)]))
    wanted = ParityCheck(str(tmp_path / "files.npz"), min_stable_agreement=0.6)
    report = await LocalChecklist(tmp_path / "artefacts").run(judged(spec, wanted))
    parity, concurrency = of(report, "parity"), of(report, "concurrency")
    assert parity.outcome is CheckOutcome.PASS, parity.sentence
    assert "64 of 64 choices of 'target_label' agree (100.00%)" in parity.sentence
    assert "(n=64 samples and 2 made-up inputs)" in parity.sentence
    assert concurrency.outcome is CheckOutcome.PASS, concurrency.sentence
    assert "bit by bit" in concurrency.sentence


async def test_eight_bits_ruin_a_model_that_reads_text_and_no_user_meets_it(tmp_path: Path) -> None:
    """PP-OCRv3 recognition with its weights in 8 bits: it builds, is a quarter of the size, and cannot read."""
    spec = text_recognition(tmp_path)
    wanted = judged(
        spec,
        ParityCheck(str(tmp_path / "lines.npz")),
        runtime=Runtime.ONNXRUNTIME,
        precision=Precision.INT8_DYNAMIC,
    )
    report = await LocalChecklist(tmp_path / "artefacts").run(wanted)
    parity = of(report, "parity")
    assert not report.passed
    assert parity.outcome is CheckOutcome.FAIL, parity.sentence
    assert f"{spec.candidate.name} at int8-dynamic does not compute what its source computes" in parity.sentence
    assert "choices of 'text' agree" in parity.sentence
    assert "at least 99.00%" in parity.sentence


async def test_arithmetic_that_a_runtime_lowers_by_itself_does_not_pass_for_full_precision(tmp_path: Path) -> None:
    """What OpenVINO does with an FP32 model on a processor that has BF16, unless it is told not to."""
    spec, wanted = text_recognition(tmp_path), ParityCheck(str(tmp_path / "lines.npz"), max_relative_error=0.01)
    pinned = judged(spec, wanted, runtime=Runtime.OPENVINO, precision=Precision.FP32)
    model = pinned.candidate.model
    assert isinstance(model, OnnxModel)
    try:
        vendor_of(Runtime.OPENVINO).options(EngineSpec(model.onnx, Runtime.OPENVINO, precision=Precision.BF16))
    except EngineError as no_bf16:
        pytest.skip(str(no_bf16))
    lowered = judged(spec, wanted, runtime=Runtime.OPENVINO, precision=Precision.BF16)
    reports = [await LocalChecklist(tmp_path / "artefacts").run(release) for release in (pinned, lowered)]
    parities = [of(report, "parity") for report in reports]
    assert [parity.outcome for parity in parities] == [CheckOutcome.PASS, CheckOutcome.FAIL], parities
    assert "limit 0.01" in parities[1].sentence
