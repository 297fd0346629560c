"""An engine that computes something else than its source is found, real engines in real processes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from graylift.checks import trials
from graylift.checks.build import Built
from graylift.checks.concurrency import check_concurrency
from graylift.checks.parity import check_parity
from graylift.checks.workplace import Workplace
from graylift.domain.engine import EngineSpec, Manifest, Precision, Profile, ProfileShape, Runtime
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.revision import Revision, RunningEndpoint, ServedEngine
from graylift.domain.spec import (
    ChecksSpec,
    ConcurrencyCheck,
    EndpointModel,
    OnnxModel,
    ParityCheck,
    ReleaseSpec,
    RevisionSpec,
    Skip,
    TensorName,
)
from graylift.engine.artefacts import ArtefactStore
from graylift.testing.conformance_store import a_spec

pytestmark = pytest.mark.real


class Bench:
    """Builds sides and runs the check on them."""

    def __init__(self, folder: Path) -> None:
        (folder / "scratch").mkdir()
        self.folder = folder
        self.workplace = Workplace(folder / "artefacts", folder / "scratch")
        self.store = ArtefactStore(self.workplace.artefacts)

    def engine_of(self, model: Path) -> Manifest:
        return self.store.build(EngineSpec(str(model), Runtime.ONNXRUNTIME))

    def side(self, name: str, model: OnnxModel, instead: Path | None = None) -> Built:
        """instead: the model that the engine really comes of, as if the build had damaged it."""
        manifest = self.engine_of(Path(model.onnx))
        if instead is not None:
            manifest = replace(self.engine_of(instead), sources=manifest.sources, precision=model.precision)
        revision = Revision("file-type", name, "c" * 64, ServedEngine(manifest.digest), 60.0)
        manifest = replace(manifest, profiles=model.profiles)
        return Built(RevisionSpec(name, model), revision, manifest)

    async def parity(self, candidate: Built, wanted: ParityCheck | Skip, stable: Built | None = None) -> CheckResult:
        return await check_parity(self._spec(ChecksSpec(parity=wanted)), stable or candidate, candidate, self.workplace)

    async def concurrency(self, candidate: Built, wanted: ConcurrencyCheck | Skip) -> CheckResult:
        checks = ChecksSpec(concurrency=wanted)
        return await check_concurrency(self._spec(checks), candidate, candidate, self.workplace)

    def samples(self, **arrays: np.ndarray) -> str:
        np.savez(self.folder / "samples.npz", **arrays)
        return str(self.folder / "samples.npz")

    @staticmethod
    def _spec(checks: ChecksSpec) -> ReleaseSpec:
        return replace(a_spec("file-type"), checks=checks)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def elsewhere(name: str) -> Built:
    url = "http://127.0.0.1:1"
    return Built(
        RevisionSpec(name, EndpointModel(url)), Revision("file-type", name, "d" * 64, RunningEndpoint(url), 60.0), None
    )


async def test_a_faithful_engine_passes_and_every_point_has_its_line(bench: Bench) -> None:
    model = OnnxModel(str(tiny_models.affine(bench.folder / "m.onnx")))
    result = await bench.parity(bench.side("v2", model), ParityCheck())
    assert result.outcome is CheckOutcome.PASS, result.sentence
    assert result.sentence == (
        "v2 at fp32 computes what its source computes: largest error 0 of 'y' (made up, x [1, 4]), limit 0.01; "
        "11 of 11 choices of 'y' agree (100.00%), at least 99.00% (n=3 made-up inputs, no samples)"
    )
    assert [line.split(": ")[0] for line in result.evidence] == [
        "'y', made up, x [1, 4]",
        "'y', made up, x [2, 4]",
        "'y', made up, x [8, 4]",
    ]
    assert list(bench.workplace.scratch.iterdir()) == []


async def test_an_engine_that_is_off_fails_with_both_numbers(bench: Bench) -> None:
    model = OnnxModel(str(tiny_models.affine(bench.folder / "m.onnx", bias=0.0)))
    damaged = tiny_models.affine(bench.folder / "damaged.onnx", scale=2.5, bias=0.0)
    result = await bench.parity(bench.side("v2", model, damaged), ParityCheck())
    assert result.outcome is CheckOutcome.FAIL
    assert result.sentence.startswith(
        "v2 at fp32 does not compute what its source computes: largest error 0.25 of 'y' (made up, x [8, 4]), "
        "limit 0.01"
    )


async def test_the_limit_is_the_release_files_own_if_it_names_one(bench: Bench) -> None:
    model = OnnxModel(str(tiny_models.affine(bench.folder / "m.onnx", bias=0.0)))
    damaged = tiny_models.affine(bench.folder / "damaged.onnx", scale=2.5, bias=0.0)
    side = bench.side("v2", model, damaged)
    assert (await bench.parity(side, ParityCheck(max_relative_error=0.26))).outcome is CheckOutcome.PASS
    assert (await bench.parity(side, ParityCheck(max_relative_error=0.24))).outcome is CheckOutcome.FAIL


async def test_nan_where_the_source_gives_numbers_fails(bench: Bench) -> None:
    model = OnnxModel(str(tiny_models.affine(bench.folder / "m.onnx")))
    result = await bench.parity(
        bench.side("v2", model, tiny_models.logarithm(bench.folder / "log.onnx")), ParityCheck()
    )
    assert result.outcome is CheckOutcome.FAIL
    assert "elements of 'y' are NaN or infinite where its source gives numbers" in result.sentence


async def test_nan_that_the_source_gives_too_is_no_difference(bench: Bench) -> None:
    model = OnnxModel(str(tiny_models.logarithm(bench.folder / "m.onnx")))
    result = await bench.parity(bench.side("v2", model), ParityCheck())
    assert result.outcome is CheckOutcome.PASS, result.sentence


async def test_real_samples_are_taken_under_the_names_that_clients_send(bench: Bench) -> None:
    model = OnnxModel(
        str(tiny_models.affine(bench.folder / "m.onnx")),
        inputs=(TensorName("image", "x"),),
        outputs=(TensorName("score", "y"),),
    )
    samples = bench.samples(image=np.eye(4, dtype=np.float32).repeat(5, axis=0))
    result = await bench.parity(bench.side("v2", model), ParityCheck(samples))
    assert result.outcome is CheckOutcome.PASS, result.sentence
    assert "20 of 20 choices of 'score' agree" in result.sentence
    assert "(n=20 samples and 3 made-up inputs)" in result.sentence


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.zeros((3, 4), np.float32)}, "holds 'y', which is no input; the inputs are x"),
        ({}, "has no array 'x'; it needs one for each input: x"),
        ({"x": np.zeros((3, 4))}, "'x' is FP64, expected FP32; save it as numpy's float32"),
        ({"x": np.zeros((3, 5), np.float32)}, "'x' has shape [3, 5], expected [samples,4]"),
        ({"x": np.zeros(4, np.float32)}, "'x' has shape [4], expected [samples,4]"),
        ({"x": np.zeros((0, 4), np.float32)}, "at least 1, not 0 of 'x'"),
        ({"x": np.array([{}], object)}, "holds pickled objects, which are not read"),
    ],
)
async def test_samples_that_do_not_fit_say_so_and_blame_nobody(
    bench: Bench, arrays: dict[str, np.ndarray], said: str
) -> None:
    model = OnnxModel(str(tiny_models.affine(bench.folder / "m.onnx")))
    result = await bench.parity(bench.side("v2", model), ParityCheck(bench.samples(**arrays)))
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    assert said in result.sentence
    assert "samples.npz" in result.sentence


@pytest.mark.parametrize("content", [b"", b"no zip"])
async def test_samples_that_are_no_npz_are_inconclusive(bench: Bench, content: bytes) -> None:
    file = bench.folder / "samples.npz"
    file.write_bytes(content)
    model = OnnxModel(str(tiny_models.affine(bench.folder / "m.onnx")))
    result = await bench.parity(bench.side("v2", model), ParityCheck(str(file)))
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    assert f"{file}" in result.sentence


async def test_integers_are_made_up_in_a_range_that_the_source_takes(bench: Bench) -> None:
    model = OnnxModel(str(tiny_models.lookup(bench.folder / "m.onnx", rows=12)))
    result = await bench.parity(bench.side("v2", model), ParityCheck())
    assert result.outcome is CheckOutcome.PASS, result.sentence
    assert "made-up integers are from 0 to 9: the source takes those" in result.evidence


async def test_every_corner_of_a_profile_is_tried(bench: Bench) -> None:
    profile = Profile((ProfileShape("input_ids", (1, 2), (3, 5), (4, 9)),))
    model = OnnxModel(str(tiny_models.decoder(bench.folder / "m.onnx")), profiles=(profile,))
    result = await bench.parity(bench.side("v2", model), ParityCheck())
    assert result.outcome is CheckOutcome.PASS, result.sentence
    assert [line.split(": ")[0] for line in result.evidence][:3] == [
        f"'logits', made up, profile 1 {corner}" for corner in ("min", "opt", "max")
    ]


async def test_a_promised_shape_that_the_source_cannot_run_is_not_passed_over(bench: Bench) -> None:
    profile = Profile((ProfileShape("x", (1, 4), (2, 4), (2, 5)),))
    model = OnnxModel(str(tiny_models.affine(bench.folder / "m.onnx")), profiles=(profile,))
    result = await bench.parity(bench.side("v2", model), ParityCheck())
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    assert "its source cannot run what is promised (made up, profile 1 max)" in result.sentence


async def test_wrong_choices_on_made_up_inputs_alone_ask_for_real_ones(bench: Bench) -> None:
    model = OnnxModel(str(tiny_models.decoder(bench.folder / "m.onnx")), precision=Precision.INT8_DYNAMIC)
    damaged = tiny_models.decoder(bench.folder / "damaged.onnx", noise=0.2)
    side = bench.side("v2", model, damaged)
    result = await bench.parity(side, ParityCheck())
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    assert "on made-up inputs" in result.sentence
    assert "checks.parity: they decide" in result.sentence
    few = bench.samples(input_ids=np.arange(32).reshape(1, 32))
    result = await bench.parity(side, ParityCheck(few))
    assert result.outcome is CheckOutcome.FAIL
    assert "choices of 'logits' agree" in result.sentence


async def test_a_decoder_is_judged_along_a_text(bench: Bench) -> None:
    text = bench.samples(input_ids=np.random.default_rng(1).integers(0, 32, (10, 50)))
    model = OnnxModel(str(tiny_models.decoder(bench.folder / "m.onnx")), precision=Precision.INT8_DYNAMIC)
    sound = await bench.parity(
        bench.side("v2", model, tiny_models.decoder(bench.folder / "near.onnx", noise=0.005)), ParityCheck(text)
    )
    assert sound.outcome is CheckOutcome.PASS, sound.sentence
    assert "x its source's" in sound.sentence
    assert "(n=490 tokens)" in sound.sentence
    assert any(line.startswith("forced text: ") for line in sound.evidence)
    ruined = await bench.parity(
        bench.side("v2", model, tiny_models.decoder(bench.folder / "far.onnx", noise=0.2)), ParityCheck(text)
    )
    assert ruined.outcome is CheckOutcome.FAIL
    assert "does not compute what its source computes: perplexity" in ruined.sentence
    assert "limit 0.02" in ruined.sentence


async def test_an_engine_that_cannot_run_what_its_source_can_fails(bench: Bench) -> None:
    model = OnnxModel(str(tiny_models.lookup(bench.folder / "m.onnx", rows=2000)))
    result = await bench.parity(
        bench.side("v2", model, tiny_models.lookup(bench.folder / "small.onnx", rows=4)), ParityCheck()
    )
    assert result.outcome is CheckOutcome.FAIL
    assert "its engine cannot run what its source can (made up" in result.sentence


async def test_agreement_with_stable_is_asked_for_only_on_request(bench: Bench) -> None:
    stable = bench.side(
        "v1",
        OnnxModel(str(tiny_models.affine(bench.folder / "v1.onnx", scale=-2.0)), inputs=(TensorName("x", "x"),)),
    )
    candidate = bench.side("v2", OnnxModel(str(tiny_models.affine(bench.folder / "v2.onnx"))))
    assert (await bench.parity(candidate, ParityCheck(), stable)).outcome is CheckOutcome.PASS
    result = await bench.parity(candidate, ParityCheck(min_stable_agreement=0.9), stable)
    assert result.outcome is CheckOutcome.FAIL
    assert result.sentence.startswith("v2 does not answer as v1 does: ")
    assert "are v1's (" in result.sentence
    same = await bench.parity(candidate, ParityCheck(min_stable_agreement=0.9), candidate)
    assert same.outcome is CheckOutcome.PASS
    apart = await bench.parity(candidate, ParityCheck(min_stable_agreement=0.9), elsewhere("v1"))
    assert apart.outcome is CheckOutcome.INCONCLUSIVE
    assert "v1 runs elsewhere already" in apart.sentence


async def test_a_source_that_was_changed_since_is_no_measure(bench: Bench) -> None:
    file = tiny_models.affine(bench.folder / "m.onnx")
    side = bench.side("v2", OnnxModel(str(file)))
    tiny_models.affine(file, scale=3.0)
    result = await bench.parity(side, ParityCheck())
    assert result.outcome is CheckOutcome.INCONCLUSIVE
    assert "has changed since its engine was built" in result.sentence


async def test_what_runs_elsewhere_and_what_is_skipped_is_not_run(bench: Bench) -> None:
    assert (await bench.parity(elsewhere("v2"), ParityCheck())).outcome is CheckOutcome.SKIPPED
    asked = await bench.parity(elsewhere("v2"), ParityCheck(min_top1_agreement=0.5))
    assert asked.outcome is CheckOutcome.INCONCLUSIVE
    skipped = await bench.parity(elsewhere("v2"), Skip("no time"))
    assert (skipped.outcome, skipped.sentence) == (CheckOutcome.SKIPPED, "not run: no time")


async def test_several_at_once_get_what_each_gets_alone(bench: Bench) -> None:
    side = bench.side("v2", OnnxModel(str(tiny_models.decoder(bench.folder / "m.onnx"))))
    result = await bench.concurrency(side, ConcurrencyCheck(3))
    assert result.outcome is CheckOutcome.PASS, result.sentence
    assert result.sentence == (
        "v2 answers 3 at once as it answers one after the other, bit by bit (3 inferences in each of 3 contexts)"
    )
    assert (await bench.concurrency(elsewhere("v2"), ConcurrencyCheck(2))).outcome is CheckOutcome.SKIPPED
    assert (await bench.concurrency(side, Skip("slow"))).sentence == "not run: slow"


MIXED_UP = """
import sys
import graylift.engine.trial as trial
at_once = trial._at_once
trial._at_once = lambda *given: at_once(*given)[::-1]  # each context gets what another one asked for
from graylift.engine.__main__ import main
sys.exit(main())
"""


async def test_answers_that_are_mixed_up_at_once_are_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    side = bench.side("v2", OnnxModel(str(tiny_models.affine(bench.folder / "m.onnx", bias=0.5)), profiles=FIXED))
    monkeypatch.setattr(trials, "ENGINE", (sys.executable, "-c", MIXED_UP))
    result = await bench.concurrency(side, ConcurrencyCheck(2))
    assert result.outcome is CheckOutcome.FAIL, result.sentence
    assert result.sentence.startswith("v2 answers 2 at once otherwise than one after the other, not bit by bit: 'y' ")


FIXED = (Profile((ProfileShape("x", (2, 4), (2, 4), (2, 4)),)),)
