"""`graylift build` and `inspect` on small real models: what they say, how they end, what they leave."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import signal
from pathlib import Path

import pytest
import tiny_models
from calling import Shell

pytestmark = pytest.mark.real


def test_a_model_becomes_an_engine_and_is_found_the_second_time(shell: Shell) -> None:
    model = tiny_models.affine(shell.folder / "affine.onnx")
    first, second = (shell.call("build", model, "--json") for _ in range(2))

    assert (first.code, second.code) == (0, 0), first.err
    assert (first.json["found"], second.json["found"]) == (False, True)
    assert {**first.json, "found": True} == second.json
    digest, folder = first.json["digest"], Path(first.json["path"])
    assert hashlib.sha256((folder / "engine.onnx").read_bytes()).hexdigest() == digest
    assert folder == shell.artefacts / digest
    assert first.json["interface"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]


def test_a_person_reads_how_far_it_is_and_what_came_of_it(shell: Shell) -> None:
    said = shell.call("build", tiny_models.affine(shell.folder / "affine.onnx"), "--threads", "2")

    assert said.code == 0, said.err
    for shown in ("reading the model", "100%", "precision", "fp32", "every shape", "x: FP32[?,4]", "threads=2"):
        assert shown in said.out
    digest = next(path.parent.name for path in shell.artefacts.glob("*/manifest.json"))
    assert f"{shell.artefacts.name}/{digest}" in said.out
    assert f"graylift inspect {digest[:12]}" in said.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["missing.onnx"], "missing.onnx does not exist"),
        (["text.onnx"], "text.onnx is no ONNX model"),
        (["affine.onnx", "--profile", "x=1,2"], "'x=1,2' is no profile: write NAME=MIN,OPT,MAX"),
        (["affine.onnx", "--profile", "x=8x4,4x4,2x4"], "dimension 0 of 'x' must ascend"),
        (["affine.onnx", "--precision", "int8"], "name them with --calibration FILE.npz"),
        (["affine.onnx", "--calibration", "a.npz"], "for --precision int8 alone, not for fp32"),
        (
            ["affine.onnx", "--set", "provider"],
            "'provider' is no setting: write NAME=VALUE; it has provider (cpu, cuda",
        ),
        (["affine.onnx", "--set", "provider=gpu"], "the setting provider is cpu, cuda or openvino, not 'gpu'"),
        (["affine.onnx", "--set", "provider=cpu", "--set", "provider=cuda"], "provider is set twice"),
        (["affine.onnx", "--runtime", "openvino", "--set", "a=b"], "openvino has no setting 'a'; it has none"),
        (["unknown.onnx"], "Frobnicate"),
    ],
)
def test_what_cannot_be_built_is_one_sentence_and_leaves_nothing(shell: Shell, arguments: list[str], why: str) -> None:
    tiny_models.affine(shell.folder / "affine.onnx")
    tiny_models.unknown_operator(shell.folder / "unknown.onnx")
    (shell.folder / "text.onnx").write_text("no model at all")

    said = shell.call("build", *arguments)

    assert said.code == 2
    assert why in said.err
    assert said.err.count("\n") == 1
    assert not list(shell.artefacts.glob("*/manifest.json"))
    assert not list(shell.artefacts.glob("builds/*.part"))


def test_what_is_set_of_a_runtime_is_part_of_the_engine(shell: Shell) -> None:
    model = tiny_models.transformer(shell.folder / "model.onnx")
    asked = [
        "build",
        model,
        "--runtime",
        "tensorrt-rtx",
        "--profile",
        "ids=1x1,1x8,1x16",
        "--profile",
        "mask=1x1,1x8,1x16",
    ]
    narrow = shell.call(*asked, "--set", "computeCapability=8.9", "--set", "optimizationLevel=1", "--json")
    assert narrow.code == 0, narrow.err
    assert {("computeCapability", "8.9"), ("optimizationLevel", "1")} <= set(map(tuple, narrow.json["options"]))
    assert "with a GPU: compute capability 8.9" in shell.call("inspect", narrow.json["digest"]).out


def test_ctrl_c_ends_the_build_at_once_and_leaves_nothing(shell: Shell) -> None:
    model = tiny_models.affine(shell.folder / "affine.onnx")
    digest = shell.call("build", model, "--json").json["digest"]
    shutil.rmtree(shell.artefacts / digest)
    (lock,) = shell.artefacts.glob("builds/*.lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # somebody else builds the same, for ever
        building = shell.start("build", model)
        assert building.stdout is not None
        assert "reading the model" in building.stdout.readline()
        building.send_signal(signal.SIGINT)
        _, err = building.communicate(timeout=30)

    assert building.returncode == 130
    assert "nothing of the build was kept" in err
    assert not (shell.artefacts / digest).exists()
    assert shell.processes() == []


def test_an_engine_is_inspected_by_digest_by_its_beginning_and_by_path(shell: Shell) -> None:
    model = tiny_models.affine(shell.folder / "affine.onnx")
    built = shell.call("build", model, "--json").json
    folder = Path(built["path"])

    answers = [
        shell.call("inspect", target, "--json")
        for target in (built["digest"], built["digest"][:8], folder, folder / "engine.onnx")
    ]

    assert [answer.code for answer in answers] == [0] * 4, answers[-1].err
    assert all(answer.json == answers[0].json for answer in answers)
    assert answers[0].json["digest"] == built["digest"]
    assert answers[0].json["runs_here"] is True
    assert answers[0].json["graph"] == {"Mul": 1, "Add": 1}
    assert answers[0].json["layers"]
    shown = shell.call("inspect", built["digest"][:8]).out
    for line in (
        "runs here  yes",
        "2 nodes in the model: 1 ",
        "affine.onnx",
        built["digest"],
        "outputs    y: FP32[?,4]",
    ):
        assert line in shown


def test_an_engine_of_another_machine_or_version_says_why_it_may_not_run_here(shell: Shell) -> None:
    folder = Path(shell.call("build", tiny_models.affine(shell.folder / "a.onnx"), "--json").json["path"])
    manifest = folder / "manifest.json"
    passport = manifest.read_text()
    for known, other, why in (
        ("Linux", "OpenVMS", "OpenVMS, and this is "),
        ('"onnxruntime","1.', '"onnxruntime","99.', "was built with onnxruntime 99."),
    ):
        assert known in passport
        manifest.write_text(passport.replace(known, other))
        answer = shell.call("inspect", folder, "--json").json
        assert answer["runs_here"] is False
        assert why in answer["why_not_here"]


def test_what_is_no_engine_or_a_damaged_one_is_refused_with_the_cure(shell: Shell) -> None:
    model = tiny_models.affine(shell.folder / "a.onnx")
    built = shell.call("build", model, "--json").json
    shell.call("build", tiny_models.affine(shell.folder / "b.onnx", scale=3.0))

    unknown = shell.call("inspect", "0" * 64)
    assert (unknown.code, built["digest"][:12] in unknown.err) == (2, True)
    assert "build it first: graylift build" in shell.call("inspect", model).err
    assert "4 to 64 hexadecimal digits" in shell.call("inspect", "v2").err

    engine = Path(built["path"]) / "engine.onnx"
    engine.write_bytes(engine.read_bytes()[:-1] + b"\0")
    damaged = shell.call("inspect", built["digest"])
    assert damaged.code == 2
    assert "is damaged: its bytes have digest" in damaged.err
