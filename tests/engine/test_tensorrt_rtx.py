"""TensorRT-RTX engines: the real builder, which needs no GPU. What runs an engine needs one: `test_tensorrt_gpu`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import tiny_models

from graylift.demo.minilm import fetch_model
from graylift.demo.models import Package, PackagedFile, default_cache, fetch
from graylift.domain.engine import EngineSpec, Inspection, Precision, Runtime
from graylift.engine import cuda
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.child import build_engine
from graylift.engine.load import load
from graylift.engine.tensorrt_vendor import why_not_on
from graylift.errors import EngineError
from graylift.spec.profiles import profiles_from_texts

pytest.importorskip("tensorrt_rtx_bindings", reason="needs graylift[tensorrt-rtx]")
pytestmark = pytest.mark.real

PROFILES = profiles_from_texts([
    "ids=1x8,1x16,4x64", "mask=1x8,1x16,4x64",
    "ids=4x64,8x128,32x256", "mask=4x64,8x128,32x256",
])  # fmt: skip


OCR_MODEL = Package(
    "rapidocr-onnxruntime",
    "1.4.4",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    (
        PackagedFile(
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        ),
    ),
)


def spec_of(file: Path, **changes: object) -> EngineSpec:
    return replace(EngineSpec(str(file), Runtime.TENSORRT_RTX, profiles=PROFILES), **changes)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "artefacts")


@pytest.fixture
def transformer(tmp_path: Path) -> Path:
    return tiny_models.transformer(tmp_path / "transformer.onnx")


def refused(store: ArtefactStore, spec: EngineSpec) -> str:
    with pytest.raises(EngineError) as caught:
        store.build(spec)
    return str(caught.value)


@pytest.fixture(scope="module")
def text_recognition(tmp_path_factory: pytest.TempPathFactory) -> tuple[ArtefactStore, Inspection]:
    """PP-OCR's recogniser, a real convolutional model, in FP16 with two profiles."""
    (model,) = fetch(OCR_MODEL, default_cache(), lambda _: None)
    store = ArtefactStore(tmp_path_factory.mktemp("rtx"))
    profiles = profiles_from_texts(["x=1x3x48x64,1x3x48x320,1x3x48x640", "x=1x3x48x64,8x3x48x320,32x3x48x640"])
    spec = EngineSpec(str(model), Runtime.TENSORRT_RTX, precision=Precision.FP16, profiles=profiles)
    return store, store.inspect(store.build(spec).digest)


def test_a_real_model_is_built_and_described(text_recognition: tuple[ArtefactStore, Inspection]) -> None:
    store, inspection = text_recognition
    manifest = inspection.manifest
    assert hashlib.sha256(store.open(manifest.digest).read_bytes()).hexdigest() == manifest.digest
    assert [str(spec) for spec in manifest.interface.inputs] == ["x: FP32[?,3,?,?]"]
    assert [spec.datatype for spec in manifest.interface.outputs] == ["FP32"]
    assert len(manifest.profiles) == 2
    assert manifest.precision is Precision.FP16
    assert dict(manifest.options)["gpu"] == "compute capability 8.0, 8.6, 8.9, 12.0, 12.1 and newer"
    assert set(dict(manifest.versions)) == {"onnx", "tensorrt-rtx"}
    assert dict(inspection.graph)["Conv"] == 38
    nodes = sum(count for operator, count in inspection.graph if operator != "Constant")
    assert 0 < len(inspection.layers) < nodes / 2  # fused
    halves = sum(layer.datatype == "FP16" for layer in inspection.layers)
    assert halves > 0.9 * len(inspection.layers)


def test_a_real_transformer_is_built_with_two_profiles_and_described(store: ArtefactStore, tmp_path: Path) -> None:
    model = fetch_model(default_cache(), tmp_path / "minilm.onnx", lambda _: None)
    inputs = ("attention_mask", "input_ids", "token_type_ids")
    ranges = ("1x8,1x32,4x64", "4x64,8x128,32x256")
    profiles = profiles_from_texts([f"{name}={sizes}" for sizes in ranges for name in inputs])
    manifest = store.build(spec_of(model, precision=Precision.FP16, profiles=profiles))
    inspection = store.inspect(manifest.digest)
    assert [str(spec) for spec in manifest.interface.outputs] == ["sentence_embedding: FP32[?,384]"]
    assert len(manifest.profiles) == 2
    assert 0 < len(inspection.layers) < sum(count for _, count in inspection.graph)
    assert sum(layer.datatype == "FP16" for layer in inspection.layers) > len(inspection.layers) / 2


@pytest.mark.skipif(bool(cuda.devices()), reason="for machines without a GPU")
def test_without_a_gpu_an_engine_is_refused_with_the_reason(
    text_recognition: tuple[ArtefactStore, Inspection],
) -> None:
    store, inspection = text_recognition
    with pytest.raises(EngineError, match=r"does not run here: this machine has no NVIDIA driver.*capability 8\.0"):
        load(store, inspection.manifest.digest)


def test_an_artefact_is_described_on_the_command_line(transformer: Path, tmp_path: Path) -> None:
    manifest = ArtefactStore(tmp_path / "artefacts").build(spec_of(transformer))
    inspect = [sys.executable, "-m", "graylift.engine", "inspect", "--artefacts", str(tmp_path / "artefacts")]
    ended = subprocess.run([*inspect, manifest.digest], capture_output=True, check=True)
    document = json.loads(ended.stdout)
    assert document["runs_on"] == f"{manifest.system}, with a GPU: {dict(manifest.options)['gpu']}"
    assert document["inspection"]["manifest"]["digest"] == manifest.digest
    assert {"MatMul", "Softmax"} <= {operator for operator, _ in document["inspection"]["graph"]}
    assert document["inspection"]["layers"][0].keys() == {"name", "kind", "datatype", "provider"}
    assert cuda.devices() or "no NVIDIA driver" in document["why_not_here"]


def test_a_changed_byte_is_found_before_the_runtime_sees_the_engine(store: ArtefactStore, transformer: Path) -> None:
    manifest = store.build(spec_of(transformer))
    engine = store.open(manifest.digest)
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(content)
    with pytest.raises(EngineError, match=r"engine\.plan is damaged: its bytes have digest"):
        load(store, manifest.digest)


def test_an_engine_of_another_version_or_machine_is_refused(store: ArtefactStore, transformer: Path) -> None:
    manifest = store.build(spec_of(transformer))
    file = store.open(manifest.digest).with_name("manifest.json")
    text = file.read_text()
    file.write_text(text.replace(dict(manifest.versions)["tensorrt-rtx"], "1.6.0.1"))
    with pytest.raises(EngineError, match=r"built with TensorRT-RTX 1\.6\.0\.1, and this is .* build it again"):
        load(store, manifest.digest)
    file.write_text(text.replace('"x86_64, ', '"aarch64, '))
    with pytest.raises(EngineError, match=r"it was built on aarch64, Linux, and this is x86_64, Linux"):
        load(store, manifest.digest)


@pytest.mark.parametrize(
    ("built_for", "capability", "runs"),
    [
        ("compute capability 8.0, 8.6, 8.9, 12.0, 12.1 and newer", "8.9", True),
        ("compute capability 8.0, 8.6, 8.9, 12.0, 12.1 and newer", "12.3", True),
        ("compute capability 8.0, 8.6, 8.9, 12.0, 12.1 and newer", "9.0", False),  # Hopper is no RTX GPU
        ("compute capability 8.0, 8.6, 8.9, 12.0, 12.1 and newer", "7.5", False),
        ("compute capability 8.9", "12.0", False),
        ("NVIDIA H200, compute capability 9.0", "9.0", True),
        ("NVIDIA L4, compute capability 8.9", "9.0", False),
    ],
)
def test_an_engine_runs_on_what_it_was_built_for_alone(built_for: str, capability: str, runs: bool) -> None:
    reason = why_not_on(cuda.Gpu("NVIDIA H200", capability, "13.0"), {"gpu": built_for})
    assert (reason is None) is runs
    if reason is not None:
        assert f"it is built for {built_for}; this machine's GPU is NVIDIA H200 (compute capability" in reason


@pytest.mark.parametrize(("precision", "datatype"), [(Precision.FP32, "FP32"), (Precision.BF16, "BF16")])
def test_the_layers_compute_in_the_precision_that_was_asked_for(
    store: ArtefactStore, transformer: Path, precision: Precision, datatype: str
) -> None:
    inspection = store.inspect(store.build(spec_of(transformer, precision=precision)).digest)
    assert datatype in {layer.datatype for layer in inspection.layers if layer.kind == "gemm"}
    assert {spec.datatype for spec in inspection.manifest.interface.outputs} == {"FP32"}


def test_two_builds_give_one_artefact_and_each_option_another(store: ArtefactStore, transformer: Path) -> None:
    first = store.build(spec_of(transformer))
    again = spec_of(transformer, threads=2)  # of the CPU: nothing of this engine depends on them
    assert store.build(again) == first  # built_at_s included
    others = (
        # Without its build's name inside, these two would be equal to the last bit.
        spec_of(transformer, settings=(("workspace", "4GiB"),)),
        spec_of(transformer, settings=(("workspace", "4096MiB"),)),
        spec_of(transformer, profiles=PROFILES[:1]),
        spec_of(transformer, settings=(("computeCapability", "8.9"),)),
    )
    manifests = [first, *map(store.build, others)]
    assert len({manifest.digest for manifest in manifests}) == 5
    assert [store.manifest(manifest.digest) for manifest in manifests] == manifests


def test_an_operator_that_it_does_not_know_is_named(store: ArtefactStore, transformer: Path) -> None:
    model = onnx.load(transformer)
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, transformer)
    assert "operator Frobnicate, node 'embedding': no such operator" in refused(store, spec_of(transformer))


def test_a_profile_against_the_graph_and_none_at_all_are_refused(store: ArtefactStore, transformer: Path) -> None:
    assert "give the sizes you serve, as in --profile ids=1x1," in refused(store, spec_of(transformer, profiles=()))
    apart = profiles_from_texts(["ids=1x8,1x16,4x64", "mask=1x8,1x16,4x32"])
    assert "dimension 'length' is one size" in refused(store, spec_of(transformer, profiles=apart))


def test_a_profile_that_only_the_runtime_finds_impossible_is_refused_with_its_reason(store: ArtefactStore) -> None:
    (model,) = fetch(OCR_MODEL, default_cache(), lambda _: None)
    low = profiles_from_texts(["x=1x3x32x64,1x3x32x64,1x3x32x64"])  # the graph says "?" and means 48
    assert "p2o.Reshape" in refused(store, EngineSpec(str(model), Runtime.TENSORRT_RTX, profiles=low))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"precision": Precision.INT8}, "does not lower a model to int8; it has fp32, fp16, bf16"),
        ({"settings": (("computeCapability", "9.0"),)}, "9.0; it does for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"),
        ({"settings": (("computeCapability", "new"),)}, "is one or several, as in 8.6,8.9, not 'new'"),
        ({"settings": (("turbo", "on"),)}, "has no setting 'turbo'; it has workspace (a size, as in 4GiB)"),
        ({"settings": (("workspace", "4 apples"),)}, "the setting workspace is a size, as in 4GiB, not '4 apples'"),
    ],
)
def test_what_it_cannot_do_is_refused_with_what_it_can(
    store: ArtefactStore, transformer: Path, changes: dict[str, object], said: str
) -> None:
    assert said in refused(store, spec_of(transformer, **changes))


@pytest.mark.parametrize("datatype", ["BYTES", "FP64"])
def test_a_datatype_that_it_does_not_have_is_named(store: ArtefactStore, tmp_path: Path, datatype: str) -> None:
    file = tiny_models.identity(tmp_path / "identity.onnx", datatype)
    profiles = profiles_from_texts(["x=1x1,1x1,1x1"])
    said = refused(store, EngineSpec(str(file), Runtime.TENSORRT_RTX, profiles=profiles))
    assert "type" in said
    assert "identity.onnx" in said


async def test_a_build_tells_its_steps_and_never_goes_back(tmp_path: Path, transformer: Path) -> None:
    steps: list[tuple[str, float]] = []
    await build_engine(spec_of(transformer), tmp_path / "artefacts", lambda step, done: steps.append((step, done)))
    names, shares = zip(*steps, strict=True)
    assert [names[0], names[-1]] == ["reading the model", "done"]
    assert "parsing the model" in names
    assert any("graph" in name for name in names)  # TensorRT's own words
    assert list(shares) == sorted(shares)
    assert [shares[0], shares[-1]] == [0.0, 1.0]


def command(artefacts: Path, file: Path) -> list[str]:
    return [sys.executable, "-m", "graylift.engine", "build", "--progress", "--artefacts", str(artefacts),
            "--runtime", "tensorrt-rtx", "--onnx", str(file),
            "--profile", "ids=1x8,1x16,4x64", "--profile", "mask=1x8,1x16,4x64"]  # fmt: skip


def stop_in_the_middle(artefacts: Path, file: Path, number: signal.Signals) -> tuple[int, bytes]:
    """Exit status and complaints of a build that got the signal while TensorRT was at work."""
    with subprocess.Popen(command(artefacts, file), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if b"graph" in line:
                break
        process.send_signal(number)
        complaints = process.stderr.read()
    return process.returncode, complaints


def test_an_interrupted_build_keeps_nothing(tmp_path: Path) -> None:
    large = tiny_models.transformer(tmp_path / "large.onnx", layers=40)
    status, complaints = stop_in_the_middle(tmp_path / "artefacts", large, signal.SIGINT)
    assert complaints == b"interrupted; nothing was kept\n"
    assert status == 130
    assert nothing_is_left(tmp_path / "artefacts")


def test_what_a_killed_build_leaves_the_next_build_of_anything_removes(tmp_path: Path) -> None:
    large = tiny_models.transformer(tmp_path / "large.onnx", layers=40)
    status, _ = stop_in_the_middle(tmp_path / "artefacts", large, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert list((tmp_path / "artefacts" / "builds").glob("*.part"))
    other = tiny_models.affine(tmp_path / "affine.onnx")
    manifest = ArtefactStore(tmp_path / "artefacts").build(EngineSpec(str(other), Runtime.ONNXRUNTIME))
    assert not list((tmp_path / "artefacts" / "builds").glob("*.part"))
    assert {folder.name for folder in (tmp_path / "artefacts").iterdir()} == {"builds", manifest.digest}


async def test_a_cancelled_build_ends_and_leaves_nothing(tmp_path: Path) -> None:
    large = tiny_models.transformer(tmp_path / "large.onnx", layers=40)
    at_work = asyncio.Event()

    def heard(step: str, done: float) -> None:
        if "graph" in step:
            at_work.set()

    building = asyncio.create_task(build_engine(spec_of(large), tmp_path / "artefacts", heard))
    await at_work.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert nothing_is_left(tmp_path / "artefacts")


def test_a_full_disk_leaves_no_half_artefact(tmp_path: Path, transformer: Path) -> None:
    ended = subprocess.run(
        command(tmp_path / "artefacts", transformer),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert ended.returncode == 2, ended.stderr
    assert "cannot write the artefact under" in ended.stderr
    assert nothing_is_left(tmp_path / "artefacts")


def nothing_is_left(artefacts: Path) -> bool:
    return [folder.name for folder in artefacts.iterdir()] == ["builds"] and {
        file.suffix for file in (artefacts / "builds").iterdir()
    } == {".lock"}


@pytest.mark.parametrize(
    ("runtime", "package", "install"),
    [("tensorrt", "tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx_bindings", "'graylift[tensorrt-rtx]'")],
)
def test_a_runtime_that_is_not_there_is_named_with_the_command_that_installs_it(
    tmp_path: Path, runtime: str, package: str, install: str
) -> None:
    absent = f"import sys; sys.modules[{package!r}] = None; from graylift.engine.__main__ import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", absent, "check", "--onnx", str(tmp_path / "m.onnx"), "--runtime", runtime],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.strip().endswith(f"install it with: pip install {install}")
