"""The checks that run servers, on real ones: what is good passes, what is not is found, and nothing is left behind."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_models
from onnx import TensorProto, helper, numpy_helper

from graylift.checks.build import Built, build_side
from graylift.checks.served import check_served
from graylift.checks.servers import SERVE, serving
from graylift.checks.workplace import Workplace
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import (
    BoundaryCheck,
    CapacityCheck,
    ChecksSpec,
    ColdStartCheck,
    EndpointModel,
    OnnxModel,
    ParityCheck,
    PerformanceCheck,
    ReleaseSpec,
    RevisionSpec,
    Skip,
    TensorName,
)
from graylift.domain.weights import Role
from graylift.testing.conformance_store import a_spec

pytestmark = pytest.mark.real

NOT_ASKED = Skip("another test asks")
NOTHING = ChecksSpec(ParityCheck(), NOT_ASKED, NOT_ASKED, NOT_ASKED, NOT_ASKED, NOT_ASKED)
PASS, FAIL, INCONCLUSIVE, SKIPPED = CheckOutcome


class Site:
    """Two models, and where checks of them work."""

    def __init__(self, folder: Path, stable: Path, candidate: Path) -> None:
        self.workplace = Workplace(folder / "artefacts", folder / "scratch")
        self.workplace.scratch.mkdir()
        self.spec: ReleaseSpec = replace(
            a_spec(),
            stable=RevisionSpec("v1", OnnxModel(str(stable)), 30.0),
            candidate=RevisionSpec("v2", OnnxModel(str(candidate)), 30.0),
        )

    async def built(self) -> tuple[Built, Built]:
        sides = []
        for role, side in ((Role.STABLE, self.spec.stable), (Role.CANDIDATE, self.spec.candidate)):
            built, result = await build_side(self.spec.service, role, side, self.workplace.artefacts)
            assert built is not None, result.sentence
            sides.append(built)
        return sides[0], sides[1]

    async def checked(self, checks: ChecksSpec, serve: tuple[str, ...] = SERVE) -> dict[str, CheckResult]:
        stable, candidate = await self.built()
        spec = replace(self.spec, checks=checks)
        results = await check_served(spec, stable, candidate, self.workplace, serve=serve)
        return {result.check: result for result in results}


def of_scratch(folder: Path) -> list[str]:
    """Command lines of processes that have this folder in theirs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


async def test_a_good_candidate_passes_all_of_them_and_leaves_no_process(tmp_path: Path) -> None:
    site = Site(tmp_path, tiny_models.affine(tmp_path / "a.onnx"), tiny_models.affine(tmp_path / "b.onnx", bias=2.0))
    checks = replace(
        NOTHING,
        performance=PerformanceCheck(100.0, 2.0, ((0.5, 4.0),), min_throughput_ratio=0.2),
        cold_start=ColdStartCheck(max_first_request_ratio=50.0),
        boundary=BoundaryCheck(),
        capacity=CapacityCheck(0.01),
    )
    results = await site.checked(checks)
    assert {name: result.outcome for name, result in results.items()} == {
        "cold start": PASS, "performance": PASS, "capacity": PASS, "boundary": PASS,
    }, [result.sentence for result in results.values()]  # fmt: skip
    assert "v2's p50" in results["performance"].sentence
    assert "95 %: " in results["performance"].sentence
    assert "limit 4.00x" in results["performance"].sentence
    assert any(line.startswith("server: loaded: ") for line in results["cold start"].evidence)
    assert any(line.startswith("deep JSON: HTTP 400") for line in results["boundary"].evidence)
    assert not of_scratch(tmp_path)


async def test_a_candidate_that_takes_far_longer_fails_with_both_numbers(tmp_path: Path) -> None:
    """Both answer the same; one goes through 20,000 rounds for it."""
    np.savez(tmp_path / "rounds.npz", rounds=np.int64([1]))
    slow = many_rounds(tmp_path / "slow.onnx", 20_000)
    site = Site(tmp_path, many_rounds(tmp_path / "fast.onnx", 1), slow)
    checks = replace(NOTHING, performance=PerformanceCheck(50.0, 2.0, ((0.5, 1.5),)))
    result = (await site.checked(checks))["performance"]
    assert result.outcome is FAIL, result.sentence
    assert "v2's p50" in result.sentence
    assert "limit 1.50x" in result.sentence


async def test_a_candidate_that_fails_requests_that_stable_answers_fails(tmp_path: Path) -> None:
    np.savez(tmp_path / "ids.npz", id=np.int64([3, 3, 3]))
    site = Site(tmp_path, tiny_models.lookup(tmp_path / "a.onnx", 4), tiny_models.lookup(tmp_path / "b.onnx", 2))
    checks = replace(
        NOTHING,
        parity=ParityCheck(samples=str(tmp_path / "ids.npz")),
        performance=PerformanceCheck(50.0, 2.0),
        cold_start=ColdStartCheck(),
        boundary=BoundaryCheck(),
    )
    results = await site.checked(checks)
    assert {results[name].outcome for name in ("performance", "cold start", "boundary")} == {FAIL}
    assert "(HTTP 422), v1 none of as many" in results["performance"].sentence
    assert "does not answer a plain request, which stable answers: HTTP 422" in results["boundary"].sentence


async def test_ids_out_of_range_and_texts_that_are_none_are_refused_and_pass(tmp_path: Path) -> None:
    model = tiny_models.lookup(tmp_path / "a.onnx")
    result = (await Site(tmp_path, model, model).checked(replace(NOTHING, boundary=BoundaryCheck())))["boundary"]
    assert result.outcome is PASS, result.sentence
    assert any(line.startswith("id all the largest: HTTP 422") for line in result.evidence)


async def test_a_model_that_fails_on_an_odd_input_fails_the_boundary_check(tmp_path: Path) -> None:
    model = allocating(tmp_path / "a.onnx")
    result = (await Site(tmp_path, model, model).checked(replace(NOTHING, boundary=BoundaryCheck())))["boundary"]
    assert result.outcome is FAIL
    assert "HTTP 500, where a refusal is a 4xx" in result.sentence
    assert "size" in result.sentence


async def test_a_server_that_dies_of_a_request_fails_the_boundary_check_with_its_end(tmp_path: Path) -> None:
    model = tiny_models.affine(tmp_path / "a.onnx")
    serve = (sys.executable, "-c", DIES_OF_NAN)
    result = (await Site(tmp_path, model, model).checked(replace(NOTHING, boundary=BoundaryCheck()), serve))["boundary"]
    assert result.outcome is FAIL
    assert "x all NaN: its server was killed by SIGSEGV" in result.sentence


async def test_a_first_request_that_takes_long_is_measured_on_three_starts_and_fails(tmp_path: Path) -> None:
    model = tiny_models.affine(tmp_path / "a.onnx")
    serve = (sys.executable, "-c", FIRST_IS_SLOW)
    result = await Site(tmp_path, model, model).checked(replace(NOTHING, cold_start=ColdStartCheck()), serve)
    assert result["cold start"].outcome is FAIL, result["cold start"].sentence
    assert "median of 3 starts" in result["cold start"].sentence


async def test_too_little_free_memory_fails_with_both_shares(tmp_path: Path) -> None:
    model = tiny_models.affine(tmp_path / "a.onnx")
    result = (await Site(tmp_path, model, model).checked(replace(NOTHING, capacity=CapacityCheck(0.999))))["capacity"]
    assert result.outcome is FAIL
    assert "at least 99.9 % asked" in result.sentence


async def test_a_candidate_that_never_gets_ready_fails_with_its_last_words(tmp_path: Path) -> None:
    model = tiny_models.affine(tmp_path / "a.onnx")
    site = Site(tmp_path, model, model)
    renamed = OnnxModel(str(model), inputs=(TensorName("served", "nobody"),))
    site.spec = replace(site.spec, candidate=replace(site.spec.candidate, model=renamed))
    results = await site.checked(replace(NOTHING, boundary=BoundaryCheck()))
    assert results["cold start"].outcome is FAIL  # also where the check of the start itself is skipped
    assert "v2 does not start: its server exited with status 3" in results["cold start"].sentence
    assert "the model has no input 'nobody'" in results["cold start"].sentence
    assert results["boundary"].outcome is INCONCLUSIVE
    assert not of_scratch(tmp_path)


async def test_one_that_hangs_while_it_starts_fails_after_its_time(tmp_path: Path) -> None:
    model = tiny_models.affine(tmp_path / "a.onnx")
    site = Site(tmp_path, model, model)
    site.spec = replace(site.spec, stable=replace(site.spec.stable, ready_within_s=0.3))
    hangs = (sys.executable, "-c", "print('thinking', flush=True); import time; time.sleep(60)")
    results = await site.checked(replace(NOTHING, capacity=CapacityCheck()), hangs)
    assert results["capacity"].outcome is INCONCLUSIVE
    assert "not ready within 0.3 s (readyWithin); the last it said: thinking" in results["capacity"].sentence
    assert not of_scratch(tmp_path)


async def test_a_check_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    model = tiny_models.affine(tmp_path / "a.onnx")
    site = Site(tmp_path, model, model)
    running = asyncio.create_task(site.checked(replace(NOTHING, performance=PerformanceCheck(20.0, 60.0))))
    while not list(site.workplace.scratch.glob("candidate-*.log")):
        await asyncio.sleep(0.01)
    assert of_scratch(tmp_path)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not of_scratch(tmp_path)


async def test_what_is_skipped_starts_no_server_and_shows_why(tmp_path: Path) -> None:
    model = tiny_models.affine(tmp_path / "a.onnx")
    results = await Site(tmp_path, model, model).checked(NOTHING, ("/no/such/server",))
    assert {(result.outcome, result.sentence) for result in results.values()} == {
        (SKIPPED, "not run: another test asks")
    }


async def test_an_endpoint_is_asked_where_it_is_and_not_started(tmp_path: Path) -> None:
    model = tiny_models.affine(tmp_path / "a.onnx")
    site = Site(tmp_path, model, model)
    stable, _ = await site.built()
    async with serving(stable, "endpoint", site.workplace) as running:
        site.spec = replace(site.spec, candidate=replace(site.spec.candidate, model=EndpointModel(running.url)))
        checks = replace(NOTHING, cold_start=ColdStartCheck(), boundary=BoundaryCheck(), capacity=CapacityCheck(0.01))
        results = await site.checked(checks)
        assert running.process is not None
        assert await running.process.end(within_s=0.0) is None
    assert results["cold start"].outcome is SKIPPED
    assert results["boundary"].outcome is PASS, results["boundary"].sentence
    assert results["capacity"].outcome is PASS


# ---- models and servers with one fault each


def many_rounds(file: Path, rounds: int) -> Path:
    """x: INT64[1] -> y: INT64[1], equal, after so many rounds of a loop."""
    slow = tiny_models.slow(file)
    model = onnx.load(slow)
    inner = model.graph.node
    constants = {"rounds": np.int64([rounds])}
    graph = helper.make_graph(
        [*inner, helper.make_node("Identity", ["x"], ["y"])],
        "rounds",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [1])],
        [
            helper.make_tensor_value_info("y", TensorProto.INT64, [1]),
            helper.make_tensor_value_info("done", TensorProto.INT64, [1]),
        ],
        [*model.graph.initializer, *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


def allocating(file: Path) -> Path:
    """size: INT32[1] -> zeros: FP32[?], 1,024 times as many as `size` says: terabytes for the largest."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["size"], ["wide"], to=TensorProto.INT64),
            helper.make_node("Abs", ["wide"], ["positive"]),
            helper.make_node("Mul", ["positive", "thousand"], ["count"]),
            helper.make_node("ConstantOfShape", ["count"], ["zeros"]),
        ],
        "allocating",
        [helper.make_tensor_value_info("size", TensorProto.INT32, [1])],
        [helper.make_tensor_value_info("zeros", TensorProto.FLOAT, [None])],
        [numpy_helper.from_array(np.int64([1024]), "thousand")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


_PATCHED = """
import os, signal, time
import numpy
from graylift.serve import model
from graylift.serve.__main__ import main
infer = model.ServedModel.infer
{patch}
model.ServedModel.infer = patched
os._exit(main())
"""
DIES_OF_NAN = _PATCHED.format(
    patch="""
def patched(self, inputs):
    if any(tensor.dtype.kind == "f" and numpy.isnan(tensor).any() for tensor in inputs.values()):
        os.kill(os.getpid(), signal.SIGSEGV)
    return infer(self, inputs)
"""
)
FIRST_IS_SLOW = _PATCHED.format(
    patch="""
asked = []
def patched(self, inputs):
    if any(tensor.any() for tensor in inputs.values()):  # warm-up runs on zeros
        asked.append(1)
        time.sleep(0.1 * (len(asked) == 1))
    return infer(self, inputs)
"""
)
