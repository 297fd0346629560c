"""The checklist on real models, real builds: each side is bound by digest, and what is wrong is a result."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from graylift.checks.checklist import LocalChecklist
from graylift.domain.release import CheckReport
from graylift.domain.revision import RunningEndpoint, ServedEngine
from graylift.domain.spec import ChecksSpec, EndpointModel, OnnxModel, ReleaseSpec, RevisionSpec, Skip, TensorName
from graylift.testing.conformance_store import a_spec

pytestmark = pytest.mark.real

FITS = (sys.executable, "-c", "print('[]')")
"""A check of compatibility that has nothing against any model."""


def a_model(folder: Path, name: str, output: str = "y", operator: str = "Relu") -> OnnxModel:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], [output])],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, 4])],
    )
    file = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), file)
    return OnnxModel(str(file))


def a_release_of(stable: OnnxModel, candidate: OnnxModel | EndpointModel) -> ReleaseSpec:
    skip = Skip("not what these tests are about")
    return replace(
        a_spec(),
        stable=RevisionSpec("v1", stable, 12.0),
        candidate=RevisionSpec("v2", candidate, 34.0),
        checks=ChecksSpec(skip, skip, skip, skip, skip, skip),
    )


def sentences(report: CheckReport) -> dict[str, str]:
    return {result.check: result.sentence for result in report.results}


async def test_both_sides_are_built_bound_and_compared(tmp_path: Path) -> None:
    spec = a_release_of(a_model(tmp_path, "v1"), a_model(tmp_path, "v2", operator="Sigmoid"))
    report = await LocalChecklist(tmp_path / "artefacts").run(spec)
    assert report.passed, sentences(report)
    assert [result.check for result in report.results] == [
        "compatibility stable", "compatibility candidate",
        "build stable", "build candidate", "interface", "parity", "concurrency",
        "cold start", "performance", "capacity", "boundary",
    ]  # fmt: skip
    assert report.stable is not None
    assert report.candidate is not None
    assert isinstance(report.stable.backend, ServedEngine)
    assert (tmp_path / "artefacts" / report.stable.backend.artefact).is_dir()
    assert report.stable.digest != report.candidate.digest
    assert report.candidate.ready_within_s == 34.0
    engine = report.stable.backend.artefact
    assert f"v1 is engine {engine[:12]} (" in sentences(report)["build stable"]
    assert f"engine {engine}" in report.results[2].evidence


async def test_what_was_built_is_found_again_and_equal_models_are_one_artefact(tmp_path: Path) -> None:
    model = a_model(tmp_path, "v1")
    checklist = LocalChecklist(tmp_path / "artefacts")
    first = await checklist.run(a_release_of(model, model))
    assert await checklist.run(a_release_of(model, model)) == first
    assert first.stable is not None
    assert first.candidate is not None
    assert first.stable.digest == first.candidate.digest
    assert first.stable.id != first.candidate.id


async def test_everything_that_changes_what_is_served_changes_the_revision(tmp_path: Path) -> None:
    model = a_model(tmp_path, "v1")
    checklist = LocalChecklist(tmp_path / "artefacts")
    renamed = replace(model, outputs=(TensorName("z", "y"),))
    swapped = replace(model, inputs=(TensorName("z", "x"),))
    reports = [await checklist.run(a_release_of(model, other)) for other in (renamed, swapped)]
    digests = {revision.digest for report in reports for revision in (report.stable, report.candidate) if revision}
    assert len(digests) == 3


async def test_files_of_the_working_directory_are_not_taken_for_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnx.py").write_text("raise ImportError('the wrong onnx')")
    monkeypatch.chdir(tmp_path)
    model = a_model(tmp_path, "v1")
    assert (await LocalChecklist(tmp_path / "artefacts").run(a_release_of(model, model))).passed


async def test_a_model_that_is_no_onnx_is_a_check_that_failed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    report = await LocalChecklist(tmp_path / "artefacts").run(
        a_release_of(a_model(tmp_path, "v1"), OnnxModel(str(broken)))
    )
    assert not report.passed
    assert report.stable is not None
    assert report.candidate is None
    assert [(result.check, result.lets_through) for result in report.results] == [
        ("compatibility stable", True),
        ("compatibility candidate", False),
        ("build stable", True),
        ("build candidate", True),  # skipped
    ]
    assert "broken.onnx is no ONNX model" in sentences(report)["compatibility candidate"]
    assert sentences(report)["build candidate"].startswith("v2 was not built")


async def test_models_whose_outputs_have_other_names_are_refused_with_the_cure(tmp_path: Path) -> None:
    spec = a_release_of(a_model(tmp_path, "v1"), a_model(tmp_path, "v2", output="y.1"))
    checklist = LocalChecklist(tmp_path / "artefacts")
    report = await checklist.run(spec)
    assert not report.passed
    assert sentences(report)["interface"].endswith("write in candidate.model: outputs: {y: y.1}")
    model = spec.candidate.model
    assert isinstance(model, OnnxModel)
    cured = replace(model, outputs=(TensorName("y", "y.1"),))
    assert (await checklist.run(replace(spec, candidate=replace(spec.candidate, model=cured)))).passed


async def test_an_endpoint_needs_no_build_and_is_bound_by_its_url(tmp_path: Path) -> None:
    report = await LocalChecklist(tmp_path / "artefacts").run(
        a_release_of(a_model(tmp_path, "v1"), EndpointModel("http://127.0.0.1:1"))
    )
    assert report.candidate is not None
    assert report.candidate.backend == RunningEndpoint("http://127.0.0.1:1")
    assert sentences(report)["build candidate"] == "v2 runs at http://127.0.0.1:1 already: nothing to build"
    assert "v2's server is away" in sentences(report)["interface"]


@pytest.mark.parametrize(
    ("builder", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", "the build was killed by SIGSEGV; the last it said: it said nothing"),
        ("import sys; sys.exit('no space left')", "the build ended with status 1: no space left"),
        ("print('{}')", "the build gave no manifest but '{}'"),
    ],
)
async def test_a_build_that_goes_wrong_otherwise_says_how(tmp_path: Path, builder: str, said: str) -> None:
    checklist = LocalChecklist(tmp_path / "artefacts", build=(sys.executable, "-c", builder), check=FITS)
    report = await checklist.run(a_release_of(OnnxModel("v1.onnx"), OnnxModel("v2.onnx")))
    assert not report.passed
    assert sentences(report)["build stable"] == f"v1 cannot be built: {said}"


async def test_a_builder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    checklist = LocalChecklist(tmp_path / "artefacts", build=("/no/such/python",), check=FITS)
    report = await checklist.run(a_release_of(OnnxModel("v1.onnx"), OnnxModel("v2.onnx")))
    assert "cannot be started with /no/such/python: No such file or directory" in sentences(report)["build stable"]


async def test_cancelling_ends_the_build(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    builder = f"""
import os, pathlib, time
new = pathlib.Path({str(noted)!r} + ".new")
new.write_text(str(os.getpid()))
new.rename({str(noted)!r})
time.sleep(60)
"""
    checklist = LocalChecklist(tmp_path / "artefacts", build=(sys.executable, "-c", builder), check=FITS)
    running = asyncio.create_task(checklist.run(a_release_of(OnnxModel("v1.onnx"), OnnxModel("v2.onnx"))))
    while not noted.exists():
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not Path(f"/proc/{noted.read_text()}").exists()
