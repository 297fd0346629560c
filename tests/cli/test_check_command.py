"""`graylift check` on real small models: a line a check, an exit code that scripts can act on."""

from __future__ import annotations

import fcntl
import shutil
import signal

import pytest
import tiny_models
from calling import Shell

pytestmark = pytest.mark.real

SKIPPED = "{skip: tried elsewhere}"


def a_release(shell: Shell, candidate: str = "v2.onnx") -> None:
    """Its slow checks are skipped: what they find is tested where they are."""
    tiny_models.affine(shell.folder / "v1.onnx")
    tiny_models.affine(shell.folder / "v2.onnx", scale=2.5)
    tiny_models.lookup(shell.folder / "other.onnx")
    checks = ("parity", "performance", "coldStart", "boundary", "capacity", "concurrency")
    (shell.folder / "release.yaml").write_text(f"""
apiVersion: graylift.dev/v1
kind: Release
metadata: {{name: tiny}}
spec:
  protocol: open-inference
  stable: {{revision: v1, model: {{onnx: v1.onnx}}}}
  candidate: {{revision: v2, model: {{onnx: {candidate}}}}}
  checks: {{{", ".join(f"{name}: {SKIPPED}" for name in checks)}}}
  stages:
    - {{weight: 10, observe: 10s}}
    - {{weight: 100, watch: 10s}}
""")


def test_each_check_is_a_line_and_its_evidence_comes_on_demand(shell: Shell) -> None:
    a_release(shell)
    said, more = shell.call("check", "release.yaml"), shell.call("check", "release.yaml", "-v")

    assert (said.code, more.code) == (0, 0), said.err
    lines = said.out.splitlines()
    for begin in (
        "PASS          build stable: v1 is engine ",
        "PASS          build candidate: v2 is engine ",
        "PASS          interface: v2 serves what v1 serves",
        "SKIPPED       boundary: not run: tried elsewhere",
    ):
        assert any(line.startswith(begin) for line in lines), begin
    assert lines[-1].startswith("v2 may see users: ")
    assert "source v1.onnx" in more.out
    assert "source v1.onnx" not in said.out


def test_a_candidate_that_fails_is_exit_4_and_the_sentence_says_why(shell: Shell) -> None:
    a_release(shell, candidate="other.onnx")
    said = shell.call("check", "release.yaml", "--json")

    assert said.code == 4
    assert said.json["passed"] is False
    failed = {c["check"]: c["sentence"] for c in said.json["checks"] if c["outcome"] == "FAIL"}
    assert "input x: FP32[?,4] is missing" in failed["interface"]
    assert said.json["candidate"]["id"].startswith("tiny.v2.")
    assert set(said.json["checks"][0]) == {"check", "outcome", "sentence", "evidence"}
    assert "v2 must not see users: " in shell.call("check", "release.yaml").out


def test_a_side_that_cannot_be_built_fails_and_binds_no_revision(shell: Shell) -> None:
    a_release(shell)
    (shell.folder / "v2.onnx").write_text("no model at all")
    said = shell.call("check", "release.yaml", "--json")

    assert said.code == 4
    assert said.json["candidate"] is None
    assert any(f"{shell.folder}/v2.onnx is no ONNX model" in check["sentence"] for check in said.json["checks"])


def test_a_wrong_release_file_is_exit_2_with_its_place(shell: Shell) -> None:
    a_release(shell)
    file = shell.folder / "release.yaml"
    file.write_text(file.read_text().replace("weight: 10,", "weigth: 10,"))
    said = shell.call("check", "release.yaml")

    assert said.code == 2
    assert "release.yaml:11:7: `weight` is missing" in said.err
    assert not shell.artefacts.exists()


def test_ctrl_c_ends_it_at_once_and_leaves_no_process(shell: Shell) -> None:
    a_release(shell)
    answer = shell.call("check", "release.yaml", "--json").json
    built = next(check for check in answer["checks"] if check["check"] == "build stable")
    shutil.rmtree(shell.artefacts / built["evidence"][1].removeprefix("engine "))
    locks = [lock.open("w") for lock in shell.artefacts.glob("builds/*.lock")]
    for lock in locks:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else builds the same, for ever

    checking = shell.start("check", "release.yaml")
    while not any("graylift.engine build" in line for line in shell.processes()):
        assert checking.poll() is None, "it waits in the build"
    checking.send_signal(signal.SIGINT)
    _, err = checking.communicate(timeout=30)
    for lock in locks:
        lock.close()

    assert checking.returncode == 130, err
    assert "interrupted" in err
    assert shell.processes() == []
