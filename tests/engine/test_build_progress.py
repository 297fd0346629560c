"""How far a build is: in its process, over the pipe, and through the child that the checks start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st

from graylift.domain.engine import EngineSpec, Runtime
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.child import build_engine
from graylift.engine.progress import Sparing, line_from_progress, part_of, progress_from_line
from graylift.engine.tensorrt_messages import Phases, layers_from_inspector, layers_from_text
from graylift.errors import EngineError

Steps = list[tuple[str, float]]


@given(st.text(), st.floats(0, 1))
def test_a_step_survives_the_pipe(step: str, done: float) -> None:
    line = line_from_progress(step, done)
    assert line.count(b"\n") == 1
    assert progress_from_line(line) == (step, round(done, 3))


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"hello", b"{}", b"[1]", b"7", b'{"step": 1, "done": 1}', b'{"step": "a"}']
)
def test_other_lines_are_no_steps(line: bytes) -> None:
    assert progress_from_line(line) is None


@given(st.lists(st.tuples(st.sampled_from(["parse", "build"]), st.floats(allow_nan=False))))
def test_what_is_passed_on_never_falls_and_stays_within_bounds(told: Steps) -> None:
    passed: Steps = []
    sparing = Sparing(lambda step, done: passed.append((step, done)))
    for step, done in told:
        sparing(step, done)
    shares = [done for _, done in passed]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)


def test_a_vendor_that_tells_every_layer_is_passed_on_by_the_percent() -> None:
    passed: Steps = []
    sparing = Sparing(lambda step, done: passed.append((step, done)))
    for layer in range(100_000):
        sparing("layers", layer / 100_000)
    assert len(passed) <= 101


def test_a_piece_of_the_work_takes_its_part_of_the_whole() -> None:
    passed: Steps = []
    piece = part_of(lambda step, done: passed.append((step, done)), 0.2, 0.6)
    piece("begin", 0.0)
    piece("end", 1.0)
    assert passed == [("begin", 0.2), ("end", pytest.approx(0.6))]


def test_nested_phases_are_one_share_of_the_whole() -> None:
    phases = Phases()
    phases.start("build", None, 4)
    assert phases.share() == 0
    phases.step("build", 0)
    phases.start("optimise", "build", 2)
    assert phases.share() == 1 / 4
    phases.step("optimise", 0)
    phases.start("layers", "optimise", 10)
    phases.step("layers", 4)
    assert phases.share() == pytest.approx(1 / 4 + 1 / 8 + 1 / 16)
    phases.finish("layers")
    phases.finish("optimise")
    phases.step("build", 1)
    assert phases.share() == 1 / 2
    phases.step("unknown", 3)
    phases.finish("unknown")


def test_layers_are_told_by_the_build_and_by_the_inspector_alike() -> None:
    text = (
        "Layers:\nName: move_1, LayerType: kgen, Inputs: [ { Name: x, Datatype: Float, Format: row }], Constants: [], "
        "Outputs: [ { Name: y, Dimensions: [1], Datatype: Half, Format: row }], TacticName: , StreamId: 0\n"
        "Name: shape_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0\n"
    )
    entries = [
        {"Name": "move_1", "LayerType": "kgen", "Outputs": [{"Name": "y", "Datatype": "Half"}]},
        {"Name": "shape_0", "LayerType": "shape_call", "Outputs": []},
    ]
    layers = layers_from_text(text)
    assert [(layer.name, layer.kind, layer.datatype) for layer in layers] == [
        ("move_1", "kgen", "FP16"),
        ("shape_0", "shape_call", None),
    ]
    assert layers_from_inspector({"Layers": entries}) == layers


@pytest.mark.real
async def test_a_build_in_a_child_tells_its_steps_and_gives_its_manifest(tmp_path: Path) -> None:
    spec = EngineSpec(str(tiny_models.affine(tmp_path / "affine.onnx")), Runtime.ONNXRUNTIME)
    steps: Steps = []
    manifest = await build_engine(spec, tmp_path / "artefacts", lambda step, done: steps.append((step, done)))
    store = ArtefactStore(tmp_path / "artefacts")
    assert store.manifest(manifest.digest) == manifest
    assert steps[0] == ("reading the model", 0.0)
    assert steps[-1] == ("done", 1.0)
    assert len(steps) > 3
    again: Steps = []
    assert await build_engine(spec, tmp_path / "artefacts", lambda step, done: again.append((step, done))) == manifest
    assert again == [("reading the model", 0.0), ("found", 1.0)]
    inspection = store.inspect(manifest.digest)
    assert dict(inspection.graph) == {"Mul": 1, "Add": 1}
    assert [layer.kind for layer in inspection.layers] == ["Mul", "Add"]


@pytest.mark.real
async def test_what_libraries_print_does_not_get_between_the_lines(tmp_path: Path) -> None:
    spec = EngineSpec(str(tiny_models.affine(tmp_path / "affine.onnx")), Runtime.ONNXRUNTIME)
    noisy = """
import os, sys
from graylift.engine import __main__ as engine, artefacts
build = artefacts.ArtefactStore.build
def noisily(*arguments):
    os.write(1, b'{"digest": "of native code"}')
    return build(*arguments)
artefacts.ArtefactStore.build = noisily
sys.exit(engine.main())
"""
    command = (sys.executable, "-c", noisy, "build")
    assert (await build_engine(spec, tmp_path / "artefacts", command=command)).size_bytes > 0


@pytest.mark.real
async def test_a_build_that_fails_after_its_steps_gives_its_last_words(tmp_path: Path) -> None:
    failing = """
import sys
print('{"step": "building", "done": 0.5}', flush=True)
print("no room for layer 7", file=sys.stderr)
sys.exit(2)
"""
    spec = EngineSpec("m.onnx", Runtime.ONNXRUNTIME)
    steps: Steps = []
    with pytest.raises(EngineError, match=r"^no room for layer 7$"):
        await build_engine(
            spec,
            tmp_path / "artefacts",
            lambda step, done: steps.append((step, done)),
            command=(sys.executable, "-c", failing),
        )
    assert steps == [("building", 0.5)]
