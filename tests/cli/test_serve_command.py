"""`graylift serve`: one model by itself, from its file to its answers."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from pathlib import Path

import pytest
import tiny_models
from calling import Shell

pytestmark = pytest.mark.real


def said_until(log: Path, pattern: str) -> re.Match[str]:
    """What the server says of that kind, as soon as it does."""
    ends = time.monotonic() + 60
    while (found := re.search(pattern, log.read_text())) is None:
        assert time.monotonic() < ends, log.read_text()
        time.sleep(0.02)
    return found


def test_a_file_is_built_measured_served_and_ended_by_a_signal(shell: Shell, tmp_path: Path) -> None:
    model = tiny_models.affine(tmp_path / "affine.onnx")
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = shell.start("serve", model, "--name", "twice", "--port", "0", stderr=stream)
        try:
            url = "http://" + said_until(log, r"start: twice[.]\w+ on (\S+),")[1]
            said_until(log, r"ready: ")
            document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
            request = urllib.request.Request(f"{url}/v2/models/twice/infer", json.dumps(document).encode())
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.load(answer)["outputs"][0]["data"] == [3, 5, 7, 9]
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "takes" in out
    assert "x: FP32[?,4]" in out
    assert re.search(r"batching: up to \d+ rows a run, 0 ms for company: ", log.read_text())
    assert re.search(r"contexts: \d+ \(1: [\d,]+ rows/s", log.read_text())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--contexts", "many"), "--contexts is a whole number from 1 to 256, or auto; not 'many'"),
        (("--max-batch", "0"), "--max-batch is a whole number from 1 to 65,536, or auto; not '0'"),
        (("--latency-target", "50"), "--latency-target 50: write whole numbers with a unit"),
        (("--name", "a/b"), "--name is part of a path"),
    ],
)
def test_a_wrong_wish_is_refused_before_anything_is_built(
    shell: Shell, arguments: tuple[str, ...], complaint: str
) -> None:
    said = shell.call("serve", "absent.onnx", *arguments)
    assert said.code == 2
    assert complaint in " ".join(said.err.split())
