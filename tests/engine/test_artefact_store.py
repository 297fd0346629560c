"""The store of engines: what is found again, what is refused, and what a crash may leave."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from graylift.domain.engine import EngineSpec, Manifest, Precision, Profile, ProfileShape, Runtime
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load
from graylift.engine.vendors import engine_file
from graylift.errors import EngineError


@pytest.fixture
def store(tmp_path: Path) -> ArtefactStore:
    return ArtefactStore(tmp_path / "artefacts")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_models.affine(tmp_path / "affine.onnx")


each_runtime = pytest.mark.parametrize("runtime", [Runtime.ONNXRUNTIME, Runtime.OPENVINO], ids=lambda r: r.value)


def build(store: ArtefactStore, file: Path, threads: int = 1, runtime: Runtime = Runtime.ONNXRUNTIME) -> Manifest:
    return store.build(EngineSpec(str(file), runtime, threads))


@each_runtime
def test_an_artefact_is_named_by_the_digest_of_its_bytes(store: ArtefactStore, model: Path, runtime: Runtime) -> None:
    manifest = build(store, model, runtime=runtime)
    engine = store.open(manifest.digest)
    assert hashlib.sha256(engine.read_bytes()).hexdigest() == manifest.digest == engine.parent.name
    assert manifest.size_bytes == engine.stat().st_size
    assert sorted(file.name for file in engine.parent.iterdir()) == sorted(
        [engine.name, "layers.json", "manifest.json"]
    )


def test_the_manifest_names_sources_options_versions_machine_and_interface(store: ArtefactStore, model: Path) -> None:
    manifest = build(store, model, threads=2)
    assert manifest.sources == (("affine.onnx", hashlib.sha256(model.read_bytes()).hexdigest()),)
    assert dict(manifest.options)["threads"] == "2"
    assert set(dict(manifest.versions)) == {"onnx", "onnxruntime"}
    assert manifest.machine.endswith("Linux")
    assert [str(spec) for spec in manifest.interface.inputs] == ["x: FP32[?,4]"]
    assert [str(spec) for spec in manifest.interface.outputs] == ["y: FP32[?,4]"]
    assert store.manifest(manifest.digest) == manifest


def test_the_same_build_is_found_and_not_repeated(store: ArtefactStore, model: Path, tmp_path: Path) -> None:
    first = build(store, model)
    copy = Path(shutil.copy(model, tmp_path / "another-name.onnx"))
    assert build(store, model) == build(store, copy) == first  # built_at_s included


@each_runtime
def test_what_shapes_the_build_changes_the_digest(
    store: ArtefactStore, model: Path, tmp_path: Path, runtime: Runtime
) -> None:
    other_model = tiny_models.affine(tmp_path / "other.onnx", bias=2.0)
    specs = [EngineSpec(str(model), runtime), EngineSpec(str(model), runtime, 2), EngineSpec(str(other_model), runtime)]
    specs += [replace(specs[0], precision=Precision.FP16), replace(specs[0], profiles=(batches(1, 4),))]
    specs += [replace(specs[0], profiles=(batches(1, 8),))]
    assert len({store.build(spec).digest for spec in specs}) == 6


def batches(smallest: int, largest: int) -> Profile:
    return Profile((ProfileShape("x", (smallest, 4), (smallest, 4), (largest, 4)),))


@each_runtime
def test_external_data_belongs_to_the_sources_and_goes_into_the_engine(
    store: ArtefactStore, tmp_path: Path, runtime: Runtime
) -> None:
    folder = tmp_path / "external"
    folder.mkdir()
    first = build(store, tiny_models.with_external_data(folder / "model.onnx", weight=3.0), runtime=runtime)
    assert [name for name, _ in first.sources] == ["model.onnx", "weights.bin"]
    (folder / "weights.bin").write_bytes(np.full(4, 5.0, np.float32).tobytes())
    second = build(store, folder / "model.onnx", runtime=runtime)
    assert second.digest != first.digest
    shutil.rmtree(folder)
    for manifest, weight in ((first, 3.0), (second, 5.0)):
        runner = load(store, manifest.digest)
        assert runner.infer({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[weight] * 4]


def test_missing_external_data_is_named(store: ArtefactStore, tmp_path: Path) -> None:
    file = tiny_models.with_external_data(tmp_path / "model.onnx")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(EngineError, match=r"external data file 'weights\.bin' is missing"):
        build(store, file)


def test_short_external_data_is_refused(store: ArtefactStore, tmp_path: Path) -> None:
    file = tiny_models.with_external_data(tmp_path / "model.onnx")
    (tmp_path / "weights.bin").write_bytes(b"12")
    with pytest.raises(EngineError, match=r"model\.onnx: cannot be (read|built)"):
        build(store, file)


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname"])
def test_external_data_from_elsewhere_is_refused(store: ArtefactStore, tmp_path: Path, location: str) -> None:
    file = tiny_models.with_external_data(tmp_path / "model.onnx", location="w" * len(location))
    file.write_bytes(file.read_bytes().replace(b"w" * len(location), location.encode()))
    with pytest.raises(EngineError, match="must lie beside the model"):
        build(store, file)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"is no ONNX model \(0 bytes"),
        (b"hello, I am a text file", "is no ONNX model, or a damaged one"),
        (b"\x08\x09", r"is no ONNX model \(2 bytes"),
    ],
)
def test_a_file_that_is_no_model_is_refused(
    store: ArtefactStore, tmp_path: Path, content: bytes, sentence: str
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(EngineError, match=sentence):
        build(store, file)


@each_runtime
def test_a_truncated_model_is_refused_wherever_it_was_cut(
    store: ArtefactStore, model: Path, tmp_path: Path, runtime: Runtime
) -> None:
    whole = model.read_bytes()
    file = tmp_path / "cut.onnx"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(EngineError, match=r"cut\.onnx"):
            build(store, file, runtime=runtime)


def test_a_model_that_is_not_there_is_named(store: ArtefactStore, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"nowhere\.onnx does not exist"):
        build(store, tmp_path / "nowhere.onnx")


def test_an_unknown_operator_is_named(store: ArtefactStore, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="Frobnicate"):
        build(store, tiny_models.unknown_operator(tmp_path / "model.onnx"))


def test_an_input_without_a_rank_is_refused_with_the_cure(store: ArtefactStore, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"input 'x' declares no shape.*export the model with"):
        build(store, tiny_models.without_rank(tmp_path / "model.onnx"))


def test_an_output_that_is_no_tensor_is_refused(store: ArtefactStore, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"'y' is a seq\(tensor\(float\)\), which cannot be served"):
        build(store, tiny_models.sequence_output(tmp_path / "model.onnx"))


def test_no_threads_are_refused(store: ArtefactStore, model: Path) -> None:
    with pytest.raises(EngineError, match="at least 1 thread, not 0"):
        build(store, model, threads=0)


@each_runtime
def test_a_damaged_engine_is_not_opened_and_a_new_build_mends_it(
    store: ArtefactStore, model: Path, runtime: Runtime
) -> None:
    manifest = build(store, model, runtime=runtime)
    engine = store.open(manifest.digest)
    engine.write_bytes(engine.read_bytes()[:-1] + b"!")
    with pytest.raises(EngineError, match=r"is damaged: its bytes have digest .* build it again"):
        store.open(manifest.digest)
    assert store.open(build(store, model, runtime=runtime).digest)


@each_runtime
def test_an_engine_of_another_version_of_the_runtime_is_refused_before_it_is_loaded(
    store: ArtefactStore, model: Path, runtime: Runtime
) -> None:
    manifest = build(store, model, runtime=runtime)
    passport = store.open(manifest.digest).with_name("manifest.json")
    installed = dict(manifest.versions)[runtime.value]
    passport.write_text(passport.read_text().replace(f'"{installed}"', '"0.9.1"'))
    cure = f"install {runtime.value}==0.9.1, or build it again"
    with pytest.raises(EngineError, match=f"built with {runtime.value} 0.9.1, but {installed} is installed; {cure}"):
        load(store, manifest.digest)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"digest": 1}'])
def test_a_damaged_manifest_is_said_to_be_damaged(store: ArtefactStore, model: Path, content: bytes) -> None:
    manifest = build(store, model)
    store.open(manifest.digest).with_name("manifest.json").write_bytes(content)
    with pytest.raises(EngineError, match=r"manifest\.json is damaged"):
        store.manifest(manifest.digest)
    assert build(store, model).digest == manifest.digest


@pytest.mark.parametrize("digest", ["", "..", "../../etc", "a" * 63, "A" * 64])
def test_only_a_digest_names_an_artefact(store: ArtefactStore, digest: str) -> None:
    with pytest.raises(EngineError, match="is no digest of an artefact"):
        store.open(digest)


def test_an_artefact_that_was_never_built_is_said_to_be_missing(store: ArtefactStore) -> None:
    with pytest.raises(EngineError, match=r"no artefact 0000.* build it first"):
        store.open("0" * 64)


@each_runtime
def test_what_a_killed_build_leaves_is_in_nobodys_way(
    store: ArtefactStore, model: Path, tmp_path: Path, runtime: Runtime
) -> None:
    manifest = build(store, model, runtime=runtime)
    artefacts = tmp_path / "artefacts"
    (pointer,) = (file for file in (artefacts / "builds").iterdir() if file.suffix == "")

    # killed while it built, with half an engine
    shutil.rmtree(artefacts / manifest.digest)
    pointer.unlink()
    part = pointer.with_suffix(".part")
    part.mkdir()
    (part / engine_file(runtime)).write_bytes(b"half")
    assert store.open(build(store, model, runtime=runtime).digest)
    assert not part.exists()

    # killed after the artefact was in place, before it was pointed to
    pointer.unlink()
    pointer.with_suffix(".new").write_text("half")
    assert store.open(build(store, model, runtime=runtime).digest)

    # somebody removed the artefact
    shutil.rmtree(artefacts / manifest.digest)
    assert store.open(build(store, model, runtime=runtime).digest)


def command(artefacts: Path, model: Path, runtime: Runtime = Runtime.ONNXRUNTIME) -> list[str]:
    return [sys.executable, "-m", "graylift.engine", "build", "--artefacts", str(artefacts), "--onnx", str(model),
            "--runtime", runtime.value, "--threads", "1"]  # fmt: skip


@contextmanager
def held_up_build(artefacts: Path, model: Path, key: str) -> Generator[subprocess.Popen[bytes]]:
    """A build that has read its sources and waits for the lock, as if another process were building the same."""
    with (artefacts / "builds" / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(command(artefacts, model), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not re.search(rf"-> FLOCK .* {waiting.pid} ", Path("/proc/locks").read_text()):
            assert waiting.poll() is None, "it did not wait"
            time.sleep(0.01)
        yield waiting


@pytest.mark.real
@each_runtime
def test_of_two_builds_at_once_one_builds_and_both_get_it(model: Path, tmp_path: Path, runtime: Runtime) -> None:
    started = [
        subprocess.Popen(
            command(tmp_path / "artefacts", model, runtime), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    results = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    lines = {output for output, _ in results}
    assert len(lines) == 1  # built_at_s included: one build
    assert {errors for _, errors in results} == {b""}
    manifest = json.loads(lines.pop())
    assert ArtefactStore(tmp_path / "artefacts").open(manifest["digest"])


@pytest.mark.real
def test_who_waited_for_another_build_takes_what_that_one_built(model: Path, tmp_path: Path) -> None:
    manifest = build(ArtefactStore(tmp_path / "built"), model)
    (pointer,) = (file for file in (tmp_path / "built" / "builds").iterdir() if file.suffix == "")
    artefacts = tmp_path / "artefacts"
    (artefacts / "builds").mkdir(parents=True)
    with held_up_build(artefacts, model, pointer.name) as waiting:
        shutil.copytree(tmp_path / "built" / manifest.digest, artefacts / manifest.digest)
        shutil.copy(pointer, artefacts / "builds")
    output, _ = waiting.communicate(timeout=60)
    assert json.loads(output)["built_at_s"] == manifest.built_at_s


@pytest.mark.real
def test_a_model_that_changes_while_it_is_built_gives_no_artefact(model: Path, tmp_path: Path) -> None:
    build(ArtefactStore(tmp_path / "built"), model)
    (pointer,) = (file for file in (tmp_path / "built" / "builds").iterdir() if file.suffix == "")
    artefacts = tmp_path / "artefacts"
    (artefacts / "builds").mkdir(parents=True)
    with held_up_build(artefacts, model, pointer.name) as waiting:
        tiny_models.affine(model, scale=7.0)
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 2
    assert b"changed while it was built; build it again" in errors
    assert [folder.name for folder in artefacts.iterdir()] == ["builds"]


@pytest.mark.real
def test_the_build_command_says_in_one_sentence_why_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    ended = subprocess.run(
        command(tmp_path / "artefacts", tmp_path / "model.onnx"), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert "is no ONNX model" in ended.stderr


@pytest.mark.real
@each_runtime
@pytest.mark.parametrize("limit", [0, 20_000, 300_000], ids=lambda limit: f"after {limit} bytes")
def test_a_full_disk_leaves_no_half_artefact(tmp_path: Path, runtime: Runtime, limit: int) -> None:
    model = tiny_models.lookup(tmp_path / "lookup.onnx", rows=50_000)  # 400 kB
    artefacts = tmp_path / "artefacts"
    ended = subprocess.run(
        command(artefacts, model, runtime),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "nothing was kept" in ended.stderr or runtime is Runtime.ONNXRUNTIME
    assert {file.suffix for file in (artefacts / "builds").iterdir()} == {".lock"}
    assert [folder.name for folder in artefacts.iterdir()] == ["builds"]
    assert build(ArtefactStore(artefacts), model, runtime=runtime)
