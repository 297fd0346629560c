"""`graylift profile suggest`: what it prints can be pasted into a release file and typed after `graylift build`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from calling import Shell

from graylift.domain.engine import Profile, ProfileShape
from graylift.domain.spec import OnnxModel
from graylift.spec import parse
from graylift.spec.profiles import profiles_from_texts

pytestmark = pytest.mark.real

SHORT = Profile((ProfileShape("x", (1, 4), (2, 4), (2, 4)),))
LINES = '{"x": [1, 4]}\n{"x": [2, 4]}\n\n{"x": [2, 4]}\n'

RELEASE = """
apiVersion: graylift.dev/v1
kind: Release
metadata: {name: tiny}
spec:
  protocol: open-inference
  stable: {revision: v1, model: {onnx: v1.onnx}}
  candidate:
    revision: v2
    model:
      onnx: v2.onnx
"""
STAGES = """
  stages:
    - {weight: 10, observe: 10s}
    - {weight: 100, watch: 10s}
"""


def test_what_it_prints_is_read_back_by_the_release_file_and_by_build(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "shapes.jsonl").write_text(LINES)
    said = shell.call("profile", "suggest", "shapes.jsonl")

    assert said.code == 0, said.err
    text, _, command = said.out.partition("# the same for graylift build:\n")
    for name in ("v1.onnx", "v2.onnx"):
        tiny_models.affine(tmp_path / name)
    pasted = "\n".join(f"      {line}" for line in text.splitlines())
    model = parse(RELEASE + pasted + STAGES, "release.yaml", tmp_path).candidate.model
    assert isinstance(model, OnnxModel)
    assert model.profiles == (SHORT,)
    typed = shlex.split(command)
    assert typed[::2] == ["--profile"]
    assert profiles_from_texts(typed[1::2]) == (SHORT,)
    assert "3 requests" in said.out


@pytest.mark.parametrize("kind", ["lines", "server", "samples"])
def test_each_kind_of_record_is_read(shell: Shell, tmp_path: Path, kind: str) -> None:
    file = tmp_path / ("shapes.npz" if kind == "samples" else "shapes.json")
    match kind:
        case "lines":
            file.write_text('{"x": [1, 4]}\n' * 5)
        case "server":
            file.write_text(json.dumps({"shapes": [{"inputs": {"x": [1, 4]}, "count": 5}]}))
        case _:
            np.savez(file, x=np.zeros((5, 4), np.float32))
    answer = shell.call("profile", "suggest", file, "--json").json

    assert answer == {
        "profiles": [{"x": {"min": [1, 4], "opt": [1, 4], "max": [1, 4]}}],
        "requests": [5],
        "options": ["x=1x4,1x4,1x4"],
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no request was recorded"),
        (
            '{"x": [1, 4]}\n{"x": "wide"}\n',
            'line 2 is no record of shapes; write one request a line, as in {"input_ids"',
        ),
        ('{"x": [1, 4]}\n{"x": [1]}\n', "the requests are not of one model"),
    ],
)
def test_what_is_no_record_is_refused_with_what_one_looks_like(shell: Shell, text: str, why: str) -> None:
    (shell.folder / "shapes.json").write_text(text)
    said = shell.call("profile", "suggest", "shapes.json")

    assert said.code == 2
    assert why in said.err


def test_a_record_that_is_not_there_is_said(shell: Shell) -> None:
    said = shell.call("profile", "suggest", "missing.json")
    assert (said.code, "cannot read missing.json: No such file" in said.err) == (2, True)
